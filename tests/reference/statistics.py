"""Numbers of one representation and their differences, sample by sample, in float64."""

import math

import numpy as np


def magnitude(x):
    return math.hypot(*(sum(column) / len(x) for column in np.asarray(x, np.float64).T.tolist()))


def uniformity(x, t=2.0):
    x = np.asarray(x, np.float64)
    terms = [math.exp(-t * math.dist(a, b) ** 2) for a in x for b in x]
    return math.log(sum(terms) / len(terms))


def concentricity(x):
    x = np.asarray(x, np.float64)
    mean = x.mean(axis=0)
    cosines = [float(a @ mean) / math.hypot(*a) / math.hypot(*mean) for a in x]
    return sum(cosines) / len(cosines)


def difference(number):
    """The absolute difference of a number of two representations."""
    return lambda x, y, **options: abs(number(x, **options) - number(y, **options))


def effective_dimension(x):
    """By the variances of the principal components."""
    variances = np.linalg.eigvalsh(np.cov(np.asarray(x, np.float64), rowvar=False))
    return float(sum(variances)) ** 2 / float(sum(v * v for v in variances))
