"""Canonical correlations of two subspaces, and the subspaces that each variant compares."""

from __future__ import annotations

from typing import Any, NamedTuple

from array_api_compat import array_namespace, device

from repsim._errors import InputError
from repsim._typing import Array, Namespace
from repsim.measures.parts._subspace import Subspace, require_share, subspace

__all__ = [
    "correlate",
    "correlate_weighted",
    "leading_directions",
    "spanned_directions",
    "weighted_directions",
]

STATISTICS = ("mean_rho", "mean_rho_squared")


class Weighted(NamedTuple):
    """A subspace, and the centred columns in its basis."""

    span: Subspace
    columns: Array


def _check_statistic(operation: str, statistic: str) -> None:
    if statistic not in STATISTICS:
        raise InputError(
            f"{operation}: unknown statistic.\n"
            f"  expected one of {', '.join(map(repr, STATISTICS))}\n"
            f"  got {statistic!r}"
        )


def spanned_directions(operation: str, x: Array, *, name: str, statistic: str) -> Subspace:
    """Return all directions that ``x`` (n, p) spans."""
    _check_statistic(operation, statistic)
    return subspace(operation, name, x)[0]


def leading_directions(
    operation: str,
    x: Array,
    *,
    name: str,
    variance: float | None,
    directions: int | None,
    statistic: str,
) -> Subspace:
    """Return the principal directions of ``x`` that hold this variance, or this many of them."""
    _check_statistic(operation, statistic)
    if variance is not None and directions is not None:
        raise InputError(
            f"{operation}: give variance or directions, not both.\n"
            f"  got variance={variance!r}, directions={directions!r}"
        )
    if directions is None:
        variance = 0.99 if variance is None else variance
        require_share(operation, "variance", variance)
    elif isinstance(directions, bool) or not isinstance(directions, int) or directions < 1:
        raise InputError(
            f"{operation}: directions must be an integer of at least 1.\n  got {directions!r}"
        )
    return subspace(operation, name, x, variance=variance, directions=directions)[0]


def weighted_directions(operation: str, x: Array, *, name: str) -> Weighted:
    """Return all directions that ``x`` spans, and its columns in them."""
    return Weighted(*subspace(operation, name, x))


def correlate(x: Subspace, y: Subspace, *, statistic: str, **_: Any) -> Array:
    """Return the mean canonical correlation, or the mean of the squares."""
    xp = array_namespace(x.basis)
    cross = xp.matrix_transpose(x.basis) @ y.basis
    rho = xp.linalg.svdvals(cross) if statistic == "mean_rho" else cross * cross
    return _quotient(xp, x, y, xp.sum(rho), xp.minimum(x.rank, y.rank))


def correlate_weighted(x: Weighted, y: Weighted) -> Array:
    """Return the mean correlation, weighted by how much of the columns of x each describes."""
    xp = array_namespace(x.columns)
    cross = xp.matrix_transpose(x.span.basis) @ y.span.basis
    turn, rho, _ = xp.linalg.svd(cross, full_matrices=False)
    variates = x.span.basis @ turn
    weights = xp.sum(xp.abs(xp.matrix_transpose(variates) @ x.columns), axis=1)
    # Under jit the columns beyond the rank remain, at the end.
    order = xp.arange(rho.shape[0], dtype=rho.dtype, device=device(rho))
    weights = xp.where(
        order < xp.minimum(x.span.rank, y.span.rank), weights, xp.zeros_like(weights)
    )
    return _quotient(xp, x.span, y.span, xp.sum(weights * rho), xp.sum(weights))


def _quotient(xp: Namespace, x: Subspace, y: Subspace, above: Array, below: Array) -> Array:
    defined = x.defined & y.defined
    out: Array = xp.where(
        defined,
        above / xp.where(defined, below, xp.ones_like(below)),
        xp.full_like(above, float("nan")),
    )
    return out
