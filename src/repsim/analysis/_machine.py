"""Errors of memory, of a device and between ranks, which say nothing of a model or a batch."""

from __future__ import annotations

import torch
import torch.distributed as dist

__all__ = ["is_of_the_machine"]

WORDS = (
    "can't allocate memory", "not enough memory", "out of memory", "CUDA error", "HIP error",
)  # fmt: skip
"""What torch says where the error of an allocator or a device is a plain RuntimeError."""


def is_of_the_machine(error: BaseException) -> bool:
    """Whether an error is of memory, of a device or between ranks.

    Such an error must reach the caller: it has another repair, and what runs next may fail too.

    >>> is_of_the_machine(torch.OutOfMemoryError()), is_of_the_machine(RuntimeError("4 samples"))
    (True, False)
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError | dist.DistError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(words in text for words in WORDS)
