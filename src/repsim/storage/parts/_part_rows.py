"""Rows of several parts as one array, which are read on access."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

from repsim.storage._rows import StoredRows

__all__ = ["Ints", "PartRows", "parts_of"]

Ints = np.ndarray[Any, np.dtype[np.int64]]


def parts_of(sizes: Sequence[int], rows: Ints) -> tuple[Ints, Ints]:
    """Return the part of each row, and its number in that part.

    >>> of, number = parts_of([3, 0, 2], np.array([0, 4, 2]))
    >>> of.tolist(), number.tolist()
    ([0, 2, 0], [0, 1, 2])

    Parameters
    ----------
    sizes : sequence of int
        The rows of each part.
    rows : array of int
        Places in the parts one after the other.
    """
    starts = np.cumsum([0, *sizes])
    of = np.searchsorted(starts, rows, side="right") - 1
    return of, rows - starts[of]


class PartRows(BackendArray):
    """The rows of several parts along one axis.

    A block of rows is read from the parts that it lies in. If it lies in one part, nothing is
    copied.

    Parameters
    ----------
    parts : sequence of StoredRows
        The same array of each part, (rows, ...).
    places : array of int, optional
        Which rows, as places in the parts one after the other; by default all in that order.
    """

    def __init__(self, parts: Sequence[StoredRows], places: Ints | None) -> None:
        self._parts, self._places = list(parts), places
        self._sizes = [part.shape[0] for part in parts]
        n = sum(self._sizes) if places is None else len(places)
        self.shape = (n, *parts[0].shape[1:])
        self.dtype = parts[0].dtype

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> Any:
        rows, rest = key[0], key[1:]
        one = isinstance(rows, int | np.integer)
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(self.shape[0]))
        wanted = np.atleast_1d(rows)
        of, number = parts_of(self._sizes, wanted if self._places is None else self._places[wanted])
        out = None
        for part in np.unique(of) if len(of) else [0]:
            where = np.flatnonzero(of == part)
            found = self._of_part(self._parts[part], number[where], rest)
            if len(where) == len(wanted):
                out = found
                break
            if out is None:
                out = np.empty((len(wanted), *found.shape[1:]), found.dtype)
            out[where] = found
        return out[0] if one and out is not None else out

    def _of_part(self, part: StoredRows, rows: Ints, rest: tuple[Any, ...]) -> Any:
        if not len(rows):
            return part.read((slice(0, 0), *rest))
        first, stop = int(rows.min()), int(rows.max()) + 1
        if stop - first > 2 * len(rows):  # far apart
            return part.read((rows, *rest))
        found = part.read((slice(first, stop), *rest))
        ascending = stop - first == len(rows) and bool((np.diff(rows) == 1).all())
        return found if ascending else found[rows - first]
