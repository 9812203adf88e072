"""Counts, sums and products of labelled features about a shift; batches add."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import device

from repsim._typing import Array, Namespace
from repsim.arrays import array_namespace, same_home, to_numpy, uploaded

__all__ = ["ClassMoments", "one_hot"]


@dataclass(frozen=True)
class ClassMoments:
    """Sums over samples of features x (..., n, p) about a shift s, all in float64.

    A shift near the mean keeps the digits that XᵀX − nμμᵀ would lose about the origin.
    """

    shift: Array  # s, (..., 1, p)
    products: Array  # Σ (x − s)(x − s)ᵀ, (..., p, p)
    class_sums: Array  # Σ (x − s) over the samples of each class, (..., K, p)
    class_counts: Array  # (K,)

    @classmethod
    def of(cls, x: Array, labels: np.ndarray[Any, Any], shift: Array) -> ClassMoments:
        """Return the sums over the samples of one batch."""
        xp = array_namespace(x)
        x = x - shift
        hot = one_hot(xp, labels, int(labels.max()) + 1, x)
        return cls(
            shift,
            xp.matrix_transpose(x) @ x,
            xp.matrix_transpose(hot) @ x,
            xp.sum(hot, axis=0),
        )

    @property
    def total(self) -> Array:
        """Σ (x − s), (..., 1, p)."""
        xp = array_namespace(self.class_sums)
        out: Array = xp.sum(self.class_sums, axis=-2, keepdims=True)
        return out

    def plus(self, other: ClassMoments) -> ClassMoments:
        """Return the sums over the samples of both, about the shift of this one."""
        if not same_home(self.products, other.products):  # from another device or framework
            return self._on_host().plus(other._on_host())
        classes = max(self.class_counts.shape[0], other.class_counts.shape[0])
        a, b = self.padded(classes), other.padded(classes)
        if b.shift is not a.shift:
            b = b._about(a.shift)
        return ClassMoments(
            a.shift,
            a.products + b.products,
            a.class_sums + b.class_sums,
            a.class_counts + b.class_counts,
        )

    def padded(self, classes: int | None) -> ClassMoments:
        """Return the same sums with this number of classes; new classes are empty."""
        have = self.class_counts.shape[0]
        if classes is None or have >= classes:
            return self
        xp, sums = array_namespace(self.class_sums), self.class_sums
        kind: Any = {"dtype": sums.dtype, "device": device(sums)}
        more = (*sums.shape[:-2], classes - have, sums.shape[-1])
        return ClassMoments(
            self.shift,
            self.products,
            xp.concat([sums, xp.zeros(more, **kind)], axis=-2),
            xp.concat([self.class_counts, xp.zeros(classes - have, **kind)]),
        )

    def _about(self, shift: Array) -> ClassMoments:
        """Move the shift: x − s' = (x − s) + δ with δ = s − s'."""
        xp = array_namespace(self.products)
        delta = self.shift - shift
        cross = xp.matrix_transpose(self.total) * delta
        n = xp.sum(self.class_counts)
        return ClassMoments(
            shift,
            self.products
            + cross
            + xp.matrix_transpose(cross)
            + n * xp.matrix_transpose(delta) * delta,
            self.class_sums + self.class_counts[:, None] * delta,
            self.class_counts,
        )

    def _on_host(self) -> ClassMoments:
        parts = (self.shift, self.products, self.class_sums, self.class_counts)
        return ClassMoments(*map(to_numpy, parts))


def one_hot(xp: Namespace, labels: np.ndarray[Any, Any], classes: int, like: Array) -> Any:
    """Return (n, K) in float64, 1 at the class of each sample, on the device of ``like``."""
    numbers = uploaded(labels.astype(np.int64), like)
    hot = numbers[:, None] == xp.arange(classes, dtype=numbers.dtype, device=device(like))
    return xp.astype(hot, xp.float64)
