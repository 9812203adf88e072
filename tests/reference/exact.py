"""CKA matrices from whole Grams in float64, by plain loops."""

import math

import numpy as np

from reference.hsic import unbiased_song
from reference.kernels import linear


def biased_trace(k, l):  # noqa: E741
    """tr(KHLH), by the definition."""
    n = len(k)
    h = np.eye(n) - np.ones((n, n)) / n
    return float(np.trace(k @ h @ l @ h))


def cka_matrix(xs, ys=None, kernel=linear, estimator="unbiased"):
    """All layer pairs, an n×n Gram for each."""
    hsic = unbiased_song if estimator == "unbiased" else biased_trace

    def grams(layers):
        return [kernel(np.asarray(x, dtype=np.float64).reshape(len(x), -1)) for x in layers]

    left = grams(xs.values())
    right = left if ys is None else grams(ys.values())
    return np.array(
        [
            [hsic(k, other) / math.sqrt(hsic(k, k) * hsic(other, other)) for other in right]
            for k in left
        ]
    )
