"""Noise ceilings and the bootstrap of RSA by plain loops, in float64."""

import math

import numpy as np

from reference import rdm
from reference.neighbours import cosine

PREPARED = {
    "pearson": lambda d: (d - d.mean()) / np.linalg.norm(d - d.mean()),
    "cosine": lambda d: d / np.linalg.norm(d),
    "spearman": rdm.ranks,
    "rho_a": rdm.ranks,
    "kendall": rdm.ranks,
    "kendall_a": rdm.ranks,
}

COMPARED = {
    "pearson": rdm.pearson,
    "cosine": cosine,
    "spearman": lambda a, b: rdm.pearson(rdm.ranks(a), rdm.ranks(b)),
    "rho_a": rdm.rho_a,
    "kendall": rdm.kendall,
    "kendall_a": rdm.kendall_a,
}


def ceiling_of_rdms(rdms, comparison):
    """Nili et al. 2014: (with the average of the others, with the average of all) of each RDM."""
    prepared = [PREPARED[comparison](d) for d in rdms]
    everyone = sum(prepared) / len(prepared)
    out = []
    for r, d in enumerate(rdms):
        others = [e for s, e in enumerate(prepared) if s != r]
        left = sum(others) / len(others)
        out.append((COMPARED[comparison](d, left), COMPARED[comparison](d, everyone)))
    return np.array(out).T


def ceiling_of_features(repeats, measure):
    """The same of averages of the features themselves."""
    out = []
    for r, x in enumerate(repeats):
        others = [e for s, e in enumerate(repeats) if s != r]
        left = sum(others) / len(others)
        out.append((measure(x, left), measure(x, sum(repeats) / len(repeats))))
    return np.array(out).T


def resampled_rsa(a, b, drawn, comparison):
    """RSA of two square RDMs over conditions with copies, without the pairs of a condition and
    its own copy."""
    pairs = [(i, j) for k, i in enumerate(drawn) for j in drawn[k + 1 :] if i != j]
    return COMPARED[comparison](
        np.array([a[i, j] for i, j in pairs]), np.array([b[i, j] for i, j in pairs])
    )


def variance_of_two_factors(both, conditions, subjects, n, r):
    """Schütt et al. 2023: of the mean over r subjects and n conditions, from three bootstraps."""
    f, g = r / (r - 1), n / (n - 1)
    corrected = f * subjects + g * conditions - f * g * (both - subjects - conditions)
    return max(corrected, f * subjects, g * conditions)


def fisher_ends(value, error, quantile):
    z = math.atanh(value)
    return math.tanh(z - quantile * error), math.tanh(z + quantile * error)
