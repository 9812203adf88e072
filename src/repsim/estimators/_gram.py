"""HSIC from Gram matrices: centre them, then take inner products."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from array_api_compat import device

from repsim._typing import Array, Namespace
from repsim.arrays import accumulator_dtype, host_numbers, rounding_unit, unit_scale
from repsim.estimators._centring import off_diagonal
from repsim.estimators._digits import few_digits, rounding_of
from repsim.estimators._estimator import Estimator
from repsim.estimators._in_place import centre_in_place
from repsim.estimators._products import Products, inner

__all__ = ["CentredGram", "ScaledGram", "centred", "gram_products", "scaled_gram"]

LARGE = 256
"""From this many samples on, a Gram in main memory is centred in place on one copy."""


class CentredGram(NamedTuple):
    """Centred Gram matrices (..., n, n)."""

    gram: Array
    largest: Array
    """The largest size of an entry off the diagonal, before centring, (...)."""


class ScaledGram(NamedTuple):
    """A centred Gram of size one (n, n), and the power of two that divided it."""

    gram: Array
    scale: Array
    square: Array
    """⟨A, A⟩ of the scaled Gram."""
    rounding: Array
    """That of the rounding of the entries, in the same units."""

    @property
    def few_digits(self) -> Array:
        """Whether the rounding of the entries counts."""
        out: Array = few_digits(self.square, self.rounding)
        return out


def centred(xp: Namespace, k: Array, estimator: Estimator) -> CentredGram:
    """Centre Gram matrices (..., n, n); the centred Gram of a constant is exactly zero.

    The Gram of a constant representation is constant only up to rounding. Centring leaves noise,
    which would have a plausible similarity to any representation. Values below the rounding of the
    original entries are therefore set to zero.
    """
    if k.ndim == 2 and k.shape[0] >= LARGE:
        values = host_numbers(k)
        if values is not None:
            values = np.array(values)
            size = centre_in_place(values, unbiased=estimator.name == "unbiased")
            own, largest = (xp.asarray(z, dtype=k.dtype, device=device(k)) for z in (values, size))
            return CentredGram(own, largest)
    largest = _size(xp, off_diagonal(xp, k))
    rounding = 8 * xp.finfo(k.dtype).eps * largest
    # Both maps are invariant to adding a constant. After subtracting it, the entries of a constant
    # Gram are exactly zero, and no mean is rounded.
    a: Array = estimator.centre(xp, k - k[..., :1, -1:])
    left = _size(xp, a)
    a *= xp.where(left <= rounding, xp.zeros_like(left), xp.ones_like(left))
    return CentredGram(a, largest[..., 0, 0])


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
    units: tuple[float | None, float | None] = (None, None),
) -> tuple[Products, Array]:
    """Return the scaled inner products of two Grams (n, n), and the scale s_x s_y of ``xy``.

    ``units`` are the ε of the dtypes in which the Grams came in, if these are not their own.
    """
    a, b = scaled_gram(xp, k, estimator, units[0]), scaled_gram(xp, l, estimator, units[1])
    traces = xp.linalg.trace(a.gram), xp.linalg.trace(b.gram)
    products = Products(
        inner(xp, a.gram, b.gram), a.square, b.square, traces, (a.few_digits, b.few_digits)
    )
    return products, a.scale * b.scale


def scaled_gram(
    xp: Namespace, k: Array, estimator: Estimator, unit: float | None = None
) -> ScaledGram:
    """Return the centred Gram of a Gram (n, n), with size one.

    ``unit`` is the ε of the dtype in which the Gram came in, if that is not its own.
    """
    found = centred(xp, k, estimator)
    a, scale = unit_scale(xp, found.gram)
    scale = xp.astype(scale, accumulator_dtype(xp, scale), copy=False)
    largest = xp.astype(found.largest, scale.dtype, copy=False) / scale
    rounding = rounding_of(xp, largest, k.shape[-1], unit or rounding_unit(k))
    return ScaledGram(a, scale, inner(xp, a, a), rounding)
