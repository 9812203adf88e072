"""The solutions of ridge regression for every λ, and the classifier for one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
from array_api_compat import device

from repsim._typing import Array
from repsim.arrays import array_namespace, same_home, to_numpy
from repsim.streaming._checks import in_float64, in_reach_of_float64
from repsim.streaming._moments import one_hot

__all__ = ["Labels", "LinearClassifier", "RidgePath"]

Labels: TypeAlias = np.ndarray[Any, np.dtype[np.integer[Any]]]


@dataclass(frozen=True)
class RidgePath:
    """Ridge solutions for every λ: scores are ((x − mean)·inverse_scale @ basis) @ f(λ) + b₀.

    With f(λ) = coefficients / (eigenvalues + λ); r is the smaller of n and p.
    """

    mean: Array  # (..., 1, p)
    inverse_scale: Array  # (..., 1, p)
    basis: Array  # (..., p, r)
    eigenvalues: Array  # (..., r)
    coefficients: Array  # (..., r, K)
    intercept: Array  # (K,)

    def weights(self, ridge: Any) -> LinearClassifier:
        """Return weights and bias for raw features, for one λ > 0 or one per problem, (...)."""
        xp = array_namespace(self.basis)
        scaled = self.basis @ self._filtered(ridge)
        weights = xp.matrix_transpose(self.inverse_scale) * scaled
        return LinearClassifier(weights, self.intercept - self.mean @ weights)

    def assess(self, x: Array, labels: Labels, ridges: Sequence[float]) -> tuple[Any, Any]:
        """Return, for each λ, the number of correct samples and the sum of squared errors.

        Parameters
        ----------
        x : array, shape (..., n, p)
            Features of held-out samples.
        labels : numpy.ndarray of int, shape (n,)
            Their classes.
        ridges : sequence of R floats above zero

        Returns
        -------
        correct, error : array, shape (R, ...)
            Counts, and squared errors to the {−1, +1} targets summed over samples and classes, on
            the device of ``x`` if it has float64.
        """
        wide = in_float64(in_reach_of_float64(x))
        xp = array_namespace(wide)
        path = RidgePath(*(_at_home_of(wide, getattr(self, f.name)) for f in fields(self)))
        projected = ((wide - path.mean) * path.inverse_scale) @ path.basis
        targets = 2 * one_hot(xp, labels, path.coefficients.shape[-1], wide) - 1
        truth = xp.argmax(targets, axis=-1)
        correct, error = [], []
        for ridge in ridges:
            scores = projected @ path._filtered(ridge) + path.intercept
            hits = xp.astype(xp.argmax(scores, axis=-1) == truth, wide.dtype)
            correct.append(xp.sum(hits, axis=-1))
            error.append(xp.sum((scores - targets) ** 2, axis=(-2, -1)))
        return xp.stack(correct), xp.stack(error)

    def _filtered(self, ridge: Any) -> Any:
        xp = array_namespace(self.eigenvalues)
        values = self.eigenvalues
        if not isinstance(ridge, float | int):
            ridge = xp.asarray(ridge, dtype=values.dtype, device=device(values))[..., None]
        # A sum below the rounding of the eigenvalues would divide rounding by almost nothing. Such
        # directions are those that the samples do not have, so they have no weight.
        largest = xp.max(values, axis=-1, keepdims=True)
        rounding = xp.finfo(values.dtype).eps * values.shape[-1] * largest
        sums = values + ridge
        sums = xp.where(sums > rounding, sums, xp.full_like(sums, xp.inf))
        return self.coefficients / sums[..., None]


@dataclass(frozen=True)
class LinearClassifier:
    """A linear map from features to class scores; the class is that of the largest score."""

    weights: Array  # (..., p, K)
    bias: Array  # (..., 1, K)

    def predict(self, x: Array) -> Array:
        """Return the classes, int, (..., n), of features (..., n, p)."""
        wide = in_float64(in_reach_of_float64(x))
        weights, bias = (_at_home_of(wide, each) for each in (self.weights, self.bias))
        out: Array = array_namespace(wide).argmax(wide @ weights + bias, axis=-1)
        return out


def _at_home_of(like: Array, x: Array) -> Any:
    """Return an array in the framework and on the device of another."""
    if same_home(x, like):
        return x
    return array_namespace(like).asarray(to_numpy(x), device=device(like))
