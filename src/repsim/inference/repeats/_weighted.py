"""Comparisons of RDM entries with weights, for conditions that are drawn more than once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

__all__ = ["WEIGHTED", "resampled_values"]

Values = np.ndarray[Any, np.dtype[np.float64]]

WEIGHTED = ("spearman", "pearson", "cosine")
"""Comparisons that have a value with weights."""

ROUNDING = 64 * float(np.finfo(np.float64).eps)
"""The relative error of a weighted mean of equal entries."""

BLOCK = 2**21
"""Weights in memory at once."""


def resampled_values(x: Values, ys: Values, counts: Values, comparison: str) -> Values:
    """Return the comparison of x with every y for every draw of conditions, (draws, subjects).

    A pair of conditions (i, j), i < j, has the weight c_i c_j: so often it is among the pairs of
    the drawn conditions. The pairs of a condition with its own copies have no entry and no weight.

    Parameters
    ----------
    x : array, shape (m,)
        Entries of the RDM of n conditions above its diagonal, row by row, m = n(n − 1)/2.
    ys : array, shape (subjects, m)
        The same of every subject.
    counts : array, shape (draws, n)
        How often each condition was drawn.
    comparison : {"spearman", "pearson", "cosine"}
        What compares.
    """
    n = counts.shape[1]
    rows, columns = np.triu_indices(n, 1)
    sides = [_Ranking.of(v) if comparison == "spearman" else v for v in (x, *ys)]
    out = []
    for some in _blocks(counts, len(x)):
        weights = some[:, rows] * some[:, columns]
        total = np.sum(weights, axis=1, keepdims=True)

        def centred(side: Any, weights: Values = weights, total: Values = total) -> Values:
            if comparison == "spearman":
                ranks: Values = side.ranks(weights) - total / 2
                return ranks
            if comparison == "cosine":
                return np.broadcast_to(side, weights.shape)
            with np.errstate(invalid="ignore", divide="ignore"):
                deviations: Values = side - weights @ side[:, None] / total
            # Equal entries differ from their mean by rounding, which would correlate.
            deviations[np.abs(deviations) <= ROUNDING * np.abs(side)] = 0
            return deviations

        a = centred(sides[0])
        weighted = weights * a
        squares = np.sum(weighted * a, axis=1)
        values = []
        for side in sides[1:]:
            b = centred(side)
            norm = np.sqrt(squares * np.sum(weights * b * b, axis=1))
            above = np.sum(weighted * b, axis=1)
            values.append(np.divide(above, norm, out=np.full_like(norm, math.nan), where=norm > 0))
        out.append(np.stack(values, axis=1))
    return np.concatenate(out)


class _Ranking(NamedTuple):
    """The order of entries, and the groups of equal ones."""

    order: np.ndarray[Any, Any]
    last: np.ndarray[Any, Any]
    group: np.ndarray[Any, Any]

    @classmethod
    def of(cls, v: Values) -> _Ranking:
        order = np.argsort(v, kind="stable")
        ordered = v[order]
        last = np.flatnonzero(np.append(ordered[1:] > ordered[:-1], True))
        group = np.searchsorted(last, np.argsort(order, kind="stable"))
        return cls(order, last, group)

    def ranks(self, weights: Values) -> Values:
        """Return the ranks among the drawn entries less ½; equal ones share their mean."""
        up_to = np.cumsum(weights[:, self.order], axis=1)[:, self.last]
        below = np.concatenate([np.zeros_like(up_to[:, :1]), up_to[:, :-1]], axis=1)
        middle: Values = (below + up_to) / 2
        return middle[:, self.group]


def _blocks(counts: Values, pairs: int) -> Iterator[Values]:
    size = max(1, BLOCK // pairs)
    for start in range(0, len(counts), size):
        yield counts[start : start + size]
