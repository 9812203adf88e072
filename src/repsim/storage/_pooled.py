"""One vector per sample from stored tokens, computed for the rows that are read."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

__all__ = ["EQUAL_MEANS", "POOLED", "PooledTokens"]

EQUAL_MEANS = 128
"""Means that differ from their average by less are equal; in eps of the largest value.

Measured with instance norms, rounding was up to 95 eps (photographs of values up to 255 in crops of
16×16), and the means of random maps of 224×224 differed by 2000 eps. Half precision has no such
bound, so instance norms in it are not found: in bfloat16 their means differed by up to 0.8 eps, and
those of random maps of 224×224, which are to stay different, by 0.3 eps.
"""

Values = np.ndarray[Any, np.dtype[Any]]


def _mean(values: Values, mask: Values) -> Values:
    wide = values.astype(np.promote_types(values.dtype, np.float32))
    # Not a product with the mask: padding may hold NaN.
    kept = np.where(mask.reshape(*mask.shape, *(1,) * (values.ndim - 2)), wide, 0)
    counts = mask.sum(1).reshape(-1, *(1,) * (values.ndim - 2))
    return np.asarray(kept.sum(1) / counts, dtype=wide.dtype)


def _first(values: Values, mask: Values) -> Values:
    return np.asarray(values[np.arange(len(values)), mask.argmax(1)])


def _last(values: Values, mask: Values) -> Values:
    return _first(values[:, ::-1], mask[:, ::-1])


POOLED: dict[str, Callable[[Values, Values], Values]] = {
    "mean": _mean,
    "first": _first,
    "last": _last,
}
"""Functions of tokens (n, N, ...) and their mask (n, N), by name."""


class PooledTokens(BackendArray):
    """Real tokens of stored rows, reduced to one vector when the rows are read.

    Parameters
    ----------
    tokens, mask : xarray.Variable
        (n, N, ...) and (n, N).
    how : {"mean", "first", "last"}
        Which vector.
    """

    def __init__(self, tokens: Any, mask: Any, how: str) -> None:
        self._tokens, self._mask, self._how = tokens, mask, how
        self.shape = (tokens.shape[0], *tokens.shape[2:])
        wide = how == "mean"
        self.dtype = np.promote_types(tokens.dtype, np.float32) if wide else tokens.dtype

    @cached_property
    def _first_mean(self) -> tuple[Values, Values]:
        """The mean of the first stored sample, and by what rounding may change another from it."""
        tokens, mask = np.asarray(self._tokens[:1]), np.asarray(self._mask[:1])
        largest = np.abs(tokens[mask].astype(self.dtype)).max(0)
        return _mean(tokens, mask)[0], 2 * EQUAL_MEANS * np.finfo(self.dtype).eps * largest

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.BASIC, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> Any:
        one = not isinstance(key[0], slice)
        rows = slice(key[0], key[0] + 1) if one else key[0]
        tokens, mask = np.asarray(self._tokens[rows]), np.asarray(self._mask[rows])
        found = POOLED[self._how](tokens, mask)
        if self._how == "mean" and found.size:
            # Means that differ by rounding alone are equal, as where a run stores means.
            first, margin = self._first_mean
            if (np.abs(found - first) <= margin).all():
                found = np.repeat(first[None], len(found), 0)
        return found[(0 if one else slice(None), *key[1:])]
