"""Moments of an estimator by chance: over permutations of the samples of one side."""

from __future__ import annotations

__all__ = ["permutation_variance"]


def permutation_variance(n: int) -> float:
    """Return the variance of unbiased CKA over all n! permutations of y's samples: 2/(n(n−3)).

    It is exact for any data, and the mean is exactly zero. U-centred Grams have a zero diagonal and
    zero row sums. Over different indices, Σ A_ij A_kl is therefore ‖A‖² for the same ordered pair,
    −‖A‖² for one shared index and 2‖A‖² for none. With the same sums of B and the number of index
    tuples of each kind, Var⟨A, B_π⟩ = 2‖A‖²‖B‖²/(n(n−3)).

    Parameters
    ----------
    n : int
        Samples, at least 4.
    """
    return 2 / (n * (n - 3))
