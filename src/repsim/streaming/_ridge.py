"""Closed-form ridge regression onto class labels, from statistics that batches add to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from array_api_compat import array_namespace, device

from repsim._errors import InputError, StateError
from repsim._typing import Array, Namespace
from repsim.arrays import accumulator_dtype, promote, same_home, to_numpy, without_autocast
from repsim.streaming._moments import ClassMoments, one_hot

__all__ = ["LinearClassifier", "RidgePath", "RidgeStatistics"]

Labels: TypeAlias = np.ndarray[Any, np.dtype[np.integer[Any]]]

ROUNDING = 4.0
"""Greatest spread of a constant feature, in units of the last digit of its mean."""


class RidgeStatistics:
    r"""Statistics for ridge regression from features to one-vs-all targets {−1, +1}.

    >>> import numpy as np
    >>> x = np.array([[2.0, 0.0], [0.0, 2.0], [-2.0, 0.0], [0.0, -2.0]])
    >>> statistics = RidgeStatistics()
    >>> statistics.update(x, np.array([0, 0, 1, 1]))
    >>> path = statistics.solve(standardize=False)  # XᵀX = 8 I, XᵀY = 4: W = 4 / (8 + λ)
    >>> path.weights(2.0).weights.round(12).tolist()
    [[0.4, -0.4], [0.4, -0.4]]

    Many problems of one size are solved together; the axes before the last two count them (the
    tokens of a layer). The state is the smaller of two: the features themselves while n ≤ p, else
    the sums n_k, c_k = Σ_{i in k} x_i and XᵀX about a shift near the mean. Both give the same
    predictor.
    """

    def __init__(self) -> None:
        self.n = 0
        self._rows: list[tuple[Array, Labels]] = []
        self._moments: ClassMoments | None = None
        self._shape: tuple[int, ...] | None = None
        self._eps = 0.0

    @property
    def folded(self) -> bool:
        """Whether sums have replaced the features."""
        return self._moments is not None

    @without_autocast
    def update(self, x: Array, labels: Labels) -> None:
        """Add samples.

        Parameters
        ----------
        x : array, shape (..., n, p)
            Finite features of n samples, for each problem; any framework, in which they remain.
        labels : numpy.ndarray of int, shape (n,)
            Their classes, counted from 0, the same for all problems.

        Raises
        ------
        InputError
            Shapes that do not match each other or those of earlier batches.
        """
        xp = array_namespace(x)
        shape = (*x.shape[:-2], x.shape[-1])
        if x.ndim < 2 or x.shape[-2] != len(labels) or self._shape not in (None, shape):
            raise InputError(
                f"RidgeStatistics.update: x must be (..., n, p), labels (n,), as before.\n"
                f"  x: {tuple(x.shape)}    labels: {labels.shape}    before: {self._shape}\n"
                f"  Pair features and labels before adding them."
            )
        if x.shape[-2] == 0:
            return
        x = promote(xp, _in_reach_of_float64(xp, x), "RidgeStatistics.update")
        self._shape = shape
        self._eps = max(self._eps, float(array_namespace(x).finfo(x.dtype).eps))
        self.n += x.shape[-2]
        if self._moments is None:
            self._rows.append((x, labels))
            if self.n > x.shape[-1]:
                self._fold()
        else:
            self._moments = self._moments.plus(
                ClassMoments.of(_wide(x), labels, shift=self._moments.shift)
            )

    def merge(self, other: RidgeStatistics) -> RidgeStatistics:
        """Add the samples of another, which does not change, and return this one."""
        if other._moments is None:
            for x, labels in other._rows:
                self.update(x, labels)
            return self
        if self._shape not in (None, other._shape):
            raise StateError(
                f"RidgeStatistics.merge: both must have the same problems and features.\n"
                f"  this: {self._shape}    other: {other._shape}"
            )
        self._fold()
        mine = self._moments
        self._moments = other._moments if mine is None else mine.plus(other._moments)
        self._shape = other._shape
        self._eps = max(self._eps, other._eps)
        self.n += other.n
        return self

    def _fold(self) -> None:
        """Replace features by their sums about the mean of the first batch."""
        rows, self._rows = self._rows, []
        for x, labels in rows:
            wide = _wide(x)
            if self._moments is None:
                self._moments = ClassMoments.of(wide, labels, shift=_mean(wide))
            else:
                more = ClassMoments.of(wide, labels, shift=self._moments.shift)
                self._moments = self._moments.plus(more)

    @without_autocast
    def solve(self, *, standardize: bool = True, n_classes: int | None = None) -> RidgePath:
        """Return the solutions for all ridges at once, from one eigendecomposition.

        With the mean μ, D the diagonal of the standard deviations (the identity without
        ``standardize``) and S = XᵀX::

            A = D⁻¹(S − nμμᵀ)D⁻¹ = QΛQᵀ      R = D⁻¹ · 2(c_k − (n_k/n)Σx)
            W = Q(Λ + λI)⁻¹QᵀR                b = (2n_k/n − 1) − μᵀD⁻¹W

        and, with fewer samples than features, the same W from Z = (X − 1μᵀ)D⁻¹ and
        ZZᵀ = UΛUᵀ as ZᵀU(Λ + λI)⁻¹UᵀY. A feature whose spread is below the rounding of its values
        is constant and gets the weight 0.

        Parameters
        ----------
        standardize : bool, default True
            Whether to divide the features by their standard deviations (those of n, not n − 1).
        n_classes : int, optional
            K, by default one more than the largest label.

        Returns
        -------
        RidgePath
            In float64, on the device of the features.

        Raises
        ------
        StateError
            Nothing has been added.

        Notes
        -----
        O(min(n, p)³ + n p min(n, p)) per problem.
        """
        if self.n == 0:
            raise StateError("RidgeStatistics.solve: no samples have been added.")
        if self._moments is not None:
            return self._primal(self._moments, standardize, n_classes)
        return self._dual(standardize, n_classes)

    def _primal(self, moments: ClassMoments, standardize: bool, n_classes: int | None) -> RidgePath:
        xp = array_namespace(moments.products)
        moments = moments.padded(n_classes)
        n, counts = self.n, moments.class_counts
        about_shift = moments.total / n
        scatter = moments.products - n * xp.matrix_transpose(about_shift) * about_shift
        mean = moments.shift + about_shift
        variance = xp.linalg.diagonal(scatter)[..., None, :] / n
        inverse = self._inverse_scale(xp, mean, variance, standardize)
        values, basis = xp.linalg.eigh(xp.matrix_transpose(inverse) * scatter * inverse)
        towards = 2 * (moments.class_sums - counts[:, None] * about_shift) * inverse
        return RidgePath(
            mean,
            inverse,
            basis,
            _nonnegative(xp, values),
            xp.matrix_transpose(basis) @ xp.matrix_transpose(towards),
            2 * counts / n - 1,
        )

    def _dual(self, standardize: bool, n_classes: int | None) -> RidgePath:
        rows = [x for x, _ in self._rows]
        if not all(same_home(x, rows[0]) for x in rows):  # merged from another device
            rows = [to_numpy(x) for x in rows]
        xp = array_namespace(rows[0])
        x = xp.concat([_wide(x) for x in rows], axis=-2)
        labels = np.concatenate([labels for _, labels in self._rows])
        mean = _mean(x)
        x = x - mean
        variance = xp.mean(x * x, axis=-2, keepdims=True)
        inverse = self._inverse_scale(xp, mean, variance, standardize)
        x = x * inverse
        across = xp.matrix_transpose(x)
        values, vectors = xp.linalg.eigh(x @ across)
        targets = 2 * one_hot(xp, labels, n_classes or int(labels.max()) + 1, x) - 1
        intercept = xp.mean(targets, axis=0)
        coefficients = xp.matrix_transpose(vectors) @ (targets - intercept)
        return RidgePath(
            mean, inverse, across @ vectors, _nonnegative(xp, values), coefficients, intercept
        )

    def _inverse_scale(
        self, xp: Namespace, mean: Array, variance: Array, standardize: bool
    ) -> Array:
        out: Array = xp.ones_like(variance)
        if standardize:
            constant = variance <= (ROUNDING * self._eps * mean) ** 2
            safe = xp.where(constant, out, variance)
            out = xp.where(constant, xp.zeros_like(variance), 1 / xp.sqrt(safe))
        return out


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
        correct, error : numpy.ndarray, shape (R, ...)
            Counts, and squared errors to the {−1, +1} targets summed over samples and classes.
        """
        wide = _wide(_in_reach_of_float64(array_namespace(x), x))
        xp = array_namespace(wide)
        projected = ((wide - self.mean) * self.inverse_scale) @ self.basis
        targets = 2 * one_hot(xp, labels, self.coefficients.shape[-1], wide) - 1
        truth = xp.argmax(targets, axis=-1)
        correct, error = [], []
        for ridge in ridges:
            scores = projected @ self._filtered(ridge) + self.intercept
            hits = xp.astype(xp.argmax(scores, axis=-1) == truth, wide.dtype)
            correct.append(xp.sum(hits, axis=-1))
            error.append(xp.sum((scores - targets) ** 2, axis=(-2, -1)))
        return to_numpy(xp.stack(correct)), to_numpy(xp.stack(error))

    def _filtered(self, ridge: Any) -> Any:
        xp = array_namespace(self.eigenvalues)
        values = self.eigenvalues
        if not isinstance(ridge, float | int):
            ridge = xp.asarray(ridge, dtype=values.dtype, device=device(values))[..., None]
        return self.coefficients / (values + ridge)[..., None]


@dataclass(frozen=True)
class LinearClassifier:
    """A linear map from features to class scores; the class is that of the largest score."""

    weights: Array  # (..., p, K)
    bias: Array  # (..., 1, K)

    def predict(self, x: Array) -> Array:
        """Return the classes, int, (..., n), of features (..., n, p)."""
        wide = _wide(_in_reach_of_float64(array_namespace(x), x))
        out: Array = array_namespace(wide).argmax(wide @ self.weights + self.bias, axis=-1)
        return out


def _in_reach_of_float64(xp: Namespace, x: Array) -> Array:
    """Copy to the CPU if the device has no float64 (jax by default, Apple's GPUs)."""
    return x if accumulator_dtype(xp, x) == xp.float64 else to_numpy(x)


def _wide(x: Array) -> Array:
    xp = array_namespace(x)
    out: Array = xp.astype(x, xp.float64, copy=False)
    return out


def _mean(x: Array) -> Array:
    out: Array = array_namespace(x).mean(x, axis=-2, keepdims=True)
    return out


def _nonnegative(xp: Namespace, eigenvalues: Array) -> Array:
    """Clip negative eigenvalues of a Gram to zero; they come from rounding."""
    out: Array = xp.where(eigenvalues > 0, eigenvalues, xp.zeros_like(eigenvalues))
    return out
