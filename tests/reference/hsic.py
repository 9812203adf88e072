"""HSIC and CKA of Gram matrices, letter by letter from the papers, in float64 loops."""

from itertools import permutations

import numpy as np


def biased_matrices(k, l):  # noqa: E741
    """Gretton et al. 2005, Eq. 9: tr(KHLH)/(n-1)^2 with H written out."""
    n = len(k)
    h = np.eye(n) - np.ones((n, n)) / n
    return float(np.trace(k @ h @ l @ h) / (n - 1) ** 2)


def biased_loops(k, l):  # noqa: E741
    """The same trace, expanded: sum KL - 2/n sum_i K_i. L_i. + K.. L../n^2."""
    n = len(k)
    pairs = rows = total_k = total_l = 0.0
    for i in range(n):
        row_k = row_l = 0.0
        for j in range(n):
            pairs += k[i, j] * l[i, j]
            row_k += k[i, j]
            row_l += l[i, j]
        rows += row_k * row_l
        total_k += row_k
        total_l += row_l
    return float((pairs - 2 / n * rows + total_k * total_l / n**2) / (n - 1) ** 2)


def unbiased_song(k, l):  # noqa: E741
    """Song et al. 2012, Eq. 5, with the diagonals set to zero."""
    n = len(k)
    k = k - np.diag(np.diag(k))
    l = l - np.diag(np.diag(l))  # noqa: E741
    one = np.ones(n)
    return float(
        (
            np.trace(k @ l)
            + (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
            - 2 / (n - 2) * (one @ k @ l @ one)
        )
        / (n * (n - 3))
    )


def unbiased_tuples(k, l):  # noqa: E741
    """The definition: the mean over ordered 4-tuples of different samples. For tiny n."""
    n = len(k)
    total = 0.0
    count = 0
    for i, j, q, r in permutations(range(n), 4):
        total += k[i, j] * l[i, j] + k[i, j] * l[q, r] - 2 * k[i, j] * l[i, q]
        count += 1
    return float(total / count)


def u_centred(k):
    """Szekely & Rizzo 2014, Definition 2, entry by entry."""
    n = len(k)
    out = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if i == j:
                continue
            row = sum(k[i, t] for t in range(n) if t != i)
            column = sum(k[t, j] for t in range(n) if t != j)
            total = sum(k[s, t] for s in range(n) for t in range(n) if s != t)
            out[i, j] = k[i, j] - row / (n - 2) - column / (n - 2) + total / ((n - 1) * (n - 2))
    return out


HSIC = {"biased": biased_matrices, "unbiased": unbiased_song}


def cka(k, l, estimator="biased"):  # noqa: E741
    """Kornblith et al. 2019, Eq. 5."""
    hsic = HSIC[estimator]
    return hsic(k, l) / (np.sqrt(hsic(k, k)) * np.sqrt(hsic(l, l)))


def rv2(x, y):
    """Smilde et al. 2009: the RV coefficient of pairs of different samples."""
    x, y = (np.asarray(z, np.float64) - np.mean(z, axis=0, dtype=float) for z in (x, y))
    xy = xx = yy = 0.0
    for i, j in permutations(range(len(x)), 2):
        k, l = float(x[i] @ x[j]), float(y[i] @ y[j])  # noqa: E741
        xy, xx, yy = xy + k * l, xx + k * k, yy + l * l
    return xy / (xx * yy) ** 0.5
