"""The directions that a representation spans: an orthonormal basis and a rank."""

from __future__ import annotations

from typing import NamedTuple

from array_api_compat import device

from repsim._typing import Array, Namespace
from repsim.arrays import array_namespace, detached, known, unit_scale
from repsim.measures._registry import undefined
from repsim.measures.parts._geometry import Contrasts
from repsim.measures.parts._rounding import beyond_rounding

__all__ = [
    "Spectrum",
    "Subspace",
    "contrast_spectrum",
    "one_without_derivative",
    "subspace",
    "tied",
    "unit_columns",
    "where_defined",
    "whole_span",
    "with_unit_columns",
]

EQUAL = 2.0**-40
"""Singular values that differ by less, relative to the largest, are equal up to rounding."""

NEAR = 2.0**-20
"""If they differ by less, the derivative of single vectors has few digits."""


class Spectrum(NamedTuple):
    """Left singular vectors (n − 1, r) of contrasts, singular values (r,), which of them count."""

    vectors: Array
    values: Array
    counts: Array


class Subspace(NamedTuple):
    """An orthonormal basis (n − 1, r) of the directions kept, and their number.

    If values can be read, the other columns are cut off. Inside ``jax.jit``, where a shape cannot
    depend on values, they remain and are zero.
    """

    basis: Array
    rank: Array
    defined: Array
    dimensions: int
    """Of the space in which it lies: n − 1 for centred samples."""


def contrast_spectrum(xp: Namespace, z: Contrasts) -> Spectrum:
    """Decompose contrasts (n − 1, p), and count the singular values that are above rounding.

    The rounding is that of the data, which may be coarser than that of ``z``. For example, a
    feature that is the sum of two others in float32 must not become a third direction in float64.
    """
    vectors, values, right = xp.linalg.svd(z.points, full_matrices=False)
    counts = beyond_rounding(xp, values, right, z)
    # The vectors of equal values are fixed only up to a rotation.
    one = one_without_derivative(xp, values, tied(xp, values, counts))
    return Spectrum(vectors * one, values, counts)


def whole_span(xp: Namespace, z: Contrasts) -> Spectrum:
    """Return an orthonormal basis of all columns of contrasts, for functions of their span alone.

    As :func:`contrast_spectrum`, but the derivative is that of the span. It exists where singular
    values are equal, as those of whitened features are. The values have no derivative.
    """
    moving = z.points
    fixed = detached(moving)
    vectors, values, right = xp.linalg.svd(fixed, full_matrices=False)
    counts = beyond_rounding(xp, values, right, z)
    if fixed is moving:  # no derivatives
        return Spectrum(vectors, values, counts)
    # Q = Z A is orthonormal, and with the same A it is a basis of the span of any Z nearby.
    q = moving @ (xp.matrix_transpose(right) * _inverse(xp, values, counts))
    return Spectrum(_moved(xp, vectors, q, counts), values, counts)


def _leading_span(
    xp: Namespace, moving: Array, vectors: Array, values: Array, right: Array, keep: Array
) -> Array:
    """Return leading left singular vectors (n − 1, r), for functions of their span alone.

    The others are zero. As in :func:`whole_span`, the derivative is that of the span. It exists
    unless the last value that is kept equals the next one. Derivatives are right up to the second.

    Parameters
    ----------
    xp : namespace
    moving : array, shape (n − 1, p)
        What was decomposed.
    vectors, values, right : array
        Its decomposition, without derivatives.
    keep : array of bool, shape (r,)
        Which values are kept: the first ones.
    """
    kept = xp.astype(keep, values.dtype)
    leading: Array = vectors * kept
    if detached(moving) is moving:  # no derivatives
        return leading
    # In the basis of all right vectors (of all left ones, if there are more features), the Gram G
    # is diag(s²). The columns of K + X span its leading space, K = diag(kept), where
    # X = (1 − K) X K solves (1 − K) G (K + X) = X K G (K + X). X is 0 for what was decomposed, and
    # each step of Newton's method, with the Jacobian there, makes one more derivative of X right.
    tall = moving.shape[0] >= moving.shape[1]
    sides = moving @ xp.matrix_transpose(right) if tall else xp.matrix_transpose(moving) @ vectors
    gram = xp.matrix_transpose(sides) @ sides
    across = keep[None, :] & ~keep[:, None]
    gaps = (values[None, :] - values[:, None]) * (values[None, :] + values[:, None])
    far = across & (gaps > 0)
    jacobian = xp.where(far, 1 / xp.where(far, gaps, xp.ones_like(gaps)), xp.zeros_like(gaps))
    only = kept * xp.eye(values.shape[0], dtype=values.dtype, device=device(values))
    space = only + jacobian * gram  # the first step
    image = gram @ space
    space = space + jacobian * (image - space @ (kept[:, None] * image))
    q = sides @ (space * _inverse(xp, values, keep)) if tall else vectors @ space
    equal = (values[:-1] - values[1:] <= EQUAL * values[:1]) & keep[:-1] & ~keep[1:]
    out: Array = _moved(xp, leading, q, keep) * one_without_derivative(xp, moving, xp.any(equal))
    return out


def _inverse(xp: Namespace, values: Array, which: Array) -> Array:
    """Return 1/values (r,) where they are meant, otherwise 0."""
    out: Array = xp.where(which, 1 / xp.where(which, values, xp.ones_like(values)), 0 * values)
    return out


def _moved(xp: Namespace, vectors: Array, q: Array, which: Array) -> Array:
    """Return orthonormal vectors (n − 1, r) with the derivatives of the span of q's columns.

    Here the columns of q are the vectors that are meant, and zero.
    """
    left_out = xp.where(which, xp.zeros_like(q[0, :]), xp.ones_like(q[0, :]))
    square = xp.matrix_transpose(q) @ q
    square = square + left_out * xp.eye(q.shape[1], dtype=q.dtype, device=device(q))
    turned = xp.linalg.solve(xp.linalg.cholesky(square), xp.matrix_transpose(q))
    basis = xp.matrix_transpose(turned)
    out: Array = vectors + (basis - detached(basis))
    return out


def tied(xp: Namespace, values: Array, counts: Array, within: float = EQUAL) -> Array:
    """Whether any two adjacent ``values`` (r,), in descending order, are equal and both count."""
    out: Array = xp.any((values[:-1] - values[1:] <= within * values[:1]) & counts[1:])
    return out


def one_without_derivative(xp: Namespace, like: Array, condition: Array) -> Array:
    """Return 1 (0-d); the derivative of what is multiplied by it is NaN if the condition holds."""
    nothing = 0 * xp.sum(like)
    root = xp.sqrt(xp.where(condition, nothing, xp.ones_like(nothing)))
    out: Array = root + xp.where(condition, xp.ones_like(nothing), xp.zeros_like(nothing))
    return out


def subspace(
    operation: str,
    name: str,
    z: Contrasts,
    *,
    variance: float | None = None,
    directions: int | None = None,
    centre: bool = True,
) -> Subspace:
    """Return the span of the columns of contrasts (n − 1, p), or its leading part.

    With ``centre=False`` they are those of the samples themselves, (n, p). Without ``variance`` and
    ``directions`` the basis spans all columns. They are scaled to unit norm first, so a small
    feature is not mistaken for rounding.
    """
    xp = array_namespace(z.points)
    dimensions = z.dimensions
    whole = variance is None and directions is None
    if whole:
        vectors, values, keep = whole_span(xp, with_unit_columns(xp, z))
    else:
        vectors, values, right = xp.linalg.svd(z.points, full_matrices=False)
        keep = beyond_rounding(xp, values, right, z)
        distinct = known(tied(xp, values, keep, NEAR)) is False
    power = xp.where(keep, values * values, xp.zeros_like(values))
    if variance is not None and variance < 1:
        keep = keep & _leading(xp, power, variance)
    if directions is not None:
        keep = keep & (xp.arange(values.shape[0], device=device(values)) < directions)
    rank = xp.sum(xp.astype(keep, values.dtype))
    undefined(operation, name, rank <= 0, "is constant over the samples" if centre else "is zero")
    undefined(
        operation,
        name,
        rank >= dimensions,
        f"spans all {dimensions} dimensions of {dimensions + centre} {'centred ' * centre}samples, "
        f"so that every direction of anything lies in it (bring more samples than features, or "
        f"keep fewer directions with svcca)",
    )
    if whole or distinct:
        basis = vectors * xp.astype(keep, vectors.dtype)
    else:
        basis = _leading_span(
            xp, z.points, detached(vectors), detached(values), detached(right), keep
        )
    if known(rank > 0) is not None:
        basis = basis[:, : max(1, int(rank))]
    return Subspace(basis, rank, (rank > 0) & (rank < dimensions), dimensions)


def _leading(xp: Namespace, power: Array, share: float) -> Array:
    """Mark the first entries of a descending ``power`` (r,) that hold this share of the sum."""
    before = xp.cumulative_sum(power) - power
    # Rounding of the sums must not decide whether an exact share is reached.
    rounding = 8 * float(xp.finfo(power.dtype).eps)
    out: Array = before < (share - rounding) * xp.sum(power)
    return out


def unit_columns(xp: Namespace, z: Array) -> Array:
    """Scale each column to norm one; a column of zeros stays."""
    return _unit_columns(xp, z)[0]


def with_unit_columns(xp: Namespace, z: Contrasts) -> Contrasts:
    """Scale each column of contrasts to norm one, and its mean with it."""
    points, norms = _unit_columns(xp, z.points)
    return z._replace(points=points, mean=z.mean / norms)


def _unit_columns(xp: Namespace, z: Array) -> tuple[Array, Array]:
    z, scale = unit_scale(xp, z, axis=0)  # because the square of 1e-30 is zero in float32
    norm = xp.linalg.vector_norm(z, axis=0)
    norm = xp.where(norm > 0, norm, xp.ones_like(norm))
    return z / norm, norm * xp.reshape(scale, norm.shape)


def where_defined(xp: Namespace, value: Array, defined: Array) -> Array:
    """Return a finite value, or NaN where it is undefined; the derivative there is NaN too.

    The derivative of ``where(defined, value, nan)`` would be zero, as at a maximum.
    """
    one = xp.ones_like(value)
    out: Array = value * xp.where(defined, one, xp.full_like(one, float("nan")))
    return out
