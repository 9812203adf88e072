"""The formulas of the measures as plain loops in 60 digits, for `truth.py`.

The inputs are taken as the exact numbers that they hold, so equal distances are equal, and what
float64 rounds away is there. Two numbers count as equal if they differ by less than 1e-40 of their
size, because roots and quotients are rounded to 60 digits.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from mpmath import mp, mpf
from scipy.optimize import linear_sum_assignment

import _peer_functions as functions

__all__ = ["truth"]

mp.dps = 60
SAME = mpf(10) ** -40

Rows = list[list[Any]]


def truth(measure: str, options: Mapping[str, Any], x: np.ndarray, y: np.ndarray) -> float:
    """Return the value of a measure, or NaN where its formula divides by zero."""
    try:
        return float(FORMULAS[measure](exact(x), exact(y), **options))
    except ZeroDivisionError:
        return float("nan")


def exact(x: np.ndarray) -> Rows:
    return [[mpf(float(value)) for value in row] for row in x]


def dot(a: Sequence[Any], b: Sequence[Any]) -> Any:
    return mp.fsum(u * v for u, v in zip(a, b, strict=True))


def columns(x: Rows) -> Rows:
    return [list(column) for column in zip(*x, strict=True)]


def centred(x: Rows) -> Rows:
    means = [mp.fsum(column) / len(x) for column in columns(x)]
    return [[value - mean for value, mean in zip(row, means, strict=True)] for row in x]


def same(a: Any, b: Any) -> bool:
    return bool(abs(a - b) <= SAME * (abs(a) + abs(b)))


# Grams


def linear(x: Rows) -> Rows:
    x = centred(x)
    return [[dot(a, b) for b in x] for a in x]


def squares(x: Rows) -> Rows:
    return [[mp.fsum((u - v) ** 2 for u, v in zip(a, b, strict=True)) for b in x] for a in x]


def rbf(x: Rows, median: str = "all") -> Rows:
    d = squares(x)
    n = len(d)
    ordered = sorted(d[i][j] for i in range(n) for j in range(n) if median == "all" or i != j)
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    return [[mp.exp(-value / (2 * middle)) for value in row] for row in d]


def double_centred(k: Rows) -> Rows:
    n = len(k)
    rows = [mp.fsum(row) / n for row in k]
    mean = mp.fsum(rows) / n
    return [[k[i][j] - rows[i] - rows[j] + mean for j in range(n)] for i in range(n)]


def hsic(k: Rows, l: Rows, estimator: str) -> Any:  # noqa: E741
    """Up to the divisor: tr(KHLH), or Song et al. 2012, Eq. 5."""
    n = len(k)
    if estimator == "biased":
        return mp.fsum(dot(a, b) for a, b in zip(double_centred(k), double_centred(l), strict=True))
    k, l = ([[0 if i == j else g[i][j] for j in range(n)] for i in range(n)] for g in (k, l))  # noqa: E741
    rows = [[mp.fsum(row) for row in g] for g in (k, l)]
    trace = mp.fsum(dot(a, b) for a, b in zip(k, l, strict=True))
    whole = mp.fsum(rows[0]) * mp.fsum(rows[1])
    return trace + whole / ((n - 1) * (n - 2)) - 2 * dot(*rows) / (n - 2)


def aligned(k: Rows, l: Rows, estimator: str) -> Any:  # noqa: E741
    return hsic(k, l, estimator) / mp.sqrt(hsic(k, k, estimator) * hsic(l, l, estimator))


def cka(x: Rows, y: Rows, estimator: str = "biased", kernel: Any = "linear") -> Any:
    gram: Callable[[Rows], Rows] = linear
    if kernel == "rbf":
        gram = rbf
    elif kernel != "linear":
        gram = lambda z: rbf(z, kernel.median)  # noqa: E731
    return aligned(gram(x), gram(y), estimator)


def distance_correlation(x: Rows, y: Rows, estimator: str = "biased") -> Any:
    a, b = ([[mp.sqrt(value) for value in row] for row in squares(z)] for z in (x, y))
    return aligned(a, b, estimator)


# Dissimilarities


def cosine(a: Sequence[Any], b: Sequence[Any]) -> Any:
    return dot(a, b) / mp.sqrt(dot(a, a) * dot(b, b))


def correlation(a: Sequence[Any], b: Sequence[Any]) -> Any:
    return cosine(*([v - mp.fsum(z) / len(z) for v in z] for z in (a, b)))


DISSIMILARITY: dict[str, Callable[[Any, Any], Any]] = {
    "sqeuclidean": lambda a, b: mp.fsum((u - v) ** 2 for u, v in zip(a, b, strict=True)),
    "euclidean": lambda a, b: mp.sqrt(DISSIMILARITY["sqeuclidean"](a, b)),
    "correlation": lambda a, b: 1 - correlation(a, b),
    "cosine": lambda a, b: 1 - cosine(a, b),
}


def ranks(values: Sequence[Any]) -> list[Any]:
    order = sorted(range(len(values)), key=values.__getitem__)
    out: list[Any] = [0] * len(values)
    start = 0
    while start < len(order):
        end = start + 1
        while end < len(order) and same(values[order[end]], values[order[start]]):
            end += 1
        for at in order[start:end]:
            out[at] = mpf(start + end + 1) / 2
        start = end
    return out


def concordance(a: Sequence[Any], b: Sequence[Any]) -> tuple[int, int, int]:
    """Concordant minus discordant pairs, and the pairs untied on each side, of ranks."""
    r, s = (np.array([float(value) for value in z]) for z in (ranks(a), ranks(b)))
    signs = [np.sign(z[:, None] - z)[np.triu_indices(len(z), 1)] for z in (r, s)]
    return int(signs[0] @ signs[1]), int(np.abs(signs[0]).sum()), int(np.abs(signs[1]).sum())


def kendall(a: Sequence[Any], b: Sequence[Any]) -> Any:
    difference, one, other = concordance(a, b)
    return difference / mp.sqrt(mpf(one) * other)


def rho_a(a: Sequence[Any], b: Sequence[Any]) -> Any:
    m = len(a)
    r, s = ([rank - mpf(m + 1) / 2 for rank in ranks(z)] for z in (a, b))
    return 12 * dot(r, s) / (mpf(m) ** 3 - m)


def whitened(a: Sequence[Any], b: Sequence[Any]) -> Any:
    """With V⁻¹ by its action: the doubly centred matrices (Diedrichsen et al. 2020)."""
    m = len(a)
    n = round((1 + (1 + 8 * m) ** 0.5) / 2)
    sides = []
    for z in (a, b):
        mean = mp.fsum(z) / m
        matrix = [[mpf(0)] * n for _ in range(n)]
        for (i, j), value in zip(itertools.combinations(range(n), 2), z, strict=True):
            matrix[i][j] = matrix[j][i] = value - mean
        sides.append([value for row in double_centred(matrix) for value in row])
    return cosine(*sides)


COMPARISON: dict[str, Callable[[Any, Any], Any]] = {
    "spearman": lambda a, b: correlation(ranks(a), ranks(b)),
    "rho_a": rho_a,
    "kendall": kendall,
    "kendall_a": lambda a, b: mpf(concordance(a, b)[0]) / (len(a) * (len(a) - 1) / 2),
    "pearson": correlation,
    "cosine": cosine,
    "whitened": whitened,
}


def rsa(x: Rows, y: Rows, rdm: str = "euclidean", comparison: str = "spearman") -> Any:
    a, b = ([DISSIMILARITY[rdm](u, v) for u, v in itertools.combinations(z, 2)] for z in (x, y))
    return COMPARISON[comparison](a, b)


# Neighbours


def weights(x: Rows, k: int, metric: str) -> list[dict[int, Any]]:
    """The weight of each neighbour; those as far as the k-th share the places that are left."""
    out = []
    for i, row in enumerate(x):
        far = {j: DISSIMILARITY[metric](row, other) for j, other in enumerate(x) if j != i}
        edge = sorted(far.values())[k - 1]
        tied = [j for j, d in far.items() if same(d, edge)]
        nearer = [j for j, d in far.items() if d < edge and j not in tied]
        share = mpf(k - len(nearer)) / len(tied)
        out.append(dict.fromkeys(nearer, mpf(1)) | dict.fromkeys(tied, share))
    return out


def mutual_knn(x: Rows, y: Rows, metric: str = "cosine", *, jaccard: bool = False) -> Any:
    k = min(functions.K, len(x) - 2)
    terms = []
    for a, b in zip(weights(x, k, metric), weights(y, k, metric), strict=True):
        both = mp.fsum(min(a[j], b[j]) for j in a if j in b)
        terms.append(both / (2 * k - both if jaccard else k))
    return mp.fsum(terms) / len(x)


# Features


def singular_values(x: Rows, y: Rows) -> Any:
    product = mp.matrix([[dot(a, b) for b in columns(y)] for a in columns(x)])
    return mp.svd_r(product, compute_uv=False)


def norm(x: Rows) -> Any:
    return mp.sqrt(mp.fsum(dot(row, row) for row in x))


def nbs(x: Rows, y: Rows) -> Any:
    x, y = centred(x), centred(y)
    return mp.fsum(singular_values(x, y)) / (norm(x) * norm(y))


def procrustes(x: Rows, y: Rows) -> Any:
    x, y = centred(x), centred(y)
    return mp.sqrt(norm(x) ** 2 + norm(y) ** 2 - 2 * mp.fsum(singular_values(x, y)))


def basis(x: Rows) -> Rows:
    """Rows of an orthonormal basis of the columns, by Gram–Schmidt twice, largest column first."""
    left = columns(x)
    largest = max(mp.sqrt(dot(a, a)) for a in left)
    out: Rows = []
    while left:
        left.sort(key=lambda a: dot(a, a))
        a = left.pop()
        size = mp.sqrt(dot(a, a))
        if size <= mpf(10) ** -13 * largest:  # the inputs have no more digits
            break
        a = [value / size for value in a]
        out.append(a)
        for _ in range(2):
            left = [
                [u - share * v for u, v in zip(b, a, strict=True)]
                for b in left
                for share in [dot(a, b)]
            ]
    return out


def cca(x: Rows, y: Rows) -> Any:
    u, v = basis(centred(x)), basis(centred(y))
    values = singular_values(columns(u), columns(v))
    return mp.fsum(values) / min(len(u), len(v))


def linear_regression_r2(x: Rows, y: Rows) -> Any:
    """Of x from y."""
    x = centred(x)
    fitted = mp.fsum(dot(a, u) ** 2 for a in columns(x) for u in basis(centred(y)))
    return fitted / norm(x) ** 2


def eigenspace_overlap(x: Rows, y: Rows) -> Any:
    u, v = basis(x), basis(y)
    return mp.fsum(dot(a, b) ** 2 for a in u for b in v) / max(len(u), len(v))


def correlation_match(x: Rows, y: Rows) -> Any:
    r = [[correlation(a, b) for b in columns(y)] for a in columns(x)]
    pairs = zip(*linear_sum_assignment(np.array(r, float), maximize=True), strict=True)
    return mp.fsum(r[i][j] for i, j in pairs) / min(len(r), len(r[0]))


def soft_matching(x: Rows, y: Rows) -> Any:
    """For as many features on both sides, by an assignment; else each feature is repeated."""
    a, b = columns(centred(x)), columns(centred(y))
    cost = [[DISSIMILARITY["sqeuclidean"](u, v) for v in b] for u in a]
    p, q = len(a), len(b)
    whole = [[cost[i // q][j // p] for j in range(p * q)] for i in range(p * q)]
    if p == q:
        whole = cost
    scale = max(max(row) for row in cost)
    pairs = zip(
        *linear_sum_assignment(np.array([[float(v / scale) for v in row] for row in whole])),
        strict=True,
    )
    return mp.sqrt(mp.fsum(whole[i][j] for i, j in pairs) / len(whole))


FORMULAS: dict[str, Callable[..., Any]] = {
    "cka": cka,
    "distance_correlation": distance_correlation,
    "rsa": rsa,
    "mutual_knn": mutual_knn,
    "jaccard_knn": lambda x, y: mutual_knn(x, y, jaccard=True),
    "nbs": nbs,
    "procrustes": procrustes,
    "shape_distance": lambda x, y: mp.acos(nbs(x, y)),
    "cca": cca,
    "linear_regression_r2": linear_regression_r2,
    "eigenspace_overlap": eigenspace_overlap,
    "correlation_match": correlation_match,
    "soft_matching": soft_matching,
}
