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
