"""Self-HSIC of a population of features from a sample of them (Chun et al. 2025)."""

from __future__ import annotations

from repsim._typing import Array, Namespace
from repsim.estimators._correction import above_rounding, unbiased_product
from repsim.estimators._estimator import Estimator

__all__ = ["between_features", "within_features"]


def within_features(xp: Namespace, a: Array, estimator: Estimator) -> Array:
    """Return Σ_α ⟨A_α, A_α⟩, the contribution of single features to ⟨A, A⟩.

    A_α is the centred Gram of feature α alone, so A = Σ_α A_α. With c_i the centred values of one
    feature: biased (Σ c²)²; unbiased (Σ c²)² − n/(n−2) Σ c⁴ + (Σ c²)²/((n−1)(n−2)).

    Parameters
    ----------
    xp : namespace
        The array namespace of ``a``.
    a : array, shape (n, p)
        Centred features, of size one. Cost O(n p).
    estimator : Estimator
        Biased or unbiased.
    """
    squares = a * a
    sums = xp.sum(squares, axis=0)
    total = sums * sums
    if estimator.name == "unbiased":
        fourth = xp.sum(squares * squares, axis=0)
        total = unbiased_product(a.shape[0], total, fourth, sums, sums)
    out: Array = xp.sum(total)
    return out


def between_features(xp: Namespace, total: Array, within: Array, p: int) -> Array:
    """Return p² times the mean of ⟨A_α, A_β⟩ over pairs of different features, α ≠ β.

    ⟨A, A⟩/p² is the mean over all pairs. The pairs of a feature with itself make it too large,
    because their share in the population is zero. The result is not a sum of squares. If it is
    below the rounding of ``total``, there are too few features for a denominator, and zero is
    returned.
    """
    out: Array = above_rounding(xp, total - within, total, total.dtype) * (p / (p - 1))
    return out
