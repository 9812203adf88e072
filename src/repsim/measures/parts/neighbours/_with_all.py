"""The neighbours that several representations share with another one, all at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from repsim.measures.parts.neighbours._lists import NeighbourLists
from repsim.measures.parts.neighbours._sets import NeighbourSets

__all__ = ["jaccard_with_all", "mutual_with_all"]

TABLE = 1 << 28
"""Bytes of a table of the neighbours of all items."""

Values = np.ndarray[Any, np.dtype[np.float64]]

WithAll: TypeAlias = Callable[[NeighbourSets], Values | None]
"""A function from the neighbours of y to its values with all items of x."""


def mutual_with_all(items: Sequence[NeighbourSets], **_: object) -> WithAll | None:
    """Return a function to the share of neighbours that each of the items has in common with y."""
    return _with_all(items, lambda both, k: both.mean(axis=0) / k)


def jaccard_with_all(items: Sequence[NeighbourSets], **_: object) -> WithAll | None:
    """Return a function to the Jaccard index of neighbours of each of the items and those of y."""
    return _with_all(items, lambda both, k: (both / (2 * k - both)).mean(axis=0))


def _with_all(
    items: Sequence[NeighbourSets], value: Callable[[Values, int], Any]
) -> WithAll | None:
    """Return a function to the values of all items with another one.

    One table of all pairs of samples, with a byte for each item, takes the place of searching the
    lists of each item. Neighbours that tie count in part; they are few, and are added one by one.
    None where the table would be large, or there are no lists.
    """
    lists = [found for each in items if (found := _defined(each)) is not None]
    if len(lists) < len(items) or lists[0].n ** 2 * len(items) > TABLE:
        return None
    n = lists[0].n
    table = np.zeros((n * n, len(items)), dtype=np.uint8)
    tied: list[tuple[int, Any, Any]] = []
    for place, each in enumerate(lists):
        whole = each.weights == 1
        table[each.keys[whole], place] = 1
        if not whole.all():
            tied.append((place, each.keys[~whole], each.weights[~whole]))

    def values(other: NeighbourSets) -> Values | None:
        found = _defined(other)
        if found is None:
            return None
        whole = found.weights == 1
        both = _by_sample(table, found.keys[whole], n)
        part = found.keys[~whole]
        np.add.at(both, part // n, found.weights[~whole, None] * table[part])
        for place, keys, weights in tied:
            at = np.minimum(np.searchsorted(found.keys, keys), len(found.keys) - 1)
            there = found.keys[at] == keys
            least = np.minimum(weights, found.weights[at])[there]
            np.add.at(both[:, place], keys[there] // n, least)
        return np.asarray(value(both, other.k))

    return values


def _by_sample(table: Any, keys: Any, n: int) -> Values:
    """Return the sums of the rows of a table at i·n + j by sample i, (n, items)."""
    out = np.zeros((n, table.shape[1]))
    sample = keys // n
    first = np.flatnonzero(np.diff(sample, prepend=-1))
    if first.size:
        rows = table.take(keys, axis=0)
        out[sample[first]] = np.add.reduceat(rows, first, axis=0, dtype=np.float64)
    return out


def _defined(item: NeighbourSets) -> NeighbourLists | None:
    """Return the lists of neighbours, if there are any and the item is defined."""
    lists = item.neighbours
    if not isinstance(lists, NeighbourLists) or lists.alike or not bool(item.defined):
        return None
    return lists
