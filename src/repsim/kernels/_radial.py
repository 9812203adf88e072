"""Kernels of distances: Gaussian (RBF) and Laplacian."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from array_api_compat import is_array_api_obj

from repsim._errors import InputError
from repsim._options import as_number, got, require_choice
from repsim._typing import Array, Namespace
from repsim.arrays import (
    array_namespace,
    known,
    own_root,
    recorded,
    require_precision,
    without_autocast,
    writable_numbers,
)
from repsim.kernels._bandwidth import MEDIANS, median_of
from repsim.kernels._precision import Precision, repr_of
from repsim.kernels._products import squared_distances

__all__ = ["RBF", "Laplacian"]

REACH = {"RBF": (2.0**-500, 2.0**500), "Laplacian": (2.0**-1022, 2.0**1023)}
"""The smallest and the largest fixed bandwidth: 2σ² and 1/σ are neither zero nor infinite."""


@dataclass(frozen=True, slots=True, repr=False)
class RBF:
    """The Gaussian kernel, k(a, b) = exp(−‖a − b‖²/(2σ²)).

    >>> import numpy as np
    >>> x = np.array([[0.0], [1.0], [2.0]])
    >>> RBF(sigma=1.0).gram(x).round(4)
    array([[1.    , 0.6065, 0.1353],
           [0.6065, 1.    , 0.6065],
           [0.1353, 0.6065, 1.    ]])

    Parameters
    ----------
    fraction : float, default 1.0
        f in σ = f·√median(‖a − b‖²), the bandwidth as a fraction of the median distance (Kornblith
        et al. 2019, section 3.2). Because the bandwidth follows the data, the kernel, and with it
        CKA, does not depend on the scale of the features.
    median : {"all", "off_diagonal"}, default "all"
        ``"all"`` takes the median over all n² entries of the distance matrix, including the zeros
        of the diagonal, as in Kornblith's published code. ``"off_diagonal"`` takes it over pairs of
        different samples. The two differ at small n.
    sigma : float, optional
        A fixed σ, in the units of the features, instead. If σ is small compared with the distances,
        every sample is similar only to itself, and biased CKA is close to 1 for any two
        representations.
        If σ is more than about thirty times the distances, the entries differ in few digits of
        float32: use float64.
    precision : {"highest", "tf32", "bf16"}, default "highest"
        How many digits the features keep in the inner products from which the distances are
        computed, as in :class:`Linear`. The sample nearest to the mean is subtracted first.
    """

    fraction: float = 1.0
    median: Literal["all", "off_diagonal"] = "all"
    sigma: float | Array | None = None
    precision: Precision = "highest"

    __repr__ = repr_of

    def __post_init__(self) -> None:
        as_number("RBF", "fraction", self.fraction, above=0)
        require_choice("RBF", "median", self.median, MEDIANS)
        _require_bandwidth("RBF", self.sigma)
        require_precision("RBF", self.precision)

    def _variance(self, xp: Namespace, squared: Array) -> Array | float:
        if self.sigma is None:
            return median_of(xp, squared, self.median) * (self.fraction * self.fraction)
        return self.sigma * self.sigma  # a power of a large float is an error to Python

    @without_autocast
    def gram(self, x: Array) -> Array:
        """Return the Gram matrix (n, n) for ``x`` (n, p). Cost O(n²p + n² log n)."""
        xp = array_namespace(x)
        squared = squared_distances(xp, x, self.precision)
        return _exponential(xp, squared, -2 * self._variance(xp, squared))

    def fit(self, x: Array) -> RBF:
        """Return this kernel with its bandwidth computed from ``x`` (n, p)."""
        xp = array_namespace(x)
        if self.sigma is not None:
            return self
        variance = self._variance(xp, squared_distances(xp, x, self.precision))
        return replace(self, sigma=xp.sqrt(variance)[...])


@dataclass(frozen=True, slots=True, repr=False)
class Laplacian:
    """The Laplacian kernel of the Euclidean distance, k(a, b) = exp(−‖a − b‖/σ).

    >>> import numpy as np
    >>> Laplacian().gram(np.array([[0.0], [1.0], [2.0]])).round(4)
    array([[1.    , 0.3679, 0.1353],
           [0.3679, 1.    , 0.3679],
           [0.1353, 0.3679, 1.    ]])

    Parameters
    ----------
    sigma : float, optional
        In the units of the features; by default the median of ‖a − b‖ over pairs of different
        samples, which makes the kernel independent of the scale of the features.
        If it is more than about a thousand times the distances, the entries differ in few digits
        of float32: use float64.
    precision : {"highest", "tf32", "bf16"}, default "highest"
        How many digits the features keep in the inner products from which the distances are
        computed, as in :class:`Linear`. The sample nearest to the mean is subtracted first.
    """

    sigma: float | Array | None = None
    precision: Precision = "highest"

    __repr__ = repr_of

    def __post_init__(self) -> None:
        _require_bandwidth("Laplacian", self.sigma)
        require_precision("Laplacian", self.precision)

    def _scale(self, xp: Namespace, distances: Array) -> Array | float:
        return median_of(xp, distances, "off_diagonal") if self.sigma is None else self.sigma

    @without_autocast
    def gram(self, x: Array) -> Array:
        """Return the Gram matrix (n, n) for ``x`` (n, p). Cost O(n²p + n² log n)."""
        xp = array_namespace(x)
        distances = own_root(xp, squared_distances(xp, x, self.precision))
        return _exponential(xp, distances, -self._scale(xp, distances))

    def fit(self, x: Array) -> Laplacian:
        """Return this kernel with its scale computed from ``x`` (n, p)."""
        xp = array_namespace(x)
        if self.sigma is not None:
            return self
        scale = self._scale(xp, own_root(xp, squared_distances(xp, x, self.precision)))
        return replace(self, sigma=xp.asarray(scale)[...])


def _exponential(xp: Namespace, distances: Array, scale: Array | float) -> Array:
    """Return exp(distances/scale), in place of the distances where they are in main memory."""
    same = type(scale) in (int, float) or getattr(scale, "dtype", None) == distances.dtype
    if same and not recorded(scale) and writable_numbers(distances) is not None:
        distances /= scale
        xp.exp(distances, out=distances)
        return distances
    out: Array = xp.exp(distances / scale)
    return out


def _require_bandwidth(operation: str, sigma: float | Array | None) -> None:
    if sigma is None:
        return
    # Scalars of NumPy are numbers.
    array: Any = sigma if is_array_api_obj(sigma) and not isinstance(sigma, np.generic) else None
    if array is not None and array.shape == ():
        real = array_namespace(array).isdtype(array.dtype, "real floating")
        # Fitted to data, so it may be traced or NaN. NaN raises where the Gram and its layer are
        # known.
        if real and known(array <= 0) is not True:
            return
    else:
        as_number(operation, "sigma", sigma, above=0)
        least, most = REACH[operation]
        as_number(operation, "sigma", sigma, least=least, most=most)
        return
    raise InputError(f"{operation}: sigma must be a positive number, or None.\n  got {got(sigma)}")
