"""Soft matching of few features, by trying all pairings, in float64."""

import math
from itertools import permutations

import numpy as np


def _copied(x, y):
    """Features copied until both sides have as many: every plan is then a pairing."""
    common = math.lcm(x.shape[1], y.shape[1])
    assert common <= 7, f"{math.factorial(common)} pairings are too many to try"
    return (np.repeat(z, common // z.shape[1], axis=1) for z in (x, y))


def distance(x, y):
    """Khosla & Williams 2023, for equal weights of all features."""
    x, y = _copied(*(np.asarray(z, np.float64) - np.mean(z, axis=0, dtype=float) for z in (x, y)))
    size = x.shape[1]
    best = min(
        sum(float(((x[:, i] - y[:, j]) ** 2).sum()) for i, j in enumerate(order))
        for order in permutations(range(size))
    )
    return math.sqrt(best / size)


def correlation(x, y):
    x, y = _copied(*(np.asarray(z, np.float64) for z in (x, y)))
    size = x.shape[1]
    r = np.array([[np.corrcoef(x[:, i], y[:, j])[0, 1] for j in range(size)] for i in range(size)])
    return max(
        sum(r[i, j] for i, j in enumerate(order)) / size for order in permutations(range(size))
    )


def _pairings(x, y):
    """All ways to give each feature of the narrower side one of the wider side."""
    p, q = x.shape[1], y.shape[1]
    for order in permutations(range(max(p, q)), min(p, q)):
        pairs = list(enumerate(order))
        yield pairs if p <= q else [(j, i) for i, j in pairs]


def correlation_match(x, y, score="hard"):
    """Li et al. 2015."""
    x, y = (np.asarray(z, np.float64) for z in (x, y))
    r = [[np.corrcoef(a, b)[0, 1] for b in y.T] for a in x.T]
    if score == "hard":
        sums = [(sum(r[i][j] for i, j in pairs), len(pairs)) for pairs in _pairings(x, y)]
        return max(total / count for total, count in sums)
    rows = sum(max(row) for row in r) / len(r)
    columns = sum(max(column) for column in zip(*r, strict=True)) / len(r[0])
    return (rows + columns) / 2


def permutation_procrustes(x, y, score="distance"):
    """The best of all orders of the features, the narrower side filled up with zeros."""
    size = max(x.shape[1], y.shape[1])
    x, y = (np.asarray(z, np.float64) - np.mean(z, axis=0, dtype=float) for z in (x, y))
    x, y = (np.pad(z, ((0, 0), (0, size - z.shape[1]))) for z in (x, y))
    orders = [list(order) for order in permutations(range(size))]
    if score == "distance":
        return min(float(np.linalg.norm(x[:, order] - y)) for order in orders)
    best = max(float((x[:, order] * y).sum()) for order in orders)
    return math.acos(best / np.linalg.norm(x) / np.linalg.norm(y))
