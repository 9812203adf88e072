"""The median heuristic, in the two conventions of the literature."""

from __future__ import annotations

import numpy as np
from array_api_compat import device

from repsim._errors import BandwidthError
from repsim._typing import Array, Namespace
from repsim.arrays import host_numbers, known

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
    array, 0-d, or NumPy scalar
        The median; 1 if all samples are the same, because their kernel is constant at any
        bandwidth.

    Raises
    ------
    BandwidthError
        The median is zero although the samples differ: more than half of the pairs are duplicates,
        so no bandwidth follows from the median.
    """
    n = distances.shape[0]
    # The n zeros of the diagonal are the smallest entries. Every other pair occurs twice, which
    # does not change the median.
    skipped = n if convention == "off_diagonal" else 0
    lower = skipped + (n * n - skipped - 1) // 2
    upper = skipped + (n * n - skipped) // 2
    values = host_numbers(distances)
    if values is not None:
        # Measured for n = 1000 on one core: 1.4 ms instead of 73 ms with a sort.
        ordered = np.partition(values, upper, axis=None)
        below = ordered[upper] if lower == upper else ordered[:upper].max()
        median = xp.asarray((below + ordered[upper]) / 2, device=device(distances))
        same = xp.max(distances) == 0
    else:
        ordered = xp.sort(xp.reshape(distances, (-1,)))
        median = (ordered[lower] + ordered[upper]) / 2
        same = ordered[-1] == 0
    if known((median == 0) & ~same):
        raise BandwidthError(n, convention)
    out: Array = xp.where(same, xp.ones_like(median), median)
    return out
