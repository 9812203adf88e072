"""Unbiased HSIC in feature form: the correction of ‖XᵀY‖², and the bound of its rounding."""

from __future__ import annotations

from typing import Any

from repsim._typing import Array, Namespace

__all__ = ["above_rounding", "unbiased_product"]


def unbiased_product(n: int, total: Any, crossed: Any, sum_a: Any, sum_b: Any) -> Any:
    """Return ⟨A, B⟩ of the U-centred Grams of centred features.

    With a_i = ‖x_i‖² and b_i = ‖y_i‖²::

        ⟨A, B⟩ = ‖XᵀY‖²_F − n/(n−2) Σ a_i b_i + Σa Σb/((n−1)(n−2))

    because the rows of XXᵀ sum to zero, and to −a_i without the diagonal (Song et al. 2012, Eq. 5).

    Parameters
    ----------
    n : int
        Samples, at least 4.
    total, crossed, sum_a, sum_b : array
        ‖XᵀY‖²_F, Σ a_i b_i, Σ a_i and Σ b_i; 0-d for one pair, (Lx, Ly) for all pairs of layers.
    """
    return total - n / (n - 2) * crossed + sum_a * sum_b / float((n - 1) * (n - 2))


def above_rounding(xp: Namespace, product: Array, size: Array | float, dtype: Any) -> Any:
    """Return a sum of squares, or exactly zero if it is not larger than the rounding of its terms.

    For sums of squares that are computed as a difference, such as ⟨A, A⟩. If the terms of ⟨A, A⟩
    cancel, the representation is constant for the estimator, and rounding must not look like a
    representation. NaN stays NaN.

    Parameters
    ----------
    xp : namespace
        The array namespace of ``product``.
    product : array
        The difference, such as ⟨A, A⟩, of one or of many representations.
    size : array or float
        The size of the terms: their sum, or a bound on it as (Σa)² ≥ ‖XᵀX‖²_F.
    dtype : dtype
        The dtype of the terms.
    """
    rounding = 64 * float(xp.finfo(dtype).eps) * size
    return xp.where(product <= rounding, xp.zeros_like(product), product)
