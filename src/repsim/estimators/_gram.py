"""HSIC from Gram matrices: centre them, then take inner products."""

from __future__ import annotations

import numpy as np
from array_api_compat import device

from repsim._typing import Array, Namespace
from repsim.arrays import accumulator_dtype, host_numbers, unit_scale
from repsim.estimators._centring import off_diagonal
from repsim.estimators._estimator import Estimator
from repsim.estimators._in_place import centre_in_place
from repsim.estimators._products import Products, inner

__all__ = ["centred", "gram_products", "scaled_gram"]

LARGE = 256
"""From this many samples on, a Gram in main memory is centred in place on one copy."""


def centred(xp: Namespace, k: Array, estimator: Estimator) -> Array:
    """Centre Gram matrices (..., n, n); the centred Gram of a constant is exactly zero.

    The Gram of a constant representation is constant only up to rounding. Centring leaves noise,
    which would have a plausible similarity to any representation. Values below the rounding of the
    original entries are therefore set to zero.
    """
    if k.ndim == 2 and k.shape[0] >= LARGE:
        values = host_numbers(k)
        if values is not None:
            values = np.array(values)
            centre_in_place(values, unbiased=estimator.name == "unbiased")
            own: Array = xp.asarray(values, device=device(k))
            return own
    rounding = 8 * xp.finfo(k.dtype).eps * _size(xp, off_diagonal(xp, k))
    # Both maps are invariant to adding a constant. After subtracting it, the entries of a constant
    # Gram are exactly zero, and no mean is rounded.
    a: Array = estimator.centre(xp, k - k[..., :1, -1:])
    left = _size(xp, a)
    a *= xp.where(left <= rounding, xp.zeros_like(left), xp.ones_like(left))
    return a


def _size(xp: Namespace, k: Array) -> Array:
    """Return max|k| of each matrix (..., 1, 1), without an array of absolute values."""
    out: Array = xp.maximum(
        xp.max(k, axis=(-2, -1), keepdims=True), -xp.min(k, axis=(-2, -1), keepdims=True)
    )
    return out


def gram_products(
    xp: Namespace,
    k: Array,
    l: Array,  # noqa: E741
    estimator: Estimator,
) -> tuple[Products, Array]:
    """Return the scaled inner products of two Grams (n, n), and the scale s_x s_y of ``xy``."""
    a, scale_x = scaled_gram(xp, k, estimator)
    b, scale_y = scaled_gram(xp, l, estimator)
    traces = xp.linalg.trace(a), xp.linalg.trace(b)
    products = Products(inner(xp, a, b), inner(xp, a, a), inner(xp, b, b), traces)
    return products, scale_x * scale_y


def scaled_gram(xp: Namespace, k: Array, estimator: Estimator) -> tuple[Array, Array]:
    """Return a centred Gram of size one (n, n), and the power of two that divided it."""
    a, scale = unit_scale(xp, centred(xp, k, estimator))
    return a, xp.astype(scale, accumulator_dtype(xp, scale), copy=False)
