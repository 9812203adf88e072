"""The rank of each sample among the neighbours of each other, with means for ties."""

from __future__ import annotations

from array_api_compat import device

from repsim._typing import Array, Namespace

__all__ = ["neighbour_ranks"]


def neighbour_ranks(xp: Namespace, d: Array, resolution: float) -> Array:
    """Return how near sample j is to i, (n, n): 1 for the nearest, n − 1 for the farthest.

    The sample itself has the rank n. Samples at the same distance share the mean of their ranks, so
    no value depends on the order of the samples.

    Parameters
    ----------
    xp : namespace
        The array namespace of ``d``.
    d : array, shape (n, n)
        Distances between all samples.
    resolution : float
        The rounding unit of the data. Neighbours in the order of distance whose relative difference
        is below a few units are at the same distance.
    """
    n, where = d.shape[0], device(d)
    itself = xp.eye(n, dtype=xp.bool, device=where)
    d = xp.where(itself, xp.full_like(d, float("inf")), d)
    order = xp.argsort(d, axis=-1)
    ordered = xp.sort(d, axis=-1)
    # Each farther distance begins a new group; groups of all rows are numbered in one sequence.
    farther = ordered[:, 1:] - ordered[:, :-1] > 64 * resolution * ordered[:, :-1]
    integer = order.dtype  # int64 but in jax without it
    steps = xp.concat([xp.zeros_like(order[:, :1]), xp.astype(farther, integer)], axis=1)
    group = xp.cumulative_sum(steps, axis=1)
    rows = n * xp.arange(n, dtype=integer, device=where)[:, None]
    group = xp.reshape(group + rows, (n * n,))
    before = xp.searchsorted(group, group, side="left")
    up_to = xp.searchsorted(group, group, side="right")
    ranks = (xp.astype(before + up_to, d.dtype) + 1) / 2
    place = xp.reshape(xp.argsort(order, axis=-1) + rows, (n * n,))
    out: Array = xp.reshape(xp.take(ranks, place, axis=0), (n, n)) - xp.astype(rows, d.dtype)
    return out
