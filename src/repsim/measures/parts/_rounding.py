"""Which directions are above the rounding of the data."""

from __future__ import annotations

import math

from repsim._typing import Array, Namespace
from repsim.arrays import known
from repsim.measures.parts._geometry import Contrasts

__all__ = ["ERRORS", "beyond_rounding", "pairs_beyond_rounding", "rounding_along", "squared_sizes"]

ERRORS = 32
"""Units of rounding that the entries of a representation may be off, after a layer computed them.
"""


def beyond_rounding(xp: Namespace, values: Array, right: Array, z: Contrasts) -> Array:
    """Mark the singular values (r,) that the rounding of the data cannot explain.

    Rounding errors of the entries sum like a random walk along the longer side. That gives a bound
    relative to the largest value. The errors in the direction itself are far below it where few
    samples, features or one common direction have most of the variance, and above it where means
    are large. The smaller bound counts, but never less than a single rounding of the entries, or
    the errors of the decomposition, which have the size of the largest value.
    """
    longer = max(z.dimensions, z.points.shape[1])
    most = 8 * math.sqrt(longer) * values[:1]
    own = rounding_along(xp, right, z, squared_sizes(xp, z))
    least = xp.maximum(own / ERRORS, float(xp.finfo(values.dtype).eps) * most)
    out: Array = (values > xp.maximum(xp.minimum(own, z.resolution * most), least)) & (values > 0)
    return out


def squared_sizes(xp: Namespace, z: Contrasts) -> Array:
    """Return the squared norms ‖x_j‖² (p,) of the features before centring."""
    out: Array = xp.sum(z.points * z.points, axis=0) + (z.dimensions + 1) * z.mean**2
    return out


def rounding_along(xp: Namespace, directions: Array, z: Contrasts, sizes: Array) -> Array:
    """Return the greatest size of the data's rounding errors along unit vectors v (r, p), (r,).

    It is about ε √(Σ v_j² ‖x_j‖²), with the :func:`squared_sizes` of the features.
    """
    many = ERRORS * (1 + math.sqrt(z.points.shape[1] / z.dimensions))
    out: Array = many * z.resolution * xp.sqrt(directions * directions @ sizes)
    return out


def pairs_beyond_rounding(
    xp: Namespace,
    sides: tuple[Array, Array],
    pairs: tuple[Array, Array, Array],
    resolutions: tuple[float, float],
) -> tuple[Array, tuple[Array, Array] | None]:
    """Mark the singular values of xᵀy = U S Vᵀ that the rounding of the data cannot explain.

    The rounding changes a singular value by at most ε(‖x‖‖yv‖ + ‖xu‖‖y‖)/2. That is far below
    ε‖xᵀy‖ for a direction in which both sides are small, beside clusters or samples that are far
    from the others. Where x and y are nearly orthogonal it is above ε‖xᵀy‖. A direction counts if
    its singular value is above the smaller of both.

    Parameters
    ----------
    xp : namespace
    sides : tuple of array, shapes (n, p) and (n, q)
        x and y.
    pairs : tuple of array, shapes (p, r), (r,) and (r, q)
        U, the diagonal of S, and Vᵀ.
    resolutions : tuple of float
        The rounding units of x and y.

    Returns
    -------
    counts : array of bool, shape (r,)
    lengths : tuple of array, shape (r,), or None
        ‖xu‖ and ‖yv‖; None if all count, which is known without them.
    """
    (a, b), (left, values, right) = sides, pairs
    many = 8 * math.sqrt(max(a.shape)) * values[:1]
    counts = (values > max(resolutions) * many) & (values > 0)
    if known(xp.all(counts)) is True:
        return counts, None
    size = xp.linalg.vector_norm
    on_x, on_y = size(a @ left, axis=0), size(b @ xp.matrix_transpose(right), axis=0)
    rounding = resolutions[0] * size(a) * on_y + resolutions[1] * size(b) * on_x
    own = values > xp.maximum(rounding, float(xp.finfo(values.dtype).eps) * many)
    return counts | own, (on_x, on_y)
