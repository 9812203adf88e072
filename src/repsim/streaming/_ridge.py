"""Closed-form ridge regression onto class labels, from statistics that batches add to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from array_api_compat import device

from repsim._distributed import gather_made
from repsim._errors import InputError, StateError
from repsim._typing import Array, Namespace
from repsim._version import __version__
from repsim.arrays import (
    accumulator_dtype,
    array_namespace,
    promote,
    same_home,
    to_numpy,
    without_autocast,
)
from repsim.streaming._checks import in_float64, in_reach_of_float64, require_alike, require_state
from repsim.streaming._moments import ClassMoments, one_hot
from repsim.streaming._ridge_path import Labels, RidgePath

__all__ = ["RidgeStatistics"]

FORMAT = "repsim.RidgeStatistics/1"

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
        x = promote(xp, in_reach_of_float64(x), "RidgeStatistics.update")
        self._shape = shape
        self._eps = max(self._eps, float(array_namespace(x).finfo(x.dtype).eps))
        self.n += x.shape[-2]
        if self._moments is None:
            self._rows.append((x, labels))
            if self.n > x.shape[-1]:
                self._fold()
        else:
            self._moments = self._moments.plus(
                ClassMoments.of(in_float64(x), labels, shift=self._moments.shift)
            )

    def merge(self, other: RidgeStatistics) -> RidgeStatistics:
        """Add the samples of another, which does not change, and return this one.

        Raises
        ------
        StateError
            The two have different problems or features.
        """
        require_alike(self, other)
        if None not in (self._shape, other._shape) and self._shape != other._shape:
            raise StateError(
                f"RidgeStatistics.merge: both must have the same problems and features.\n"
                f"  this: {self._shape}    other: {other._shape}"
            )
        if other._moments is None:
            for x, labels in other._rows:
                self.update(x, labels)
            self._eps = max(self._eps, other._eps)
            return self
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
            wide = in_float64(x)
            if self._moments is None:
                self._moments = ClassMoments.of(wide, labels, shift=_mean(wide))
            else:
                more = ClassMoments.of(wide, labels, shift=self._moments.shift)
                self._moments = self._moments.plus(more)

    def all_reduce(self, group: Any = None) -> RidgeStatistics:
        """Return new statistics of everything that the ranks of torch.distributed have seen.

        Parameters
        ----------
        group : "world" or torch.distributed.ProcessGroup, optional
            The ranks, by default all; any backend, including gloo and nccl. With nccl call
            ``torch.cuda.set_device`` first.

        Returns
        -------
        RidgeStatistics
            NumPy arrays, the same bits on every rank: those of one process that merges the
            statistics in the order of ranks. These statistics do not change.

        Raises
        ------
        StateError
            There is no process group; the ranks differ in problems or features; a rank died or did
            not answer within the time limit of the group.

        Notes
        -----
        Every rank must call it. Ranks may have seen different numbers of samples, or none. Each
        sends 8 (p + K) p bytes per problem, or its n ≤ p rows of features.
        """
        merged = RidgeStatistics()
        for state in gather_made("RidgeStatistics.all_reduce", self.state_dict, group):
            merged.merge(RidgeStatistics.from_state_dict(state))
        return merged

    def state_dict(self) -> dict[str, Any]:
        """Return everything accumulated as a dict of NumPy arrays, numbers, strings and lists."""
        moments = self._moments
        return {
            "format": FORMAT,
            "repsim_version": __version__,
            "n": self.n,
            "eps": self._eps,
            "shape": None if self._shape is None else list(self._shape),
            "rows": [(np.array(to_numpy(x)), np.array(labels)) for x, labels in self._rows],
            "moments": moments
            and {f.name: np.array(to_numpy(getattr(moments, f.name))) for f in fields(moments)},
        }

    @classmethod
    def from_state_dict(
        cls, state: Mapping[str, Any], *, like: Array | None = None
    ) -> RidgeStatistics:
        """Return statistics with this state.

        Parameters
        ----------
        state : mapping
            A result of :meth:`state_dict`.
        like : array, optional
            The arrays are in its framework and on its device, if that has float64. By default they
            are NumPy arrays.

        Raises
        ------
        StateError
            If it is not such a state, or has another format.
        """
        require_state("RidgeStatistics", state, FORMAT, {"n", "eps", "shape", "rows", "moments"})

        def home(x: Any) -> Any:
            if like is None:
                return x
            xp = array_namespace(like)
            reached = accumulator_dtype(xp, like) == xp.float64
            return xp.asarray(x, device=device(like)) if reached else x

        out = cls()
        out.n, out._eps = int(state["n"]), float(state["eps"])
        out._shape = None if state["shape"] is None else tuple(state["shape"])
        out._rows = [(home(x), labels) for x, labels in state["rows"]]
        if state["moments"] is not None:
            moments = {name: home(x) for name, x in state["moments"].items()}
            out._moments = ClassMoments(**moments)
        return out

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
        x = xp.concat([in_float64(x) for x in rows], axis=-2)
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


def _mean(x: Array) -> Array:
    out: Array = array_namespace(x).mean(x, axis=-2, keepdims=True)
    return out


def _nonnegative(xp: Namespace, eigenvalues: Array) -> Array:
    """Clip negative eigenvalues of a Gram to zero; they come from rounding."""
    out: Array = xp.where(eigenvalues > 0, eigenvalues, xp.zeros_like(eigenvalues))
    return out
