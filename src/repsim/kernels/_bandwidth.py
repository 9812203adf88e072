"""The median heuristic, in the two conventions of the literature."""

from __future__ import annotations

from repsim._errors import BandwidthError
from repsim._typing import Array, Namespace
from repsim.arrays import known

__all__ = ["MEDIANS", "median_of"]

MEDIANS = ("all", "off_diagonal")


def median_of(xp: Namespace, distances: Array, convention: str) -> Array:
    """Return the median of an (n, n) matrix of distances between samples.

    Parameters
    ----------
    xp : namespace
        The array namespace of ``distances``.
    distances : array, shape (n, n)
        Symmetric, non-negative, zero diagonal; squared or not.
    convention : {"all", "off_diagonal"}
        Over all n² entries, including the n zeros of the diagonal (Kornblith et al. 2019), or over
        pairs of different samples.

    Returns
    -------
    array, 0-d
        The median; 1 if all samples are the same, because their kernel is constant at any
        bandwidth.

    Raises
    ------
    BandwidthError
        The median is zero although the samples differ: more than half of the pairs are duplicates,
        so no bandwidth follows from the median.
    """
    ordered = xp.sort(xp.reshape(distances, (-1,)))
    if convention == "off_diagonal":
        # The n zeros of the diagonal are the smallest entries. Every other pair occurs twice, which
        # does not change the median.
        ordered = ordered[distances.shape[0] :]
    size = ordered.shape[0]
    median = (ordered[(size - 1) // 2] + ordered[size // 2]) / 2
    same = ordered[-1] == 0
    if known((median == 0) & ~same):
        raise BandwidthError(distances.shape[0], convention)
    out: Array = xp.where(same, xp.ones_like(median), median)
    return out
