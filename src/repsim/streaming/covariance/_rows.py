"""The triangle of the rows so far, and the rows that wait to be decomposed together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from repsim._typing import Array
from repsim.arrays import array_namespace, same_home, to_numpy
from repsim.streaming.covariance._triangle import Slices, Triangle

__all__ = ["Rows"]

FEWEST = 256
"""Rows wait until there are at least as many, because a decomposition has a cost per call."""


class Rows:
    """Rows (n, P) of all layers side by side, kept as their triangular factor."""

    def __init__(self) -> None:
        self._triangle: Triangle | None = None
        self._waiting: list[Array] = []
        self._count = 0  # rows that wait

    @property
    def n(self) -> int:
        """Samples."""
        return self._count + (0 if self._triangle is None else self._triangle.n)

    def add(self, rows: Array, cuts: Slices) -> None:
        """Add the rows of one batch; they wait until there are as many as columns."""
        if self._waiting and not same_home(self._waiting[0], rows):
            self.settled(cuts)
        self._waiting.append(rows)
        self._count += int(rows.shape[0])
        if self._count >= max(FEWEST, rows.shape[1]):
            self.settled(cuts)

    def settled(self, cuts: Slices) -> Triangle:
        """Return the triangle of all rows; none waits any more."""
        self._triangle, self._waiting, self._count = self._joined(cuts), [], 0
        return self._triangle

    def plus(self, other: Rows, cuts: Slices) -> Rows:
        """Return the rows of both."""
        out = Rows()
        out._triangle = Triangle.joined([s._joined(cuts) for s in (self, other) if s.n], cuts)
        return out

    def as_plain(self) -> dict[str, Any]:
        """Return NumPy arrays and numbers, copied."""
        here = self._triangle
        triangle = None
        if here is not None:
            triangle = {
                "n": here.n,
                "mean": np.array(to_numpy(here.mean)),
                "unit": np.array(here.unit),
                "root": np.array(to_numpy(here.root)),
            }
        waiting = [to_numpy(rows) for rows in self._waiting]
        return {"triangle": triangle, "waiting": np.concatenate(waiting) if waiting else None}

    @classmethod
    def from_plain(cls, state: Mapping[str, Any]) -> Rows:
        """Return the rows that :meth:`as_plain` described."""
        out = cls()
        out._triangle = None if state["triangle"] is None else Triangle(**state["triangle"])
        waiting = state["waiting"]
        out._waiting = [] if waiting is None else [np.array(waiting)]
        out._count = 0 if waiting is None else len(waiting)
        return out

    def _joined(self, cuts: Slices) -> Triangle:
        parts = [] if self._triangle is None else [self._triangle]
        if self._waiting:
            rows = array_namespace(self._waiting[0]).concat(self._waiting, axis=0)
            parts.append(Triangle.of(rows, cuts))
        return Triangle.joined(parts, cuts)
