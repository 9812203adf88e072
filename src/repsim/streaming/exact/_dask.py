"""Passes over the rows of Dask arrays, made by the scheduler of the caller."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from repsim._errors import InputError
from repsim.arrays import dask_array, dask_package, dask_values, to_numpy
from repsim.streaming.exact._sources import Floats, Source, as_rows
from repsim.streaming.exact._work import Piece, Read

__all__ = ["DaskWork", "all_in_dask", "in_tree"]

FAN = 4
"""Partial results that are combined together."""


def all_in_dask(operation: str, sources: Sequence[Source]) -> bool:
    """Whether the layers are Dask arrays; raise if only some of them are."""
    lazy = [source for source in sources if dask_array(source.array) is not None]
    if lazy and len(lazy) < len(sources):
        other = next(source for source in sources if dask_array(source.array) is None)
        raise InputError(
            f"{operation}: either all layers are Dask arrays, or none is.\n"
            f"  {lazy[0].label} is one, {other.label} is a {type(other.array).__name__}\n"
            f"  Wrap the others where they are stored: dask.array.from_zarr(...), or "
            f"dask.array.from_array(x, chunks=...) for an array in memory."
        )
    return bool(lazy)


class DaskWork:
    """All pieces are delayed calls; only their combined values come to this process."""

    def __init__(self, operation: str) -> None:
        self._operation, self._delayed = operation, dask_package().delayed
        # Kept with what they are of, so that its id stays its own.
        self._literals: dict[int, tuple[Any, Any]] = {}
        self._rows: dict[tuple[int, Any], tuple[Read, Any]] = {}
        self._chunks: dict[int, tuple[Source, Any, Any]] = {}

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return a delayed call."""
        return self._delayed(function, traverse=False)(*args)

    def literal(self, value: Any) -> Any:
        """Return a value that is sent once, however many calls take it."""
        if isinstance(value, int | float | str):
            return value
        if id(value) not in self._literals:
            self._literals[id(value)] = value, self._delayed(value, traverse=False)
        return self._literals[id(value)][1]

    def rows(self, read: Read) -> Any:
        """Return rows (b, p) that a worker will have; equal requests are one task."""
        source, rows = read
        which = (rows.start, rows.stop) if isinstance(rows, slice) else id(rows)
        key = id(source), which
        if key not in self._rows:
            if isinstance(rows, slice):
                delayed = self._slice(source, rows)
            else:
                delayed = self.call(as_rows, dask_array(source.array)[rows], source.dtype)
            self._rows[key] = read, delayed
        return self._rows[key][1]

    def _slice(self, source: Source, rows: slice) -> Any:
        # From the chunks themselves: a slice of an array holds the graph of all chunks.
        if id(source) not in self._chunks:
            x = dask_array(source.array)
            ends = np.cumsum(x.chunks[0])
            self._chunks[id(source)] = source, x.to_delayed(), ends
        _, chunks, ends = self._chunks[id(source)]
        first = int(np.searchsorted(ends, rows.start, side="right"))
        last = int(np.searchsorted(ends, rows.stop, side="left"))
        before = int(ends[first - 1]) if first else 0
        needed = chunks[first : last + 1]
        within = rows.start - before, rows.stop - before
        return self.call(_rows_of, source.dtype, within, needed.shape, *needed.ravel().tolist())

    def values(self, delayed: Sequence[Any]) -> list[Any]:
        """Compute delayed values with the scheduler of the caller."""
        self._literals.clear()
        self._rows.clear()
        return dask_values(self._operation, delayed)

    def read(self, reads: Sequence[Read]) -> list[Floats]:
        """Return some rows, few enough for the memory of this process."""
        return self.values([self.rows(read) for read in reads])

    def reduce(
        self,
        function: Callable[..., Any],
        groups: Sequence[Sequence[Piece]],
        combine: Callable[[Any, Any], Any] | None = None,
    ) -> list[Any]:
        """Return the combined values of each group; see :class:`Work`."""
        out = []
        for group in groups:
            found = [
                self.call(function, *map(self.rows, p.reads), *map(self.literal, p.args))
                for p in group
            ]
            out.append(found[0] if combine is None else in_tree(self, combine, found))
        return self.values(out)


def _rows_of(
    dtype: np.dtype[Any], within: tuple[int, int], shape: tuple[int, ...], *chunks: Any
) -> Floats:
    """Return rows (b, p) of a grid of chunks, numbered from the first row of the first chunk."""
    if len(chunks) == 1:
        return as_rows(chunks[0][slice(*within)], dtype)
    grid = np.empty(len(chunks), object)
    for number, chunk in enumerate(chunks):
        grid[number] = to_numpy(chunk)
    joined = np.block(grid.reshape(shape).tolist())
    return as_rows(joined[slice(*within)], dtype)


def in_tree(work: DaskWork, combine: Callable[[Any, Any], Any], found: list[Any]) -> Any:
    """Return the combination of delayed values, a few at a time, so that few are kept."""
    while len(found) > 1:
        found = [
            work.call(_combined, combine, *found[start : start + FAN])
            for start in range(0, len(found), FAN)
        ]
    return found[0]


def _combined(combine: Callable[[Any, Any], Any], *found: Any) -> Any:
    total = found[0]
    for each in found[1:]:
        total = combine(total, each)
    return total
