"""The rank of each sample among the neighbours of each other, with means for ties."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import device

from repsim._typing import Array, Namespace
from repsim.arrays import detached, host_numbers, row_blocks
from repsim.measures.parts.neighbours._weights import SLACK, own_rounding

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
    values = host_numbers(detached(d))
    if values is not None:
        found: Array = xp.asarray(_ranks_of(values, resolution), device=where)
        return found
    itself = xp.eye(n, dtype=xp.bool, device=where)
    rounding = own_rounding(xp, d)
    d = xp.where(itself, xp.full_like(d, float("inf")), d)
    order = xp.argsort(d, axis=-1)
    ordered = xp.sort(d, axis=-1)
    # Each farther distance begins a new group; groups of all rows are numbered in one sequence.
    slack = SLACK * resolution * ordered[:, :-1] + rounding
    farther = ordered[:, 1:] - ordered[:, :-1] > slack
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


def _ranks_of(d: np.ndarray[Any, Any], resolution: float) -> np.ndarray[Any, Any]:
    """Rank block by block, and find the groups of equal distances without a search.

    Measured for 3000 samples on one core: 0.2 s instead of 3.1 s.
    """
    n, out, rounding = len(d), np.empty_like(d), own_rounding(np, d)
    for rows in row_blocks(d):
        block, height = d[rows].copy(), rows.stop - rows.start
        block[np.arange(height), np.arange(rows.start, rows.stop)] = np.inf
        order = np.argsort(block, axis=1)
        block = np.take_along_axis(block, order, axis=1)
        first = np.ones((height, n), bool)  # of a group; each row begins one
        slack = SLACK * resolution * block[:, :-1] + rounding[rows]
        first[:, 1:] = block[:, 1:] - block[:, :-1] > slack
        begins = np.flatnonzero(first)
        ends = np.append(begins[1:], height * n)
        # The places in the row are counted from 1, and a group shares the mean of its places.
        mean = (begins + ends + 1) / 2 - begins // n * n
        ranks = np.repeat(mean, ends - begins).reshape(height, n)
        np.put_along_axis(out[rows], order, ranks.astype(d.dtype), axis=1)
    return out
