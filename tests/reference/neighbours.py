"""Measures of nearest neighbours, one sample at a time, in float64; ties are the caller's care."""

import itertools
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


def ordered(x, k, metric="cosine"):
    """The list of the k nearest samples of each, nearest first; no ties."""
    x = np.asarray(x, np.float64)
    out = []
    for i in range(len(x)):
        far = [
            (1 - cosine(x[i], x[j]) if metric == "cosine" else math.dist(x[i], x[j]), j)
            for j in range(len(x))
            if j != i
        ]
        out.append([j for _, j in sorted(far)[:k]])
    return out


def pairs_of_lists(x, y, k, metric):
    return list(zip(ordered(x, k, metric), ordered(y, k, metric), strict=True))


def rank_term(a, b):
    """Wang et al. 2020: the term of one sample."""
    both = set(a) & set(b)
    if not both:
        return 0.0
    total = 0.0
    for j in both:
        r, s = a.index(j) + 1, b.index(j) + 1
        total += 2 / ((1 + abs(r - s)) * (r + s))
    return total / sum(1 / m for m in range(1, len(both) + 1))


def rank_similarity(x, y, k, metric="cosine"):
    return sum(rank_term(a, b) for a, b in pairs_of_lists(x, y, k, metric)) / len(x)


def joint_rank_jaccard(x, y, k, metric="cosine"):
    pairs = pairs_of_lists(x, y, k, metric)
    return sum(
        len(set(a) & set(b)) / len(set(a) | set(b)) * rank_term(a, b) for a, b in pairs
    ) / len(x)


def cycle(x, y, k, metric="cosine"):
    near_x, near_y = nearest(x, k, metric), nearest(y, k, metric)
    return sum(any(i in near_x[j] for j in near_y[i]) for i in range(len(x))) / len(x)


def longest_common(a, b):
    if not a or not b:
        return 0
    if a[0] == b[0]:
        return 1 + longest_common(a[1:], b[1:])
    return max(longest_common(a[1:], b), longest_common(a, b[1:]))


def lcs(x, y, k, metric="cosine"):
    return sum(longest_common(a, b) for a, b in pairs_of_lists(x, y, k, metric)) / len(x)


def levenshtein(a, b):
    if not a or not b:
        return len(a) + len(b)
    if a[0] == b[0]:
        return levenshtein(a[1:], b[1:])
    return 1 + min(levenshtein(a[1:], b), levenshtein(a, b[1:]), levenshtein(a[1:], b[1:]))


def edit(x, y, k, metric="cosine"):
    pairs = pairs_of_lists(x, y, k, metric)
    return 1 - sum(levenshtein(a, b) for a, b in pairs) / len(x) / k


def tied(x, i, k):
    """The weight and the place of each neighbour of sample i, for exact Euclidean ties."""
    far = {j: float(((x[i] - x[j]) ** 2).sum()) for j in range(len(x)) if j != i}
    edge = sorted(far.values())[k - 1]
    nearer = sum(d < edge for d in far.values())
    last = sum(d == edge for d in far.values())
    weight = {j: 1.0 if d < edge else (k - nearer) / last for j, d in far.items() if d <= edge}
    return weight, {j: place(j, far, weight) for j in weight}


def place(j, far, weight):
    """The mean of the places that the neighbours at the same distance fill."""
    before = sum(w for other, w in weight.items() if far[other] < far[j])
    with_it = sum(w for other, w in weight.items() if far[other] == far[j])
    return before + (with_it + 1) / 2


def distances(x, i):
    return {j: float(((x[i] - x[j]) ** 2).sum()) for j in range(len(x)) if j != i}


def tied_terms(x, y, i, k):
    """Rank similarity, LCS and edit similarity of sample i with ties, over all subsets."""
    (u, r), (v, s) = tied(x, i, k), tied(y, i, k)
    weight = {j: min(u[j], v[j]) for j in u if j in v}
    if not weight:
        return 0.0, 0.0, 0.0
    found = sum(w * 2 / ((1 + abs(r[j] - s[j])) * (r[j] + s[j])) for j, w in weight.items())
    far_x, far_y = distances(x, i), distances(y, i)
    most = sum(w / place(j, far, weight) / 2 for far in (far_x, far_y) for j, w in weight.items())
    chain, edits = 0.0, 0.0
    for size in range(1, len(weight) + 1):
        for some in itertools.combinations(weight, size):
            if any((r[a] - r[b]) * (s[a] - s[b]) < 0 for a in some for b in some):
                continue
            mass = sum(weight[j] for j in some)
            steps = [0.0, *(r[j] - s[j] for j in sorted(some, key=lambda j: (r[j], s[j]))), 0.0]
            change = sum(abs(b - a) for a, b in itertools.pairwise(steps))
            chain, edits = max(chain, mass), max(edits, mass - change / 2)
    return found / most, chain, edits / k
