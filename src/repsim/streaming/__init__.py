"""Streaming: similarity of data that arrives in batches, in memory that does not grow with them."""

from repsim.streaming._minibatch import MIN_BATCH, MinibatchCKA
from repsim.streaming._pilot import PilotKernels

__all__ = ["MIN_BATCH", "MinibatchCKA", "PilotKernels"]
