"""What all alignments share: checks, and maps x ↦ (x − μ_x)W + μ_y with their score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Self

import numpy as np
from array_api_compat import is_numpy_array

from repsim._errors import InputError
from repsim._typing import Array, Namespace
from repsim.arrays import (
    accumulator_dtype,
    as_samples,
    check_finite,
    describe,
    known,
    namespace,
    paired,
    scalar,
    unlabelled,
    without_autocast,
)
from repsim.kernels import column_means
from repsim.measures._registry import undefined
from repsim.measures.parts._geometry import Contrasts, centred_points
from repsim.measures.parts._subspace import where_defined

__all__ = ["AffineAlignment", "Alignment", "Centred", "r2"]


@dataclass(frozen=True)
class Centred:
    """The features of one side of a fit.

    Attributes
    ----------
    mean : array, shape (p,)
        Their means.
    values : array, shape (n, p)
        What remains, divided by a power of two.
    scale : array, 0-d
        This power of two.
    resolution : float
        Rounding unit of the data.
    """

    mean: Array
    values: Array
    scale: Array
    resolution: float

    @classmethod
    def of(cls, operation: str, xp: Namespace, x: Array, name: str) -> Centred:
        """Centre features (n, p), or raise if they are constant."""
        resolution = float(xp.finfo(x.dtype).eps)
        wide = xp.astype(x, accumulator_dtype(xp, x), copy=False)
        values, scale = centred_points(xp, wide)
        if known(xp.max(xp.abs(values)) <= 0):
            raise InputError(
                f"{operation}: {name} must vary over the samples.\n"
                f"  {describe(name, x)} is constant, so there is nothing to align"
            )
        return cls(column_means(xp, wide)[0, :], values, scale, resolution)

    def samples(self) -> Contrasts:
        """Return the centred samples as what :mod:`repsim.measures.parts` works with."""
        return Contrasts(
            self.values,
            self.scale,
            self.values.shape[0] - 1,
            self.resolution,
            self.mean / self.scale,
        )


class Alignment(ABC):
    """A map that is fitted on samples of two representations, and used on others."""

    def __init__(self) -> None:
        self._fitted: tuple[Centred, Centred] | None = None

    @property
    def _operation(self) -> str:
        return type(self).__name__

    @without_autocast
    def fit(self, x: Array, y: Array) -> Self:
        """Fit the map on samples of both sides.

        Parameters
        ----------
        x : array, shape (n, p) or (n, ...)
            Activations of n samples; trailing axes are flattened.
        y : array, shape (n, q) or (n, ...)
            Activations of the same samples in the same order; same framework and device.

        Returns
        -------
        object
            This object, fitted.

        Raises
        ------
        ArrayTypeError
            Not arrays, or arrays of different frameworks or devices.
        InputError
            Different n, fewer than 3 samples, one-dimensional or empty input, NaN or infinity
            (``NonFiniteError``), or a side that is constant.
        """
        xp, a, b = paired(self._operation, x, y, min_samples=3, why=self._operation)
        sides = tuple(
            Centred.of(self._operation, xp, each, name) for name, each in (("x", a), ("y", b))
        )
        self._learn(xp, *sides)
        self._fitted = sides[0], sides[1]
        return self

    def __repr__(self) -> str:
        # The options have no underscore: it marks what is fitted, and what is private.
        given = {name: value for name, value in vars(self).items() if name.strip("_") == name}
        options = ", ".join(f"{name}={value!r}" for name, value in given.items())
        if self._fitted is None:
            return f"<{self._operation}({options}): not fitted>"
        (n, p), (_, q) = (side.values.shape for side in self._fitted)
        return f"<{self._operation}({options}) of {n:,} samples: {p} features to {q}>"

    @abstractmethod
    def _learn(self, xp: Namespace, x: Centred, y: Centred) -> None:
        """Keep what the map needs."""

    def _sides(self) -> tuple[Centred, Centred]:
        if self._fitted is None:
            raise InputError(
                f"{self._operation}: it is not fitted yet.\n  Call fit(x, y) with training samples."
            )
        return self._fitted

    def _given(self, x: Array, name: str, side: int) -> tuple[Namespace, Array]:
        """Return new samples of a side as (n, p) in the dtype to compute in, or raise."""
        fitted = self._sides()[side]
        (plain,) = unlabelled(self._operation, {name: x})
        xp = namespace(self._operation, **{name: plain, "the fitted samples": fitted.values})
        out = as_samples(self._operation, xp, plain, name, min_samples=1, why=self._operation)
        check_finite(self._operation, xp, out, name)
        if out.shape[1] != fitted.values.shape[1]:
            raise InputError(
                f"{self._operation}: {name} must have the features that were fitted.\n"
                f"  expected (n, {fitted.values.shape[1]})\n"
                f"  got {describe(name, plain)}"
            )
        return xp, out

    @property
    def mean_x_(self) -> Array:
        """The mean of the fitted samples of x, (p,)."""
        return self._sides()[0].mean

    @property
    def mean_y_(self) -> Array:
        """The mean of the fitted samples of y, (q,)."""
        return self._sides()[1].mean

    @staticmethod
    def _wide(xp: Namespace, x: Array, side: Centred) -> Array:
        """Return new samples in the units of the fitted ones."""
        wide = xp.astype(x, accumulator_dtype(xp, x), copy=False)
        out: Array = (wide - side.mean[None, :]) / side.scale
        return out


class AffineAlignment(Alignment):
    """A map x ↦ (x − μ_x)W + μ_y into the space of y."""

    def _learn(self, xp: Namespace, x: Centred, y: Centred) -> None:
        self._weights, self._unit = self._solve(xp, x, y)

    @property
    def weights_(self) -> Array:
        """W, (p, q)."""
        x, _ = self._sides()
        return self._weights * (self._unit / x.scale)

    @abstractmethod
    def _solve(self, xp: Namespace, x: Centred, y: Centred) -> tuple[Array, Array]:
        """Return weights of features in units of x, and the unit of what they give."""

    @without_autocast
    def transform(self, x: Array) -> Array:
        """Map samples of x into the space of y.

        Parameters
        ----------
        x : array, shape (m, p) or (m, ...)
            Activations of any samples, of the framework and device of the fitted ones.

        Returns
        -------
        array, shape (m, q)
            Float32 for half precision and float32, float64 for float64 and integers.

        Raises
        ------
        ArrayTypeError
            Not an array, or one of another framework or device.
        InputError
            Not fitted yet, other features, NaN or infinity (``NonFiniteError``).
        """
        xp, a = self._given(x, "x", 0)
        out: Array = xp.astype(self._mapped(xp, a), a.dtype, copy=False)
        return out

    def _mapped(self, xp: Namespace, a: Array) -> Array:
        x, y = self._sides()
        out: Array = (self._wide(xp, a, x) @ self._weights) * self._unit + y.mean[None, :]
        return out

    @without_autocast
    def score(self, x: Array, y: Array) -> Array:
        """Share of the variance of y that the map explains, R².

        Parameters
        ----------
        x : array, shape (m, p) or (m, ...)
            Activations of m ≥ 2 samples. With samples that were not fitted it is the share that
            generalises.
        y : array, shape (m, q) or (m, ...)
            Activations of the same samples in the same order.

        Returns
        -------
        array, 0-d, or NumPy scalar
            1 − ‖y − ŷ‖²/‖y − mean y‖²: at most 1, negative where predictions are worse than the
            mean of these samples; NaN where y is constant.

        Raises
        ------
        ArrayTypeError
            Not arrays, or arrays of other frameworks or devices than the fitted ones.
        InputError
            Not fitted yet, different m, fewer than 2 samples, other features, NaN or infinity
            (``NonFiniteError``).

        Warns
        -----
        DegenerateWarning
            If y is constant, or R² overflows: NaN is returned.
        """
        paired(self._operation, x, y, min_samples=2, why=self._operation)
        xp, a = self._given(x, "x", 0)
        _, b = self._given(y, "y", 1)
        return r2(self._operation, xp, self._mapped(xp, a), b)


def r2(operation: str, xp: Namespace, predicted: Array, target: Array) -> Array:
    """Return 1 − ‖y − ŷ‖²/‖y − mean y‖², NaN with a warning where y is constant."""
    wide = xp.astype(target, accumulator_dtype(xp, target), copy=False)
    centred, scale = centred_points(xp, wide)
    spread = xp.sum(centred * centred)
    defined = spread > 0
    undefined(operation, "y", ~defined, "is constant over the samples")
    with np.errstate(over="ignore") if is_numpy_array(wide) else nullcontext():
        left = (wide - predicted) / scale
        ratio = xp.sum(left * left) / xp.where(defined, spread, xp.ones_like(spread))
    far = defined & (ratio > float(xp.finfo(target.dtype).max))
    undefined(operation, "y", far, "is so much smaller than its prediction that R² overflows")
    return scalar(xp, where_defined(xp, 1 - ratio, defined & ~far), target.dtype)
