"""Passes over the rows of layers, which this process makes alone or shares with other ranks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from repsim._distributed import RankGroup
from repsim.streaming.exact._sources import Floats, Source, pick

__all__ = ["Piece", "RankWork", "Read", "Work", "count_of"]

Index = np.ndarray[Any, np.dtype[np.intp]]

Read = tuple[Source, "slice | Index"]
"""Some rows of a layer: a slice, or ascending numbers."""


@dataclass(frozen=True)
class Piece:
    """A part of a pass: the function gets the rows that are read, then the arguments."""

    reads: tuple[Read, ...]
    args: tuple[Any, ...] = ()

    @property
    def cost(self) -> float:
        """Numbers that are read."""
        return float(sum(count_of(rows) * source.p for source, rows in self.reads))


class Work(Protocol):
    """What makes passes over rows."""

    def read(self, reads: Sequence[Read]) -> list[Floats]:
        """Return some rows, few enough for the memory of this process."""

    def reduce(
        self,
        function: Callable[..., Any],
        groups: Sequence[Sequence[Piece]],
        combine: Callable[[Any, Any], Any] | None = None,
    ) -> list[Any]:
        """Return, for each group, the values of the function for its pieces, combined in order.

        Without ``combine`` each group is one piece.
        """


class RankWork:
    """Each rank makes a stretch of the pieces, and all get the results.

    Parameters
    ----------
    ranks : RankGroup
        One rank makes all pieces, one after the other.
    rows : int
        Rows that are read at a time where single rows are requested.
    """

    def __init__(self, ranks: RankGroup, rows: int) -> None:
        self._ranks, self._rows = ranks, rows
        self._last: tuple[Source, Index, Floats] | None = None

    def read(self, reads: Sequence[Read]) -> list[Floats]:
        """Return some rows, few enough for the memory of this process."""
        return [self._read(each) for each in reads]

    def reduce(
        self,
        function: Callable[..., Any],
        groups: Sequence[Sequence[Piece]],
        combine: Callable[[Any, Any], Any] | None = None,
    ) -> list[Any]:
        """Return the combined values of each group; see :class:`Work`."""
        pieces = [(index, piece) for index, group in enumerate(groups) for piece in group]
        found: dict[int, Any] = {}
        for each in self._ranks.stretch([piece.cost for _, piece in pieces]):
            index, piece = pieces[each]
            value = function(*self.read(piece.reads), *piece.args)
            if index in found and combine is not None:
                value = combine(found[index], value)
            found[index] = value
        self._last = None
        everyone = self._ranks.gather(found)
        parts = [
            [each[index] for each in everyone if index in each] for index in range(len(groups))
        ]
        return [part[0] if combine is None else functools.reduce(combine, part) for part in parts]

    def _read(self, read: Read) -> Floats:
        source, rows = read
        if isinstance(rows, slice):
            return source.raw(rows)
        # Consecutive pieces take the same single rows, and to find them reads the whole layer.
        if self._last is None or self._last[0] is not source or self._last[1] is not rows:
            self._last = source, rows, pick(source, rows, self._rows)
        return self._last[2]


def count_of(rows: slice | Index) -> int:
    """Return the number of rows."""
    return rows.stop - rows.start if isinstance(rows, slice) else len(rows)
