"""What the sums of one layer's attention share: copies on the CPU, which ranks add up."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from repsim.analysis._precision import sum_dtype

__all__ = ["HeadSums", "LayerSums"]


class LayerSums:
    """The sums of one layer over batches.

    Attributes
    ----------
    heads : int
        The number of heads.
    added : tuple of str
        The attributes that add up over batches and ranks: tensors, numbers, or other sums.
    """

    heads: int
    added: ClassVar[tuple[str, ...]]

    def on_cpu(self) -> Self:
        """Return a copy that can be pickled, with tensors on the CPU in float64."""
        copied = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                value = value.cpu()
                setattr(copied, name, value.double() if value.is_floating_point() else value)
            elif isinstance(value, LayerSums):
                setattr(copied, name, value.on_cpu())
        return copied

    def fits_sums(self, other: LayerSums) -> bool:
        """Whether the sums of another rank can be added."""
        return type(self) is type(other) and self.heads == other.heads

    def plus(self, others: Sequence[Self]) -> Self:
        """Return the sums together with those of other ranks."""
        total = copy.copy(self)
        for name in self.added:
            value: Any = getattr(self, name)
            if isinstance(value, LayerSums):
                value = value.plus([getattr(each, name) for each in others])
            else:
                for each in others:
                    value = value + getattr(each, name)
            setattr(total, name, value)
        return total


class HeadSums(LayerSums):
    """The sums of one layer in one tensor.

    Parameters
    ----------
    rows : int
        How many sums each head has.
    heads : int
        The number of heads.
    device : torch.device
        The device of the sums.
    """

    def __init__(self, rows: int, heads: int, device: torch.device) -> None:
        self.heads = heads
        self.totals = torch.zeros(rows, heads, dtype=sum_dtype(device), device=device)

    def add_sums(self, sums: Tensor) -> Tensor:
        """Add those of one batch, (rows, heads); return whether they are finite, a 0-d bool."""
        self.totals += sums
        return torch.isfinite(sums).all()
