"""Measures of nearest neighbours, one sample at a time, in float64; ties are the caller's care."""

import math

import numpy as np


def cosine(a, b):
    return float(a @ b) / math.sqrt(float(a @ a)) / math.sqrt(float(b @ b))


def nearest(x, k, metric="cosine"):
    """The set of the k nearest samples of each, by sorting."""
    x = np.asarray(x, np.float64)
    out = []
    for i in range(len(x)):
        far = [
            (1 - cosine(x[i], x[j]) if metric == "cosine" else math.dist(x[i], x[j]), j)
            for j in range(len(x))
            if j != i
        ]
        out.append({j for _, j in sorted(far)[:k]})
    return out


def mutual(x, y, k, metric="cosine"):
    """Huh et al. 2024, appendix A."""
    pairs = zip(nearest(x, k, metric), nearest(y, k, metric), strict=True)
    return sum(len(a & b) / k for a, b in pairs) / len(x)


def jaccard(x, y, k, metric="cosine"):
    """Klabunde et al. 2023, section 3.5."""
    pairs = zip(nearest(x, k, metric), nearest(y, k, metric), strict=True)
    return sum(len(a & b) / len(a | b) for a, b in pairs) / len(x)


def second_order(x, y, k):
    """Hamilton et al. 2016, over the union of both neighbourhoods."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    total = 0.0
    for i, (a, b) in enumerate(zip(nearest(x, k), nearest(y, k), strict=True)):
        union = sorted(a | b)
        s = np.array([cosine(x[i], x[j]) for j in union])
        t = np.array([cosine(y[i], y[j]) for j in union])
        total += cosine(s, t)
    return total / len(x)


def song_products(a, b):
    """Song et al. 2012, Eq. 5, in its published form, for matrices that may be asymmetric."""
    n = len(a)
    a, b = a - np.diag(np.diag(a)), b - np.diag(np.diag(b))
    one = np.ones(n)
    trace = sum(a[i, j] * b[j, i] for i in range(n) for j in range(n))
    return (
        trace
        + (one @ a @ one) * (one @ b @ one) / ((n - 1) * (n - 2))
        - 2 / (n - 2) * (one @ (a @ b) @ one)
    ) / (n * (n - 3))


def cknna(x, y, k):
    """Huh et al. 2024, appendix A, with the masks written out."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    n = len(x)
    near_x, near_y = nearest(x, k), nearest(y, k)

    def masked(z, *neighbourhoods):
        return np.array(
            [
                [
                    cosine(z[i], z[j]) if all(j in near[i] for near in neighbourhoods) else 0.0
                    for j in range(n)
                ]
                for i in range(n)
            ]
        )

    both = song_products(masked(x, near_x, near_y), masked(y, near_x, near_y))
    own = [
        song_products(masked(z, near), masked(z, near)) for z, near in ((x, near_x), (y, near_y))
    ]
    return both / math.sqrt(own[0] * own[1])


def information_imbalance(x, y):
    """Glielmo et al. 2022; samples at the same distance share the mean of their ranks."""
    x, y = (np.asarray(z, np.float64) for z in (x, y))
    n, total = len(x), 0.0
    for i in range(n):
        far_x = {j: math.dist(x[i], x[j]) for j in range(n) if j != i}
        far_y = {j: math.dist(y[i], y[j]) for j in range(n) if j != i}
        nearest_ones = [j for j in far_x if far_x[j] == min(far_x.values())]
        ranks = [
            sum(d < far_y[j] for d in far_y.values())
            + (sum(d == far_y[j] for d in far_y.values()) + 1) / 2
            for j in nearest_ones
        ]
        total += sum(ranks) / len(ranks)
    return 2 * total / n**2
