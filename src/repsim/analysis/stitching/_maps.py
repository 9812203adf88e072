"""Affine maps from the features of one layer to those of another, from sums over batches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from repsim.analysis._precision import sum_dtype

__all__ = ["AffineMap", "FitSums"]


@dataclass(frozen=True)
class AffineMap:
    """The map x ↦ xW + b.

    Attributes
    ----------
    weights : torch.Tensor, shape (p, q)
        W.
    bias : torch.Tensor, shape (q,)
        b.
    """

    weights: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Map the last axis of ``x``, in its dtype or a wider one and on the map's device."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        x = x.to(device=self.weights.device, dtype=dtype)
        return x @ self.weights.to(dtype) + self.bias.to(dtype)


class FitSums:
    """Sums over positions from which a ridge regression of y on x follows.

    Each is about the mean of the first batch, because Σx² − (Σx)²/n would cancel.
    """

    def __init__(self) -> None:
        self.n = 0
        """The number of positions."""
        self._shift: tuple[Tensor, Tensor] | None = None
        self._sums: list[Tensor] = []  # Σx, Σy, Σxxᵀ, Σxyᵀ, Σ|y|²

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add the rows (n, p) and (n, q) of a batch, on one device."""
        wide = sum_dtype(y.device)
        x, y = x.to(device=y.device, dtype=wide), y.to(wide)
        if not len(x):
            return
        if self._shift is None:
            self._shift = x.mean(0), y.mean(0)
        x, y = x - self._shift[0], y - self._shift[1]
        new = [x.sum(0), y.sum(0), x.T @ x, x.T @ y, (y * y).sum()]
        before = self._sums or [torch.zeros_like(each) for each in new]
        self._sums = [a + b for a, b in zip(before, new, strict=True)]
        self.n += len(x)

    @property
    def same_width(self) -> bool:
        """Whether x and y have as many features."""
        cross = self._sums[3]
        return cross.shape[0] == cross.shape[1]

    def fitted(self, ridge: float) -> AffineMap:
        """Return the map that minimises ‖Yc − XcW‖² + λ‖W‖², λ = ridge · ‖Xc‖²/p."""
        mean_x, mean_y, scatter, cross, _ = self._centred()
        p = len(scatter)
        penalty = ridge * scatter.trace() / p
        values, vectors = torch.linalg.eigh(scatter)
        # Directions below the rounding of the sums have no weight, with and without a penalty.
        rounding = 8 * torch.finfo(scatter.dtype).eps * p * values.abs().max()
        kept = values > rounding
        inverse = torch.where(kept, 1 / torch.where(kept, values + penalty, 1.0), 0.0)
        weights = (vectors * inverse) @ (vectors.T @ cross)
        return AffineMap(weights, mean_y - mean_x @ weights)

    def random(self, generator: torch.Generator) -> AffineMap:
        """Return a Gaussian map whose outputs have the mean and the total variance of y."""
        mean_x, mean_y, scatter, cross, square = self._centred()
        drawn = torch.randn(cross.shape, generator=generator, dtype=torch.float64, device="cpu")
        weights = drawn.to(cross)
        now = ((scatter @ weights) * weights).sum()
        scale = torch.where(now > 0, (square / torch.where(now > 0, now, 1.0)).clamp(min=0), 0.0)
        weights = weights * scale.sqrt()
        return AffineMap(weights, mean_y - mean_x @ weights)

    def _centred(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return the means of x and y, and Σxcxcᵀ, Σxcycᵀ, Σ|yc|²."""
        assert self._shift is not None
        sum_x, sum_y, scatter, cross, square = self._sums
        mean_x, mean_y = sum_x / self.n, sum_y / self.n
        return (
            self._shift[0] + mean_x,
            self._shift[1] + mean_y,
            scatter - self.n * torch.outer(mean_x, mean_x),
            cross - self.n * torch.outer(mean_x, mean_y),
            square - self.n * (mean_y * mean_y).sum(),
        )
