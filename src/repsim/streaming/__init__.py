"""Streaming: similarity of data in batches, in memory that does not grow with their number."""

from repsim._distributed import RankError, gather, group_size, tell_failure
from repsim.streaming._blocks import BlockSums, Sums, cka_of_sums
from repsim.streaming._minibatch import MinibatchCKA
from repsim.streaming._minibatch_results import MIN_BATCH
from repsim.streaming._pairs import CHUNK, pair_products, self_products
from repsim.streaming._pilot import PilotKernels
from repsim.streaming._ridge import RidgeStatistics
from repsim.streaming._ridge_path import LinearClassifier, RidgePath
from repsim.streaming.covariance._accumulator import StreamingCovariance
from repsim.streaming.covariance._linear_cka import StreamingLinearCKA
from repsim.streaming.exact._matrix import cka_matrix
from repsim.streaming.exact._sources import Source, row_slices, sources_of

__all__ = [
    "CHUNK",
    "MIN_BATCH",
    "BlockSums",
    "LinearClassifier",
    "MinibatchCKA",
    "PilotKernels",
    "RankError",
    "RidgePath",
    "RidgeStatistics",
    "Source",
    "StreamingCovariance",
    "StreamingLinearCKA",
    "Sums",
    "cka_matrix",
    "cka_of_sums",
    "gather",
    "group_size",
    "pair_products",
    "row_slices",
    "self_products",
    "sources_of",
    "tell_failure",
]
