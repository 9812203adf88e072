"""Means over positions, where those that differ by rounding alone are equal.

A norm over positions gives all samples the same mean, its bias. Any measure of what rounding leaves
of it is arbitrary, so these means are made equal, within a batch and between the batches of a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from repsim.storage import EQUAL_MEANS

__all__ = ["RunMeans", "equal_in_batch", "mean_of"]


def mean_of(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the mean over the real positions of each sample, and what rounding may change of it.

    Parameters
    ----------
    x : torch.Tensor, shape (B, ..., D)
        Positions between the first and the last axis.
    mask : torch.Tensor, shape (B, N), optional
        True where a position of (B, N, ..., D) is real; by default all are.

    Returns
    -------
    mean : torch.Tensor
        (B, D); with a mask (B, ..., D). float32 for half precision, whose digits would be too few
        for means that resemble one another.
    rounding : torch.Tensor
        A number for each feature.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    if mask is None:
        mean = x.mean(tuple(range(1, x.ndim - 1)), dtype=wide)
    else:
        # Not a product with the mask: padding may hold NaN.
        x = x.to(wide).masked_fill(~mask[:, :, *(None,) * (x.ndim - 2)], 0.0)
        mean = x.sum(1) / mask.sum(1).reshape(-1, *(1,) * (x.ndim - 2))
    if x.numel() == 0:
        return mean, mean.new_zeros(mean.shape[1:])
    eps = torch.finfo(wide).eps
    largest = x[0].detach().abs().flatten(0, x.ndim - mean.ndim - 1).amax(0)
    return mean, EQUAL_MEANS * eps * largest


def equal_in_batch(mean: Tensor, rounding: Tensor) -> Tensor:
    """Return means (B, ...) that differ by rounding alone as equal, and others as they are."""
    equal = ((mean - mean.mean(0)).abs() <= rounding).all()
    return torch.where(equal, mean[:1], mean)


class RunMeans:
    """Means of the layers of one run, equal over all its batches if rounding alone differs.

    The first sample of the run is kept for each layer. A batch gets its mean if all means of the
    batch equal it up to rounding.

    Attributes
    ----------
    dtype : torch.dtype, optional
        The dtype in which means are stored, if it is narrower than theirs.
    """

    def __init__(self) -> None:
        self.dtype: torch.dtype | None = None
        self._first: dict[str, Tensor] = {}

    @property
    def first(self) -> Mapping[str, Tensor]:
        """The mean of the first sample of the run, by layer and call."""
        return self._first

    def resume(self, first: Mapping[str, Any]) -> None:
        """Take the first sample of another part of the run, by layer, or by layer and call."""
        self._first = {label: torch.as_tensor(row) for label, row in first.items()}

    def __call__(self, x: Tensor, mask: Tensor | None, layer: str, call: int) -> Tensor:
        """Return the means (B, ..., D) of an output, as :func:`mean_of`."""
        mean, rounding = mean_of(x, mask)
        mean = equal_in_batch(mean, rounding)
        if mean.requires_grad or not len(mean):  # another sample's mean has no gradient here
            return mean
        first = self._of(layer, call, mean[:1])
        if first.numel() != mean[0].numel():
            return mean
        # Both lie within one rounding of the same value.
        margin = 2 * rounding
        if self.dtype is not None:
            info = torch.finfo(self.dtype)
            margin = margin + info.eps / 2 * (first.abs() + info.smallest_normal)
        return torch.where(((mean - first).abs() <= margin).all(), first, mean)

    def _of(self, layer: str, call: int, mean: Tensor) -> Tensor:
        """Return the mean of the first sample of the run, where this batch begins with `mean`."""
        label = f"{layer}:{call}"
        known = self._first.get(label)
        if known is None and call == 0:
            known = self._first.get(layer)  # labels of a store have no call where there is one
        if known is None:
            known = mean.clone() if self.dtype is None else mean.to(self.dtype)
        known = self._first[label] = known.to(mean)
        return known.reshape(mean.shape) if known.numel() == mean.numel() else known
