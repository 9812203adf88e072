"""Data whose values are known, and how far rounding may move a value."""

import math

import numpy as np


def oracle():
    """X (10, 3) and Y (10, 4), for which every value was checked by brute force."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((10, 3))
    w = np.array([[1.0, 0.5, 0, 0], [-0.3, 0.8, 0, 0], [0, 0, 1, 0]])
    y = x @ w + 0.5 * rng.standard_normal((10, 4))
    return x, y


def kornblith_demo():
    """The two representations (100, 10) of the demo published with Kornblith et al. 2019."""
    state = np.random.RandomState(1337)
    x = state.randn(100, 10)
    return x, state.randn(100, 10) + x


def related(n, p, q, seed=0):
    """Two representations that share half of their variance, with different column scales."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((n, max(p, q)))
    x = common[:, :p] + rng.standard_normal((n, p))
    y = common[:, :q] + rng.standard_normal((n, q))
    return x * np.linspace(0.5, 2, p), y * np.linspace(2, 0.5, q)


def rounding(eps, terms):
    """The error of a ratio of sums of products of ``terms`` terms each.

    Rounding errors add like a random walk, sqrt(terms) eps; the 8 is for the few such steps
    (mean, product, centring, the three sums, the quotient) one after the other.
    """
    return 8 * eps * math.sqrt(terms)
