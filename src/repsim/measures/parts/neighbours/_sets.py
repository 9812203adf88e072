"""The sets of nearest neighbours of one representation, and what two of them share."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from array_api_compat import device

from repsim._typing import Array
from repsim.arrays import array_namespace, detached, host_numbers, reordered_pairs
from repsim.measures._registry import undefined
from repsim.measures.parts._dissimilarity import dissimilarities, near_points
from repsim.measures.parts.neighbours._joined import warn_of_joined, warn_of_joined_lists
from repsim.measures.parts.neighbours._lists import NeighbourLists, neighbour_lists, shared_weights
from repsim.measures.parts.neighbours._weights import neighbour_weights, uninformative

__all__ = ["NeighbourSets", "neighbour_sets", "reordered", "shared"]


class NeighbourSets(NamedTuple):
    """The neighbours of every sample, as lists in main memory or as a matrix of weights (n, n).

    ``like`` has the namespace, device and dtype of what is computed from them.
    """

    neighbours: NeighbourLists | Array
    k: int
    defined: Array
    like: Array


def neighbour_sets(operation: str, name: str, x: Array, k: int, metric: str) -> NeighbourSets:
    """Return the k nearest neighbours of each row of ``x`` (n, p).

    Lists of them where values can be read in main memory, because no set has a derivative. Lists
    take memory O(n k), and a third to a thirtieth of the time of a matrix of weights.
    """
    xp = array_namespace(x)
    resolution = float(xp.finfo(x.dtype).eps)
    points, least, defined = near_points(operation, name, x, metric)
    like = xp.zeros((1,), dtype=points.dtype, device=device(points))
    values = host_numbers(detached(points))
    neighbours: NeighbourLists | Array
    if values is not None:
        neighbours = neighbour_lists(values.astype(np.float64, copy=False), k, resolution, least)
        warn_of_joined_lists(operation, name, neighbours, k, resolution)
        alike: Array = xp.asarray(neighbours.alike, device=device(points))
    else:
        d, _ = dissimilarities(operation, name, x, metric)
        neighbours = neighbour_weights(xp, d, k, resolution)
        warn_of_joined(operation, name, d, neighbours, k, resolution)
        alike = uninformative(xp, neighbours)
    undefined(operation, name, defined & alike, "has all samples equally far from each other")
    return NeighbourSets(neighbours, k, defined & ~alike, like)


def reordered(x: NeighbourSets, order: np.ndarray[Any, np.dtype[np.int64]]) -> NeighbourSets:
    """Return the neighbours of the same samples in another order, ``x[order]``."""
    lists = x.neighbours
    if not isinstance(lists, NeighbourLists):
        return x._replace(neighbours=reordered_pairs(lists, order))
    place = np.empty(lists.n, dtype=np.int64)
    place[order] = np.arange(lists.n)
    sample, neighbour = np.divmod(lists.keys, lists.n)
    keys = place[sample] * lists.n + place[neighbour]
    ascending = np.argsort(keys)
    moved = lists._replace(
        keys=keys[ascending],
        weights=lists.weights[ascending],
        distances=lists.distances[ascending],
        rounding=lists.rounding[order],
    )
    return x._replace(neighbours=moved)


def shared(x: NeighbourSets, y: NeighbourSets) -> Array:
    """Return the number of neighbours of each sample that are the same on both sides, (n,).

    A neighbour counts with the smaller of its two weights.
    """
    xp = array_namespace(x.like)
    a, b = x.neighbours, y.neighbours
    if isinstance(a, NeighbourLists) and isinstance(b, NeighbourLists):
        undefined_ones = a.alike or b.alike  # whose lists are empty
        both = np.zeros(a.n) if undefined_ones else shared_weights(a, b)
        out: Array = xp.asarray(both, dtype=x.like.dtype, device=device(x.like))
    else:  # one side may be traced alone, as under jax.grad
        out = xp.sum(xp.minimum(_matrix(x), _matrix(y)), axis=-1)
    return out


def _matrix(x: NeighbourSets) -> Any:
    """Return the weights as a matrix (n, n)."""
    lists, xp = x.neighbours, array_namespace(x.like)
    if not isinstance(lists, NeighbourLists):
        return lists
    weights = np.zeros((lists.n, lists.n))
    weights.put(lists.keys, lists.weights)
    return xp.asarray(weights, dtype=x.like.dtype, device=device(x.like))
