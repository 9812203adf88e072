"""Mean and variance of CKA over all permutations of the samples, in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from repsim._typing import Array, EstimatorName, KernelName, Namespace
from repsim.arrays import array_namespace, paired, scalar, without_autocast
from repsim.estimators import Products, alignment, permutation_variance, resolve_estimator
from repsim.kernels import Kernel
from repsim.measures import KernelItem, resolve_measure

__all__ = ["NullMoments", "expected_by_chance", "item_moments", "null_moments"]

FEWEST = 4
"""Fewest samples: the variance involves products of four different samples."""


@dataclass(frozen=True, eq=False)
class NullMoments:
    """Moments of CKA by chance: over all n! permutations of y's samples.

    Attributes
    ----------
    mean, variance : array, 0-d
        In units of CKA and CKA², exact for these data; same namespace and device as the inputs.
    """

    mean: Array
    variance: Array

    def z(self, value: Array) -> Array:
        """Return how many standard deviations a CKA of these data lies above chance.

        It is NaN if the variance is zero, because then every order of the samples has one value.
        """
        xp = array_namespace(self.variance)
        varies = self.variance > 0
        sd = xp.sqrt(xp.where(varies, self.variance, xp.ones_like(self.variance)))
        z = (value - self.mean) / sd
        return scalar(xp, xp.where(varies, z, xp.full_like(z, float("nan"))), z.dtype)


@without_autocast
def null_moments(
    x: Array,
    y: Array,
    *,
    kernel: KernelName | Kernel = "linear",
    estimator: EstimatorName = "unbiased",
) -> NullMoments:
    """Exact mean and variance of CKA over all permutations of y's samples.

    >>> import numpy as np, repsim
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((40, 30))
    >>> y = x[:, :5] + rng.standard_normal((40, 5))
    >>> moments = repsim.inference.null_moments(x, y)
    >>> float(moments.mean), bool(np.isclose(moments.variance, 2 / (40 * 37)))
    (0.0, True)
    >>> bool(moments.z(repsim.cka(x, y, estimator="unbiased")) > 3)
    True

    ::

        unbiased   mean 0,   variance 2/(n(n−3))                      for any data
        biased     mean √(R_x R_y)/(n−1),   R = tr(A)²/‖A‖²
                   variance 2 u_x u_y/((n−1)²(n+1)(n−2)) + v_x v_y/((n+1)n(n−1)(n−2)(n−3))
                   u = (n−1) − R,   v = n(n+1) Σ A_ii²/‖A‖² − (n−1)(R + 2)

    with A the centred Gram of x or y. R is its effective number of directions.

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n ≥ 4 samples; trailing axes are flattened.
    y : array, shape (n, q) or (n, ...)
        Activations of the same samples in the same order; same framework and device.
    kernel : str or Kernel, default "linear"
        As in :func:`repsim.cka`.
    estimator : {"unbiased", "biased"}, default "unbiased"
        The estimator of CKA.

    Returns
    -------
    NullMoments
        ``mean`` and ``variance``, 0-d arrays in the inputs' namespace and on their device, of
        float32 or float64 as :func:`repsim.cka` returns it; ``z(value)`` is the score of a CKA.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        As :func:`repsim.cka` raises it; fewer than 4 samples.

    Warns
    -----
    DegenerateWarning
        If a representation is constant: both moments are NaN.

    Notes
    -----
    The null hypothesis is that the samples of y are in an arbitrary order. Samples must be
    exchangeable; the tokens of one image are not. The null distribution is not normal. For few
    effective directions it is skewed to the right, and more than 2.3 % of cases exceed a z of 2
    (never more than 1/(1 + z²), Cantelli's bound). For a p-value use
    :func:`repsim.permutation_test`, which returns this z too.

    Invariant as CKA is. Cost O(n² (p + q)), or O(n (p² + q²)) for the linear kernel if that is
    less; nothing is permuted. Works under ``jax.jit``.

    References
    ----------
    Kazi-Aoual, Hitier, Sabatier, Lebreton 1995, "Refined approximations to permutation tests for
    multivariate inference", Computational Statistics & Data Analysis 20, for the biased variance
    (of the RV coefficient, which equals linear CKA). Song et al. 2012, JMLR 13, and Székely, Rizzo
    2014 for the U-centred Grams to which the unbiased one reduces it.
    """
    operation = "null_moments"
    resolved = resolve_estimator(operation, estimator)
    xp, a, b = paired(operation, x, y, min_samples=FEWEST, why="the variance by chance")
    measure = resolve_measure(operation, "cka")
    options = measure.options(operation, {"kernel": kernel, "estimator": resolved.name})
    moments = item_moments(
        measure.prepare(operation, a, name="x", **options),
        measure.prepare(operation, b, name="y", **options),
    )
    return NullMoments(scalar(xp, moments.mean, a.dtype), scalar(xp, moments.variance, a.dtype))


def item_moments(x: KernelItem, y: KernelItem, features: bool | None = None) -> NullMoments:
    """Return the moments of the CKA of two prepared representations, NaN for a constant one."""
    xp, n = x.xp, x.n
    if features is None:
        features = x.from_features(y, self_products=True)
    xx, yy = x.self_product(features), y.self_product(features)
    if x.estimator.name == "unbiased":
        nothing = alignment(xp, Products(xp.zeros_like(xx), xx, yy))
        return NullMoments(nothing, nothing + permutation_variance(n))
    (r_x, u_x, v_x), (r_y, u_y, v_y) = (_terms(xp, item, features) for item in (x, y))
    mean = xp.sqrt(r_x) * xp.sqrt(r_y) / (n - 1)
    # Floats, because these are too large for an integer of a framework.
    u = 2 * u_x * u_y / float((n - 1) ** 2 * (n + 1) * (n - 2))
    v = v_x * v_y / float((n + 1) * n * (n - 1) * (n - 2) * (n - 3))
    return NullMoments(mean, _unless_rounding(xp, u + v, u + xp.abs(v), x, features))


def expected_by_chance(x: KernelItem, y: KernelItem) -> Array:
    """Return the mean biased CKA over all permutations, √(R_x R_y)/(n−1)."""
    xp = x.xp
    features = x.from_features(y, self_products=True)
    r_x, r_y = (_effective(xp, _trace(xp, item, features)) for item in (x, y))
    out: Array = xp.sqrt(r_x) * xp.sqrt(r_y) / (x.n - 1)
    return out


class _Diagonal(NamedTuple):
    """tr A, Σ A_ii² and ‖A‖² of a scaled centred Gram; NaN instead of ‖A‖² = 0."""

    trace: Array
    squares: Array
    norm: Array


def _trace(xp: Namespace, item: KernelItem, features: bool) -> _Diagonal:
    a, _ = item.form(features)
    norm = item.self_product(features)
    diagonal = xp.sum(a * a, axis=1) if features else xp.linalg.diagonal(a)
    diagonal = xp.astype(diagonal, norm.dtype, copy=False)
    undefined: Any = xp.full_like(norm, float("nan"))
    return _Diagonal(
        xp.sum(diagonal), xp.sum(diagonal * diagonal), xp.where(norm > 0, norm, undefined)
    )


def _effective(xp: Namespace, diagonal: _Diagonal) -> Array:
    """R = tr(A)²/‖A‖², between 1 and n − 1."""
    out: Array = (diagonal.trace / xp.sqrt(diagonal.norm)) ** 2
    return out


def _terms(xp: Namespace, item: KernelItem, features: bool) -> tuple[Array, Array, Array]:
    """R, u and v of the formula above; u and v are zero where no order changes CKA."""
    n, diagonal = item.n, _trace(xp, item, features)
    r = _effective(xp, diagonal)
    left, right = float(n * (n + 1)) * diagonal.squares / diagonal.norm, (n - 1) * (r + 2)
    u = _unless_rounding(xp, n - 1 - r, n - 1 + r, item, features)
    return r, u, _unless_rounding(xp, left - right, left + right, item, features)


def _unless_rounding(
    xp: Namespace, difference: Array, size: Array, item: KernelItem, features: bool
) -> Array:
    """Return a difference of terms of this size, zero where it is not above their rounding.

    The variance of one-hot features is zero, but without this it would be rounding of either sign.
    """
    rounding = 16 * float(xp.finfo(item.form(features)[0].dtype).eps) * size
    out: Array = xp.where(xp.abs(difference) <= rounding, xp.zeros_like(difference), difference)
    return out
