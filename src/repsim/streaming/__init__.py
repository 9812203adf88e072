"""Streaming: similarity of data that arrives in batches, in memory that does not grow with them."""

from repsim.streaming._blocks import BlockSums, Sums
from repsim.streaming._minibatch import MIN_BATCH, MinibatchCKA
from repsim.streaming._pilot import PilotKernels
from repsim.streaming._ridge import LinearClassifier, RidgePath, RidgeStatistics

__all__ = [
    "MIN_BATCH",
    "BlockSums",
    "LinearClassifier",
    "MinibatchCKA",
    "PilotKernels",
    "RidgePath",
    "RidgeStatistics",
    "Sums",
]
