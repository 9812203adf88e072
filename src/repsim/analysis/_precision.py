"""The precision of sums over batches."""

from __future__ import annotations

import torch

__all__ = ["sum_dtype"]


def sum_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype of sums on a device: float64, which Apple's GPUs lack."""
    return torch.float32 if device.type == "mps" else torch.float64
