"""Permutation tests and jackknives, by doing what they say: every permutation, every deletion."""

import math
from itertools import permutations

import numpy as np

from reference import hsic


def rearranged(k, order):
    """The Gram of the same samples in another order, entry by entry."""
    n = len(k)
    out = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            out[i, j] = k[order[i], order[j]]
    return out


def all_permuted(k, l, estimator):  # noqa: E741
    """CKA for every one of the n! orders of the second side."""
    return np.array(
        [hsic.cka(k, rearranged(l, order), estimator) for order in permutations(range(len(l)))]
    )


def p_value(k, l, estimator, orders):  # noqa: E741
    """(b + 1)/(m + 1), equal values counted."""
    observed = hsic.cka(k, l, estimator)
    b = sum(hsic.cka(k, rearranged(l, o), estimator) >= observed - 1e-12 for o in orders)
    return (b + 1) / (len(orders) + 1)


def without(gram, rows):
    """The Gram of the samples that are not among the rows."""
    left = [i for i in range(len(gram)) if i not in set(rows)]
    return gram[np.ix_(left, left)]


def jackknife(k, l, groups):  # noqa: E741
    """CKA without each group, and the standard error of Busing et al. 1999 from pseudo-values."""
    n, g = len(k), len(groups)
    value = hsic.cka(k, l, "unbiased")
    left = [hsic.cka(without(k, rows), without(l, rows), "unbiased") for rows in groups]
    estimate = g * value
    for rows, theta in zip(groups, left, strict=True):
        estimate -= (1 - len(rows) / n) * theta
    variance = 0.0
    for rows, theta in zip(groups, left, strict=True):
        h = n / len(rows)
        pseudo = h * value - (h - 1) * theta
        variance += (pseudo - estimate) ** 2 / (h - 1)
    return np.array(left), math.sqrt(variance / g)


def minibatch_z(xs, ys, kernel):
    """Σ_b ⟨A_b, B_b⟩ over the root of its variance under all permutations within each batch."""
    total = variance = 0.0
    for x, y in zip(xs, ys, strict=True):
        a, b = hsic.u_centred(kernel(x)), hsic.u_centred(kernel(y))
        total += (a * b).sum()
        every = [(a * rearranged(b, o)).sum() for o in permutations(range(len(b)))]
        variance += np.var(every)
    return total / math.sqrt(variance)
