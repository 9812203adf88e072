"""The ranks of many numbers, where those that differ by rounding are equal."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from array_api_compat import device

from repsim._typing import Array, Namespace
from repsim.arrays import detached, host_numbers

__all__ = ["centred_ranks", "rank_step", "share_of_ties"]

Numbers = np.ndarray[Any, np.dtype[Any]]

MANTISSA = 52
"""Bits after the first of a float64."""


def rank_step(resolution: float) -> float:
    """Return how near two distances share a rank, relative to them, for data of this rounding."""
    return min(2**20 * resolution, 2**-17)


def share_of_ties(squares: Array, count: Array | int) -> Array:
    """Return Σ(t³ − t)/(m³ − m) over groups of t equal ranks among m.

    It is by what share ties make the sum of squares of centred ranks less than (m³ − m)/12.
    """
    out: Array = 1 - squares / ((count**3 - count) / 12)
    return out


def centred_ranks(xp: Namespace, d: Array, step: float, present: Array | None) -> Array:
    """Return the ranks of ``d`` (m,) minus their mean; equal entries get the mean of their ranks.

    Values are cut to a grid of digits above the rounding and not grouped by gaps, because among
    many distances all gaps are small.

    Parameters
    ----------
    xp : namespace
        The array namespace of ``d``.
    d : array, shape (m,)
        Finite numbers.
    step : float
        A power of two: the grid of numbers in [1, 2).
    present : array, shape (m,), bool, optional
        The entries to use.
    """
    count: Array | int = d.shape[0]
    if present is not None:  # missing entries are ranked last
        d = xp.where(present, d, xp.full_like(d, float("inf")))
        count = xp.sum(xp.astype(present, d.dtype))
    values = host_numbers(detached(d))
    if values is not None:
        ranks = _ranks_of(_cut(values, step))
        ranks -= (float(count) + 1) / 2
        found: Array = xp.asarray(ranks, dtype=d.dtype, device=device(d))
        return found
    d = _rounded(xp, d, step)
    ordered = xp.sort(d)
    below = xp.searchsorted(ordered, d, side="left")
    up_to = xp.searchsorted(ordered, d, side="right")
    out: Array = (xp.astype(below + up_to, d.dtype) + 1) / 2 - (count + 1) / 2
    return out


def _rounded(xp: Namespace, d: Array, step: float) -> Array:
    """Round the mantissas to multiples of a power of two."""
    size = xp.abs(d)
    zero = (size <= 0) | (size == float("inf"))
    exponent = xp.floor(xp.log2(xp.where(zero, xp.ones_like(d), size)))
    steps = step * xp.pow(xp.full_like(d, 2.0), exponent)
    out: Array = xp.where(zero, d, xp.round(d / steps) * steps)
    return out


def _cut(d: Numbers, step: float) -> Numbers:
    """As :func:`_rounded`, in integers, which takes a tenth of the time of logarithms."""
    bits = d.astype(np.float64).view(np.int64)
    cut = MANTISSA + round(math.log2(step))
    last = bits >> cut
    last &= 1
    bits += last  # halves go to the even neighbour
    bits += (1 << (cut - 1)) - 1
    bits &= -(1 << cut)
    return bits.view(np.float64)


def _ranks_of(d: Numbers) -> Numbers:
    """Sort once, and give each group of equal numbers the mean of its places.

    Measured for 500 000 numbers on one core: 0.03 s; a search for each number in the sorted ones
    takes 0.2 s, `scipy.stats.rankdata` 0.06 s.
    """
    order = np.argsort(d)
    ordered = np.sort(d)  # which takes less time than d[order]
    first = np.ones(len(d), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    begins = np.flatnonzero(first)
    if len(begins) == len(d):
        mean = np.arange(1, len(d) + 1, dtype=np.float64)
    else:
        ends = np.append(begins[1:], len(d))
        mean = np.repeat((begins + ends + 1) / 2, ends - begins)
    out = np.empty(len(d))
    out[order] = mean
    return out
