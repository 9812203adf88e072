"""Which axis of an output holds the samples: evidence of small batches, and a rule of sizes."""

from repsim.capture.samples._axes import BatchAxis
from repsim.capture.samples._cut import (
    cut,
    have_one_size,
    length_of_items,
    lengths_in,
    taken,
    uncut_indices,
)
from repsim.capture.samples._own_copy import own_copy
from repsim.capture.samples._probe import ORDERS, SIZES, Evidence, ask

__all__ = [
    "ORDERS",
    "SIZES",
    "BatchAxis",
    "Evidence",
    "ask",
    "cut",
    "have_one_size",
    "length_of_items",
    "lengths_in",
    "own_copy",
    "taken",
    "uncut_indices",
]
