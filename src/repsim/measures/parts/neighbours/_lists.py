"""The k nearest neighbours of each sample as lists, for arrays in main memory.

The matrices of distances and weights have n² entries, and n k of them matter. Here the products are
computed for some samples at a time, and only the neighbours are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from repsim.arrays import row_blocks
from repsim.kernels import centre_features
from repsim.measures.parts.neighbours._weights import OWN, SLACK

__all__ = ["NeighbourLists", "common_neighbours", "neighbour_lists", "shared_weights"]

Numbers = np.ndarray[Any, np.dtype[Any]]

WHOLE = 5792
"""Up to this number of samples, all products (256 MiB) are computed at once.

A product of a matrix with itself takes half the operations. Measured on one core for 1000 samples:
1.5 ms instead of 2.2 ms with 64 features, 10 ms instead of 18 ms with 512; for 5000: 74 ms instead
of 107 ms, and 0.28 s instead of 0.46 s.
"""

PRODUCTS = 1 << 22
"""Products in memory at a time for more samples (32 MiB)."""

GROUP = 16
"""The k-th least of the least of each group bounds the k-th least of all.

Measured for 5000 distances: 0.2 ns each instead of 1.0 ns by `np.partition`, on a processor for
which NumPy has a fast one.
"""


class NeighbourLists(NamedTuple):
    """The neighbours of all samples, sample by sample.

    ``keys`` are i·n + j in ascending order for each neighbour j of i. ``weights`` and ``distances``
    (squared, in units of the points) belong to them. ``rounding`` is that of the distances of each
    sample, (n,). If all other samples are equally near to every
    sample, ``alike`` is true and the lists are empty.
    """

    n: int
    keys: Numbers
    weights: Numbers
    distances: Numbers
    rounding: Numbers
    alike: bool


def neighbour_lists(points: Numbers, k: int, resolution: float, least: float) -> NeighbourLists:
    """Return the k nearest of each row by Euclidean distance, with the weights of ties.

    The rule is that of :func:`neighbour_weights`: samples as far as the k-th share the places that
    are left, so a list may have more than k entries. Its weights sum to k.

    Parameters
    ----------
    points : numpy array, shape (n, p), float64
        Points of a size around one.
    k : int
        1 ≤ k ≤ n − 2.
    resolution : float
        The rounding unit of the data.
    least : float
        Squared distances up to this one are zero.
    """
    centred: Any = centre_features(np, points)
    norms = np.einsum("ij,ij->i", centred, centred)
    points = points - points[norms.argmin()]
    norms = np.einsum("ij,ij->i", points, points)
    rounding = OWN * float(np.finfo(np.float64).eps) * norms
    parts = [
        _of_some(products, start, norms, rounding, k, resolution, least)
        for start, products in _products(points)
    ]
    alike = all(isinstance(part, range) for part in parts)
    n = len(points)
    # Samples to which all others are equally near have n neighbours each. Written out last, because
    # they are not needed if there are no others.
    lists = [
        (_all_others(part, n, k) if isinstance(part, range) else part)
        for part in ([] if alike else parts)
    ]
    keys = np.concatenate([each[0] for each in lists] or [np.empty(0, np.int64)])
    weights, distances = (
        np.concatenate([each[at] for each in lists] or [np.empty(0)]) for at in (1, 2)
    )
    return NeighbourLists(n, keys, weights, distances, rounding, alike)


def shared_weights(x: NeighbourLists, y: NeighbourLists) -> Numbers:
    """Return the weight of the neighbours that both have, the smaller of the two, (n,)."""
    here, there = common_neighbours(x.keys, y.keys)
    weights = np.minimum(x.weights[here], y.weights[there])
    return np.bincount(x.keys[here] // x.n, weights, x.n)


def common_neighbours(x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
    """Return where the entries that both have are in the keys of each side; ``y`` is ascending."""
    if not len(y):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    at = np.minimum(np.searchsorted(y, x), len(y) - 1)
    here = np.flatnonzero(y[at] == x)
    return here, at[here]


def _products(points: Numbers) -> Iterator[tuple[int, Numbers]]:
    """Yield the products of some rows with all, to be changed, and the first of these rows."""
    n = len(points)
    height = max(1, PRODUCTS // n)
    whole = points @ points.T if n <= WHOLE else None
    for start in range(0, n, height):
        rows = slice(start, start + height)
        yield start, points[rows] @ points.T if whole is None else whole[rows]


def _of_some(
    products: Numbers,
    start: int,
    norms: Numbers,
    rounding: Numbers,
    k: int,
    resolution: float,
    least: float,
) -> range | tuple[Numbers, Numbers, Numbers]:
    """Return keys, weights and distances of some samples; the samples, if all are equally near."""
    n, rows = len(norms), len(products)
    keys, distances = _candidates(products, start, norms, k, resolution, least)
    row = keys // n - start
    first = np.searchsorted(row, np.arange(rows))
    edge = distances[np.lexsort((distances, row))][first + k - 1]
    slack = SLACK * resolution * edge + rounding[start : start + rows]
    nearer = distances < (edge - slack)[row]
    tied = (distances <= (edge + slack)[row]) & ~nearer
    number = np.bincount(row, tied, rows)
    if (number == n - 1).all():
        return range(start, start + rows)
    share = (k - np.bincount(row, nearer, rows)) / number
    kept = np.flatnonzero(nearer | tied)
    return keys[kept], np.where(nearer, 1.0, share[row])[kept], distances[kept]


def _all_others(rows: range, n: int, k: int) -> tuple[Numbers, Numbers, Numbers]:
    keys = np.arange(rows.start * n, rows.stop * n)
    keys = keys[keys // n != keys % n]
    return keys, np.full(len(keys), k / (n - 1)), np.zeros(len(keys))


def _candidates(
    products: Numbers, start: int, norms: Numbers, k: int, resolution: float, least: float
) -> tuple[Numbers, Numbers]:
    """Return the keys and distances of all that may be as near as the k-th, and few others."""
    n, halves = len(norms), norms / 2
    unit = 8 * np.finfo(np.float64).eps
    rows = np.arange(start, start + len(products))
    products[rows - start, rows] = -np.inf  # no sample is its own neighbour
    keys, near = [], []
    for here in row_blocks(products):
        # Half of ‖a‖² + ‖b‖² − 2a·b; the half of ‖a‖² is the same for a row, and is added last.
        block, own = products[here], halves[rows[here]]
        np.subtract(halves, block, out=block)
        bound = _kth_or_more(block, k) + own
        bound += np.abs(bound) * (2 * SLACK * resolution) + 8 * unit * (own + halves.max()) + least
        few = np.flatnonzero(block <= (bound - own)[:, None])
        keys.append(few + rows[here.start] * n)
        near.append(block.take(few))
    found = np.concatenate(keys)
    one, other = np.divmod(found, n)
    distances = 2 * (np.concatenate(near) + halves[one])
    # As in `squared_distances`: below the rounding of the products, two rows are duplicates.
    rounding = unit * (norms[one] + norms[other])
    distances[distances <= np.maximum(rounding, least)] = 0
    return found, distances


def _kth_or_more(block: Numbers, k: int) -> Numbers:
    """Return a bound of the k-th least entry of each row, near it from above."""
    rows, n = block.shape
    groups = n // GROUP
    if groups >= 4 * k:
        whole = block[:, : GROUP * groups].reshape(rows, GROUP, groups).min(axis=1)
        block = np.concatenate([whole, block[:, GROUP * groups :]], axis=1)
    kth: Numbers = np.partition(block, k - 1, axis=1)[:, k - 1]
    return kth
