"""Kendall's tau of the entries of two dissimilarity matrices, by SciPy on the host."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from array_api_compat import device

from repsim._typing import Array
from repsim.arrays import array_namespace, detached, to_numpy

__all__ = ["kendall"]


def kendall(x: Array, y: Array, present: Array | None, *, among: str) -> Array:
    """Return Kendall's tau of two vectors of ranks (m,).

    Parameters
    ----------
    x, y : array, shape (m,)
        Ranks; equal entries have equal ranks.
    present : array, shape (m,), bool, optional
        The entries to use.
    among : {"untied", "all"}
        What pairs of entries the difference of concordant and discordant ones is divided by: the
        geometric mean of the numbers of pairs that are not tied in x and in y (τ_b), or the number
        of all pairs (τ_a).

    Returns
    -------
    array, 0-d, or NumPy scalar
        NaN if all entries of a side are equal.
    """
    from scipy.stats import kendalltau

    a, b = to_numpy(detached(x)), to_numpy(detached(y))
    if present is not None:
        kept = to_numpy(present)
        a, b = a[kept], b[kept]
    value = math.nan
    if len(a) > 1 and np.ptp(a) > 0 and np.ptp(b) > 0:
        # The p-value of small samples takes long and is not used.
        value = float(kendalltau(a, b, method="asymptotic").statistic)
        if among == "all":
            pairs = len(a) * (len(a) - 1) / 2
            value *= math.sqrt(_untied(a, pairs) / pairs) * math.sqrt(_untied(b, pairs) / pairs)
    xp = array_namespace(x)
    out: Array = xp.asarray(value, dtype=x.dtype, device=device(x))
    return out


def _untied(ranks: np.ndarray[Any, Any], pairs: float) -> float:
    counts = np.unique(ranks, return_counts=True)[1].astype(np.float64)
    return pairs - float((counts * (counts - 1)).sum()) / 2
