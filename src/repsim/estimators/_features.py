"""Linear HSIC from features: the same numbers as from Grams, without an n×n matrix."""

from __future__ import annotations

from repsim._typing import Array, Namespace
from repsim.arrays import accumulator_dtype, square, unit_scale
from repsim.estimators._correction import above_rounding, unbiased_product
from repsim.estimators._estimator import Estimator
from repsim.estimators._products import Products, inner
from repsim.kernels import centre_features

__all__ = [
    "feature_product",
    "feature_products",
    "feature_self_product",
    "features_are_cheaper",
    "scaled_features",
]


def features_are_cheaper(n: int, p: int, q: int, *, self_products: bool) -> bool:
    """Whether the p×q cross products cost fewer multiplications than the two n×n Grams.

    It compares p·q·n, or (p²+pq+q²)·n with the self-products that a normalisation needs, with
    n²·(p+q).
    """
    cross = p * q + (p * p + q * q if self_products else 0)
    return cross < n * (p + q)


def feature_products(
    xp: Namespace, x: Array, y: Array, estimator: Estimator
) -> tuple[Products, Array]:
    """Return the scaled inner products of two representations, and the scale of ``xy``.

    With centred X, Y and a_i = ‖x_i‖², b_i = ‖y_i‖²: biased ‖XᵀY‖²_F; unbiased
    ‖XᵀY‖²_F − n/(n−2) Σ a_i b_i + Σa Σb/((n−1)(n−2)), which is ⟨A, B⟩ of the U-centred Grams.

    Parameters
    ----------
    xp : namespace
        The array namespace of both.
    x, y : array, shapes (n, p) and (n, q)
        Features, not centred.
    estimator : Estimator
        Biased or unbiased.

    Returns
    -------
    products : Products
        Inner products of the centred Grams, divided by powers of two.
    scale : array, 0-d
        The divisor of ``products.xy``.
    """
    wide = accumulator_dtype(xp, x)
    a, scale_x = scaled_features(xp, x, estimator)
    b, scale_y = scaled_features(xp, y, estimator)
    products = Products(
        feature_product(xp, a, b, estimator),
        feature_self_product(xp, a, estimator),
        feature_self_product(xp, b, estimator),
    )
    return products, square(xp.astype(scale_x, wide) * xp.astype(scale_y, wide))


def scaled_features(xp: Namespace, x: Array, estimator: Estimator) -> tuple[Array, Array]:
    """Return centred features of size one (n, p), and the power of two that divided them."""
    if estimator.name == "unbiased":
        # Its terms cancel if a few samples are far from the others, so compute all in float64.
        x = xp.astype(x, accumulator_dtype(xp, x), copy=False)
    return unit_scale(xp, centre_features(xp, x))


def feature_product(xp: Namespace, a: Array, b: Array, estimator: Estimator) -> Array:
    """Return ⟨A, B⟩ of the centred Grams of scaled features (n, p) and (n, q)."""
    cross = xp.matrix_transpose(a) @ b
    total = inner(xp, cross, cross)
    if estimator.name == "biased":
        return total
    norms_a, norms_b = xp.sum(a * a, axis=1), xp.sum(b * b, axis=1)
    crossed = xp.sum(norms_a * norms_b)
    out: Array = unbiased_product(a.shape[0], total, crossed, xp.sum(norms_a), xp.sum(norms_b))
    return out


def feature_self_product(xp: Namespace, a: Array, estimator: Estimator) -> Array:
    """Return ⟨A, A⟩, exactly zero for a constant representation."""
    total = feature_product(xp, a, a, estimator)
    trace = inner(xp, a, a)
    out: Array = above_rounding(xp, total, trace * trace, a.dtype)
    return out
