"""The nearest neighbours of each sample in order, and the places and chains of what two share."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from array_api_compat import device

from repsim._typing import Array
from repsim.arrays import array_namespace
from repsim.measures._registry import undefined
from repsim.measures.parts._columns import read
from repsim.measures.parts._dissimilarity import near_points
from repsim.measures.parts._subspace import where_defined
from repsim.measures.parts.neighbours._joined import warn_of_joined_lists
from repsim.measures.parts.neighbours._lists import (
    NeighbourLists,
    common_neighbours,
    neighbour_lists,
)
from repsim.measures.parts.neighbours._weights import SLACK, require_metric

__all__ = [
    "Common",
    "OrderedNeighbours",
    "common",
    "heaviest_chain",
    "mean_of_terms",
    "mean_places",
    "ordered",
]

Numbers = np.ndarray[Any, np.dtype[Any]]

CHAINS = 1 << 22
"""Numbers of a table of chains in memory at a time (32 MiB)."""


class OrderedNeighbours(NamedTuple):
    """The k nearest neighbours of every sample, and how near each is.

    ``group`` numbers the distances of each entry of the lists: ascending by sample and distance,
    the same for neighbours that are equally far. ``places`` are 1 for the nearest; neighbours that
    are equally far share the mean of the places that their weights fill.
    """

    lists: NeighbourLists
    group: Numbers
    places: Numbers
    k: int
    defined: Array
    like: Array


class Common(NamedTuple):
    """The neighbours that both sides have, sample by sample.

    For each: its sample, the smaller of its weights, its distance groups and its places.
    """

    row: Numbers
    weight: Numbers
    group: tuple[Numbers, Numbers]
    place: tuple[Numbers, Numbers]


def ordered(operation: str, x: Array, *, name: str, k: int, metric: str) -> OrderedNeighbours:
    """Return the k nearest neighbours of each row of ``x`` (n, p) in order, found on the host."""
    require_metric(operation, metric)
    xp = array_namespace(x)
    resolution = float(xp.finfo(x.dtype).eps)
    points, least, defined = near_points(operation, name, x, metric)
    values = read(operation, name, points, "the lists of neighbours are found on the host")
    lists = neighbour_lists(values, int(k), resolution, least)
    warn_of_joined_lists(operation, name, lists, int(k), resolution)
    undefined(operation, name, defined & lists.alike, "has all samples equally far from each other")
    group = _groups(lists, resolution)
    places = mean_places(lists.keys // lists.n, group, lists.weights)
    like = xp.zeros((1,), dtype=points.dtype, device=device(points))
    return OrderedNeighbours(lists, group, places, int(k), defined & (not lists.alike), like)


def common(x: OrderedNeighbours, y: OrderedNeighbours) -> Common:
    """Return what two sides share; nothing if one of them is undefined."""
    here, there = common_neighbours(x.lists.keys, y.lists.keys)
    return Common(
        x.lists.keys[here] // x.lists.n,
        np.minimum(x.lists.weights[here], y.lists.weights[there]),
        (x.group[here], y.group[there]),
        (x.places[here], y.places[there]),
    )


def mean_of_terms(x: OrderedNeighbours, y: OrderedNeighbours, terms: Numbers) -> Array:
    """Return the mean over the samples of a term for each, (n,); NaN if a side is undefined."""
    xp = array_namespace(x.like)
    value = xp.asarray(terms.mean(), dtype=x.like.dtype, device=device(x.like))
    return where_defined(xp, value, x.defined & y.defined)


def mean_places(row: Numbers, group: Numbers, weight: Numbers) -> Numbers:
    """Return the place of each entry in the list of its sample: 1 for the nearest.

    Entries of one group share the mean of the places that they fill together: with a weight of one
    for each, the usual mean rank.
    """
    _, first, entry = np.unique(group, return_index=True, return_inverse=True)
    filled = np.bincount(entry, weight, len(first))
    row = row[first]
    before = np.cumsum(filled) - filled
    begins = np.searchsorted(row, row)  # the first group of the same sample
    places: Numbers = (before - before[begins] + (filled + 1) / 2)[entry]
    return places


def heaviest_chain(both: Common, n: int, *, gaps: bool) -> Numbers:
    """Return the weight of the heaviest chain of common neighbours of each sample, (n,).

    In a chain, if one neighbour is strictly nearer than another on one side, it is not strictly
    farther on the other. With ``gaps``, the neighbours left out between two of a chain count
    against it. They count half of the change of the difference of the places of these two; the
    difference is zero before the first and after the last. Then k minus this weight is the
    Levenshtein distance of lists without ties.
    """
    table = _Table.of(both, n)
    out = np.zeros(n)
    height = max(1, CHAINS // max(1, table.width * table.width))
    for start in range(0, len(table.rows), height):
        some = slice(start, start + height)
        out[table.rows[some]] = _chains(*(part[some] for part in table[1:4]), gaps=gaps)
    return out


class _Table(NamedTuple):
    """Common neighbours of each sample in a row, by their places in x and then in y.

    Those with the same places on both sides are one entry; missing ones have no weight.
    """

    rows: Numbers
    weight: Numbers
    x: Numbers
    y: Numbers
    width: int

    @staticmethod
    def of(both: Common, n: int) -> _Table:
        order = np.lexsort((both.group[1], both.group[0]))
        pairs = np.stack([both.group[0], both.group[1]])[:, order]
        new = np.ones(len(order), bool)
        new[1:] = (pairs[:, 1:] != pairs[:, :-1]).any(axis=0)
        first = order[new]
        weight = np.add.reduceat(both.weight[order], np.flatnonzero(new)) if len(order) else order
        rows, begins, number = np.unique(both.row[first], return_index=True, return_counts=True)
        width = int(number.max(initial=0))
        at = np.repeat(np.arange(len(rows)), number)
        column = np.arange(len(first)) - np.repeat(begins, number)
        parts = np.zeros((3, len(rows), width))
        parts[:, at, column] = weight, both.place[0][first], both.place[1][first]
        return _Table(rows, parts[0], parts[1], parts[2], width)


def _chains(weight: Numbers, x: Numbers, y: Numbers, *, gaps: bool) -> Numbers:
    """Return the heaviest chain of each row by dynamic programming over its entries."""
    shift = (x - y) / 2 if gaps else np.zeros_like(x)
    best = np.full_like(weight, -np.inf)  # of the chains that end with an entry
    for j in range(weight.shape[1]):
        start = -np.abs(shift[:, j])
        if j:
            step = best[:, :j] - np.abs(shift[:, :j] - shift[:, j, None])
            step[y[:, :j] > y[:, j, None]] = -np.inf
            start = np.maximum(start, step.max(axis=1))
        best[:, j] = np.where(weight[:, j] > 0, weight[:, j] + start, -np.inf)
    whole: Numbers = np.maximum((best - np.abs(shift)).max(axis=1, initial=0), 0)
    return whole


def _groups(lists: NeighbourLists, resolution: float) -> Numbers:
    """Number the distances of the entries, ascending by sample and distance."""
    row = lists.keys // lists.n
    order = np.lexsort((lists.distances, row))
    near, row, last = lists.distances[order], row[order], lists.weights[order] < 1
    farther = near[1:] - near[:-1] > SLACK * resolution * near[:-1] + lists.rounding[row[:-1]]
    # Those that share the last places are equally far, although rounding adds up over many.
    farther &= ~(last[1:] & last[:-1])
    new = np.ones(len(order), np.int64)
    new[1:] = farther | (row[1:] != row[:-1])
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(new)
    return group
