"""The ranks of torch.distributed that share the batches of an analysis."""

from repsim.analysis.run.ranks._alike import one_for_all, union_in_order
from repsim.analysis.run.ranks._new_samples import NewSamples
from repsim.analysis.run.ranks._ranks import Ranks
from repsim.analysis.run.ranks._sample_ids import SampleIds, check_sample_ids, ids_of

__all__ = [
    "NewSamples",
    "Ranks",
    "SampleIds",
    "check_sample_ids",
    "ids_of",
    "one_for_all",
    "union_in_order",
]
