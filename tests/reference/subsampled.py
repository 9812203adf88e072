"""CKA of sampled features, as a mean over pairs of different features, in float64."""

import math

import numpy as np

from reference import hsic


def self_term(x, estimator):
    """The mean over ordered pairs of different features of the HSIC of their Grams."""
    x = np.asarray(x, np.float64)
    x = x - x.mean(axis=0)
    p = x.shape[1]
    grams = [np.outer(x[:, a], x[:, a]) for a in range(p)]
    pairs = [(a, b) for a in range(p) for b in range(p) if a != b]
    return sum(hsic.HSIC[estimator](grams[a], grams[b]) for a, b in pairs) / len(pairs)


def cka(x, y, estimator):
    """Chun et al. 2025: features of x and of y drawn from two populations."""
    x, y = (np.asarray(z, np.float64) - np.mean(z, axis=0, dtype=float) for z in (x, y))
    k, l = x @ x.T / x.shape[1], y @ y.T / y.shape[1]  # noqa: E741
    return hsic.HSIC[estimator](k, l) / math.sqrt(self_term(x, estimator) * self_term(y, estimator))
