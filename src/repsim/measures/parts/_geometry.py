"""Centred samples as configurations of points, and distances from cosines."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from repsim._typing import Array, Namespace
from repsim.arrays import accumulator_dtype, array_namespace, root, unit_scale
from repsim.estimators import above_rounding, within_one
from repsim.kernels import centre_features

__all__ = [
    "Contrasts",
    "angle",
    "centred_points",
    "centred_samples",
    "chord",
    "contrasts",
    "matched_distance",
    "nonnegative",
    "of_samples",
    "uncentred",
]


class Contrasts(NamedTuple):
    """Samples as points Z whose inner products of columns are those of the centred features.

    They are n − 1 contrasts of n samples, or any other Z with the same ZᵀZ = XcᵀXc/scale², such as
    the triangular factor of a covariance, which has as many rows as all layers have features.
    """

    points: Array  # Z, (d, p)
    scale: Array  # 0-d, a power of two
    dimensions: int
    """n − 1: the dimensions of centred samples."""
    resolution: float
    """The rounding unit of the data, which may be coarser than that of the points."""
    mean: Array
    """The means of the features, (p,), by scale; zero if they are not subtracted."""
    norms: Array | None = None
    """The same of the squared norms ‖x_i‖² of the centred samples, (d,), by scale²."""


def of_samples(prepare: Callable[..., Any]) -> Callable[..., Any]:
    """Return the ``prepare`` of a measure that has one for :class:`Contrasts`."""

    def from_samples(operation: str, x: Array, **options: Any) -> Any:
        return prepare(operation, contrasts(array_namespace(x), x), **options)

    return from_samples


def centred_points(xp: Namespace, x: Array) -> tuple[Array, Array]:
    """Return ``x`` (n, p) minus its column means, divided by a power of two, and this scale.

    In float64 where the device has it; the largest entry is in [1, 2), and constant columns are
    exactly zero.
    """
    wide = xp.astype(x, accumulator_dtype(xp, x), copy=False)
    return unit_scale(xp, centre_features(xp, wide))


def centred_samples(xp: Namespace, x: Array) -> Contrasts:
    """Return all n centred samples (n, p) in the same form, for measures that hold some out."""
    points, scale = centred_points(xp, x)
    mean = xp.astype(x[0, :], points.dtype, copy=False) / scale - points[0, :]
    return Contrasts(points, scale, x.shape[0] - 1, float(xp.finfo(x.dtype).eps), mean)


def contrasts(xp: Namespace, x: Array) -> Contrasts:
    """Return n−1 orthonormal contrasts of n samples, Z = CXc with CCᵀ = I.

    Centred samples lie in the n−1 dimensions orthogonal to (1, …, 1). A basis of these dimensions
    keeps all inner products of columns (ZᵀZ = XcᵀXc). In it, centred features of the largest
    possible rank have full rank, so their decompositions can be differentiated. C is the
    Householder reflection that maps (1, …, 1)/√n to the first axis, without its first row.

    Parameters
    ----------
    xp : namespace
        The array namespace of ``x``.
    x : array, shape (n, p)
        Features, not centred, n ≥ 2.

    Returns
    -------
    Contrasts
        In float64 where the device has it; the largest entry of the centred features is in [1, 2).
        Constant columns are exactly zero.
    """
    z = centred_samples(xp, x)
    points = z.points[1:, :] + z.points[:1, :] / (math.sqrt(x.shape[0]) - 1)
    return z._replace(points=points)


def uncentred(xp: Namespace, x: Array) -> Contrasts:
    """Return the samples themselves (n, p) in the same form, for measures of raw features."""
    points, scale = unit_scale(xp, xp.astype(x, accumulator_dtype(xp, x), copy=False))
    mean = xp.zeros_like(points[0, :])
    return Contrasts(points, scale, points.shape[0], float(xp.finfo(x.dtype).eps), mean)


def nonnegative(xp: Namespace, difference: Array, size: Array | float) -> Array:
    """Set a difference of terms of this size to zero if it is below their rounding.

    For differences that cannot be negative, such as ‖X‖² + ‖Y‖² − 2‖XᵀY‖_*. NaN stays NaN.
    """
    out: Array = above_rounding(xp, difference, size, difference.dtype)
    return out


def matched_distance(
    xp: Namespace, scales: tuple[Array, Array], squares: tuple[Array, Array], product: Array
) -> Array:
    """Return √(‖X‖² + ‖Y‖² − 2 product) of the best match of Y with X, in units of the features.

    Parameters
    ----------
    xp : namespace
        The array namespace of the numbers.
    scales, squares : tuple of array, 0-d
        Of x and of y: by what the features were divided, and ‖X‖² of what is left.
    product : array, 0-d
        The largest sum of inner products, of what is left of both.
    """
    # In units of the larger scale, because the square of 1e30 is infinite in float32.
    unit = xp.maximum(*scales)
    in_x, in_y = scales[0] / unit, scales[1] / unit
    total = squares[0] * in_x**2 + squares[1] * in_y**2
    out: Array = root(xp, nonnegative(xp, total - 2 * in_x * in_y * product, total)) * unit
    return out


def chord(xp: Namespace, cosine: Array) -> Array:
    """Return √(2 − 2c), the distance of two points at this cosine on the unit sphere."""
    return root(xp, 2 * nonnegative(xp, 1 - cosine, 1.0))


def angle(xp: Namespace, cosine: Array) -> Array:
    """Return arccos(c) in radians, as 2 arcsin(√((1 − c)/2)), also of ±(1 + rounding)."""
    out: Array = 2 * xp.asin(root(xp, nonnegative(xp, 1 - within_one(xp, cosine), 1.0) / 2))
    return out
