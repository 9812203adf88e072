"""Canonical correlations of two subspaces, and the subspaces that each variant compares."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from array_api_compat import device

from repsim._errors import InputError
from repsim._options import as_count, as_number, require_choice
from repsim._typing import Array, Namespace
from repsim.arrays import array_namespace, known
from repsim.estimators import HIGH_FLOOR, ChanceWords, within_one
from repsim.measures.parts._geometry import Contrasts
from repsim.measures.parts._subspace import (
    Subspace,
    one_without_derivative,
    subspace,
    tied,
    where_defined,
)

__all__ = [
    "CANONICAL_WORDS",
    "correlate",
    "correlate_weighted",
    "floor_by_chance",
    "leading_directions",
    "spanned_directions",
    "weighted_directions",
]

STATISTICS = ("mean_rho", "mean_rho_squared")

HALF, SIGMAS = 0.5, 3.0
"""A floor is high above HALF, or if the value is not SIGMAS standard deviations above it."""


class Weighted(NamedTuple):
    """A subspace, and the centred columns that it spans."""

    span: Subspace
    columns: Contrasts


def _check_statistic(operation: str, statistic: str) -> None:
    require_choice(operation, "statistic", statistic, STATISTICS)


def spanned_directions(operation: str, z: Contrasts, *, name: str, statistic: str) -> Subspace:
    """Return all directions that a representation spans."""
    _check_statistic(operation, statistic)
    return subspace(operation, name, z)


def leading_directions(
    operation: str,
    z: Contrasts,
    *,
    name: str,
    variance: float | None,
    directions: int | None,
    statistic: str,
) -> Subspace:
    """Return the principal directions that hold this variance, or this many of them."""
    _check_statistic(operation, statistic)
    if variance is not None and directions is not None:
        raise InputError(
            f"{operation}: give variance or directions, not both.\n"
            f"  got variance={variance!r}, directions={directions!r}"
        )
    if directions is None:
        variance = 0.99 if variance is None else variance
        as_number(operation, "variance", variance, above=0, most=1)
    else:
        directions = as_count(operation, "directions", directions)
    return subspace(operation, name, z, variance=variance, directions=directions)


def weighted_directions(operation: str, z: Contrasts, *, name: str) -> Weighted:
    """Return all directions that a representation spans, and its columns."""
    return Weighted(subspace(operation, name, z), z)


def correlate(x: Subspace, y: Subspace, *, statistic: str, **_: Any) -> Array:
    """Return the mean canonical correlation, or the mean of the squares."""
    xp = array_namespace(x.basis)
    cross = xp.matrix_transpose(x.basis) @ y.basis
    rho = xp.linalg.svdvals(cross) if statistic == "mean_rho" else cross * cross
    return _quotient(xp, x, y, xp.sum(rho), xp.minimum(x.rank, y.rank))


def correlate_weighted(x: Weighted, y: Weighted) -> Array:
    """Return the mean correlation, weighted by how much of the columns of x each describes."""
    xp = array_namespace(x.span.basis)
    cross = xp.matrix_transpose(x.span.basis) @ y.span.basis
    rho = xp.linalg.svdvals(cross)
    resolution = max(x.columns.resolution, y.columns.resolution)
    tie = 8 * resolution * math.sqrt(x.span.dimensions)
    # Under jit the columns beyond the rank remain, at the end.
    order = xp.arange(rho.shape[0], dtype=rho.dtype, device=device(rho))
    counted = order < xp.minimum(x.span.rank, y.span.rank)
    # If all correlations are equal, as for x = y, so are all weights, and the mean is the value. It
    # has a derivative there, and the single variates have none.
    equal = xp.all((rho[:-1] - rho[1:] <= tie) | ~counted[1:])
    turn, _, _ = xp.linalg.svd(xp.where(equal, _distinct(xp, cross), cross), full_matrices=False)
    weights = _weights(xp, x, x.span.basis @ turn, rho, tie)
    weights = xp.where(equal, xp.ones_like(weights), weights)
    weights = xp.where(counted, weights, xp.zeros_like(weights))
    # If only some are equal, a small change of x decides their variates, and the value jumps.
    weights = weights * one_without_derivative(xp, rho, tied(xp, rho, counted) & ~equal)
    return _quotient(xp, x.span, y.span, xp.sum(weights * rho), xp.sum(weights))


def floor_by_chance(x: Subspace | Weighted, y: Subspace | Weighted, **_: Any) -> Array | None:
    """Return the mean squared correlation of independent data, if the value is hardly above it.

    With k and l directions in N = n − 1 dimensions, V = Σρ² of independent data has the mean kl/N
    and the variance 2kl(N − k)(N − l)/(N²(N − 1)(N + 2)) (Pillai's trace). The floor is high if it
    is more than half of what is possible, or if V is not significantly above its mean.
    """
    a, b = (item.span if isinstance(item, Weighted) else item for item in (x, y))
    xp, dimensions = array_namespace(a.basis), a.dimensions
    mean = xp.maximum(a.rank, b.rank) / dimensions
    defined = a.defined & b.defined
    if not known(defined & (mean > HIGH_FLOOR)):
        return None
    product = a.rank * b.rank
    free = (dimensions - a.rank) * (dimensions - b.rank)
    below = float(dimensions**2 * (dimensions - 1) * (dimensions + 2))  # too large for an int32
    most = product / dimensions + SIGMAS * xp.sqrt(2 * product * free / below)
    cross = xp.matrix_transpose(a.basis) @ b.basis
    low: Array = (mean > HALF) | (xp.sum(cross * cross) < most)
    return mean if known(low) else None


def _distinct(xp: Namespace, like: Array) -> Array:
    """Return a matrix of this shape whose singular values are distinct."""
    rows = xp.arange(like.shape[0], dtype=like.dtype, device=device(like))
    columns = xp.arange(like.shape[1], dtype=like.dtype, device=device(like))
    diagonal = rows[:, None] == columns[None, :]
    out: Array = xp.where(diagonal, 1 + rows[:, None], xp.zeros_like(like))
    return out


def _weights(xp: Namespace, x: Weighted, variates: Array, rho: Array, tie: float) -> Array:
    """Return the weight (r,) of each variate (n − 1, r): Σ_j |⟨h, x_j⟩|, averaged over ties.

    Correlations that differ by less than ``tie`` fix the space of their variates, but no basis of
    it. The mean of |⟨h, x_j⟩| over all unit vectors h of a space of d dimensions is c(d) times the
    length of x_j in that space, whatever the basis, and c(1) = 1.
    """
    dtype, where = rho.dtype, device(rho)
    columns = x.columns.points
    along = xp.matrix_transpose(variates) @ columns
    step = xp.astype(rho[:-1] - rho[1:] > tie, dtype)
    group = xp.concat([xp.zeros_like(rho[:1]), xp.cumulative_sum(step)])
    same = xp.astype(group[:, None] == group[None, :], dtype)
    order = xp.arange(rho.shape[0], dtype=dtype, device=where)
    size = same @ xp.astype(order < x.span.rank, dtype)
    squares = same @ (along * along)
    # Directions of x beyond those of y correlate with nothing. They are tied with a correlation 0.
    beyond = x.span.rank - rho.shape[0]
    rest = xp.linalg.vector_norm(columns - variates @ along, axis=0)
    share = xp.astype((rho <= tie) & (beyond > 0), dtype)
    squares = squares + share[:, None] * (rest * rest)[None, :]
    size = size + share * beyond
    # The root is taken where it has a gradient.
    positive = squares > 0
    lengths = xp.sqrt(xp.where(positive, squares, xp.ones_like(squares)))
    lengths = xp.sum(xp.where(positive, lengths, xp.zeros_like(lengths)), axis=1)
    most = max(2, x.span.basis.shape[1])
    means = xp.asarray([_mean_cosine(d) for d in range(most + 1)], dtype=dtype, device=where)
    index = xp.astype(xp.clip(size, 0.0, float(most)), xp.int32)
    out: Array = lengths * xp.take(means, index, axis=0)
    return out


def _mean_cosine(d: int) -> float:
    """Return the mean of |u_1| over all unit vectors u of d dimensions."""
    return math.exp(math.lgamma(d / 2) - math.lgamma((d + 1) / 2)) / math.sqrt(math.pi) if d else 1


def _quotient(xp: Namespace, x: Subspace, y: Subspace, above: Array, below: Array) -> Array:
    defined = x.defined & y.defined
    value = above / xp.where(defined, below, xp.ones_like(below))
    return where_defined(xp, within_one(xp, value), defined)


CANONICAL_WORDS = ChanceWords(
    "the mean squared canonical correlation",
    "Bring more samples, keep fewer directions (svcca with directions= or a smaller variance=), or "
    "test the value with repsim.permutation_test.",
)
