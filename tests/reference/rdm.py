"""Dissimilarity matrices, their comparison, and distance correlation, pair by pair, in float64."""

import itertools
import math

import numpy as np

from reference.neighbours import cosine

DISSIMILARITY = {
    "euclidean": math.dist,
    "correlation": lambda a, b: 1 - cosine(a - a.mean(), b - b.mean()),
    "cosine": lambda a, b: 1 - cosine(a, b),
    "sqeuclidean": lambda a, b: math.dist(a, b) ** 2,
}


def entries(x, rdm="euclidean"):
    """The RDM above its diagonal, row by row."""
    x = np.asarray(x, np.float64)
    n = len(x)
    return np.array([DISSIMILARITY[rdm](x[i], x[j]) for i in range(n) for j in range(i + 1, n)])


def ranks(values):
    """From 1 on; equal values share the mean of their ranks."""
    return np.array(
        [sum(w < v for w in values) + (sum(w == v for w in values) + 1) / 2 for v in values]
    )


def pearson(a, b):
    return cosine(a - a.mean(), b - b.mean())


def rho_a(a, b):
    """The mean of Spearman's correlation over all orders of equal entries, term by term."""
    r, s, m = ranks(a), ranks(b), len(a)
    middle = (m + 1) / 2
    return 12 * sum((u - middle) * (v - middle) for u, v in zip(r, s, strict=True)) / (m**3 - m)


def concordance(a, b):
    """Concordant minus discordant pairs of entries, and the pairs untied in a and in b."""
    pairs = list(itertools.combinations(range(len(a)), 2))
    signs = [(np.sign(a[i] - a[j]), np.sign(b[i] - b[j])) for i, j in pairs]
    return (
        sum(s * t for s, t in signs),
        sum(abs(s) for s, _ in signs),
        sum(abs(t) for _, t in signs),
    )


def kendall(a, b):
    """τ_b."""
    difference, untied_a, untied_b = concordance(a, b)
    return difference / math.sqrt(untied_a * untied_b)


def kendall_a(a, b):
    return concordance(a, b)[0] / (len(a) * (len(a) - 1) / 2)


def whitened(a, b):
    """Diedrichsen et al. 2020 with the whole matrix V of the pairs' covariances."""
    m = len(a)
    n = (1 + math.isqrt(1 + 8 * m)) // 2
    contrasts = np.zeros((m, n))
    for row, (i, j) in enumerate(itertools.combinations(range(n), 2)):
        contrasts[row, i], contrasts[row, j] = 1, -1
    inverse = np.linalg.inv((contrasts @ contrasts.T) ** 2)
    a, b = a - a.mean(), b - b.mean()
    return float(a @ inverse @ b / math.sqrt((a @ inverse @ a) * (b @ inverse @ b)))


def crossnobis(x, precision):
    """Walther et al. 2016: over all ordered pairs of different repeats, x (n, r, p)."""
    n, r, p = x.shape
    out = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            for a in range(r):
                for b in range(r):
                    if a != b:
                        out[i, j] += (x[i, a] - x[j, a]) @ precision @ (x[i, b] - x[j, b])
    return out / (r * (r - 1) * p)


COMPARISON = {
    "whitened": whitened,
    "rho_a": rho_a,
    "kendall": kendall,
    "kendall_a": kendall_a,
    "pearson": pearson,
    "spearman": lambda a, b: pearson(ranks(a), ranks(b)),
    "cosine": cosine,
}


def rsa(x, y, rdm="euclidean", comparison="spearman"):
    """Kriegeskorte et al. 2008."""
    return COMPARISON[comparison](entries(x, rdm), entries(y, rdm))


def with_missing(a, b, comparison):
    """The comparison over the entries that neither side lacks."""
    pairs = [(s, t) for s, t in zip(a, b, strict=True) if not (math.isnan(s) or math.isnan(t))]
    return COMPARISON[comparison](*map(np.array, zip(*pairs, strict=True)))


def distances(x):
    x = np.asarray(x, np.float64)
    return np.array([[math.dist(a, b) for b in x] for a in x])


def distance_correlation(x, y):
    """Szekely, Rizzo, Bakirov 2007, Eqs. 2.8 to 2.10, squared."""

    def centred(d):
        n = len(d)
        return np.array(
            [
                [d[i, j] - d[i].sum() / n - d[:, j].sum() / n + d.sum() / n**2 for j in range(n)]
                for i in range(n)
            ]
        )

    a, b = centred(distances(x)), centred(distances(y))
    return float((a * b).sum() / math.sqrt((a * a).sum()) / math.sqrt((b * b).sum()))


def bias_corrected(x, y):
    """Szekely & Rizzo 2013, Eqs. 2.4 to 2.7: another form than U-centring, by A* and U*."""

    def modified(d):
        n = len(d)
        rows, total = d.sum(axis=1) / n, d.sum() / n**2
        out = np.empty((n, n))
        for i in range(n):
            for j in range(n):
                if i == j:
                    out[i, j] = n / (n - 1) * (rows[i] - total)
                else:
                    out[i, j] = n / (n - 1) * (d[i, j] - rows[i] - rows[j] + total - d[i, j] / n)
        return out

    def u(a, b):
        n = len(a)
        off = sum(a[i, j] * b[i, j] for i in range(n) for j in range(n) if i != j)
        on = sum(a[i, i] * b[i, i] for i in range(n))
        return off - 2 / (n - 2) * on

    a, b = modified(distances(x)), modified(distances(y))
    return u(a, b) / math.sqrt(u(a, a) * u(b, b))


def norm_difference(x, y, norm):
    """Klabunde et al. 2023; the spectral norm by 3000 steps of the power method."""
    d = distances(x) - distances(y)
    if norm == "frobenius":
        return math.sqrt(sum(float(v) ** 2 for row in d for v in row))
    v = np.random.default_rng(0).standard_normal(len(d))
    for _ in range(3000):  # of the square, whose eigenvalues have one sign
        v = d @ (d @ v)
        v /= np.linalg.norm(v)
    return math.sqrt(float(v @ (d @ (d @ v))))
