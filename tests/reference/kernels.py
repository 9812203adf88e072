"""Gram matrices, one entry at a time, in float64."""

import math

import numpy as np


def _gram(x, entry):
    x = np.asarray(x, dtype=np.float64)
    n = len(x)
    out = np.empty((n, n))
    for i in range(n):
        for j in range(n):
            out[i, j] = entry(x[i], x[j])
    return out


def _squared(a, b):
    return float(((a - b) ** 2).sum())


def _median(distances, convention):
    n = len(distances)
    entries = sorted(
        distances[i, j] for i in range(n) for j in range(n) if convention == "all" or i != j
    )
    size = len(entries)
    return (entries[(size - 1) // 2] + entries[size // 2]) / 2


def centred(x):
    """The features minus their means: what linear HSIC does not depend on."""
    x = np.asarray(x, dtype=np.float64)
    return x - x.mean(axis=0)


def linear(x):
    return _gram(x, lambda a, b: float(a @ b))


def rbf(x, fraction=1.0, median="all"):
    """Kornblith et al. 2019: exp(-d^2/(2 f^2 median(d^2)))."""
    squared = _gram(x, _squared)
    return np.exp(-squared / (2 * fraction**2 * _median(squared, median)))


def rbf_fixed(x, sigma):
    return np.exp(-_gram(x, _squared) / (2 * sigma**2))


def laplacian(x):
    distances = np.sqrt(_gram(x, _squared))
    return np.exp(-distances / _median(distances, "off_diagonal"))


def laplacian_fixed(x, sigma):
    return np.exp(-np.sqrt(_gram(x, _squared)) / sigma)


def polynomial(x, degree=2, gamma=None, coef0=1.0):
    gamma = 1 / np.shape(x)[1] if gamma is None else gamma
    return _gram(x, lambda a, b: (gamma * float(a @ b) + coef0) ** degree)


def cosine(x):
    return _gram(x, lambda a, b: float(a @ b) / math.sqrt(float(a @ a)) / math.sqrt(float(b @ b)))


KERNELS = {
    "linear": linear,
    "rbf": rbf,
    "laplacian": laplacian,
    "polynomial": polynomial,
    "cosine": cosine,
}
