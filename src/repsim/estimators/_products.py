"""The last step of CKA: a normalised alignment from three inner products."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from array_api_compat import device

from repsim._typing import Array, Namespace
from repsim.arrays import accumulator_dtype, detached, host_numbers

__all__ = ["Products", "alignment", "inner", "ratio", "within_one"]

MANY = 1 << 16
"""From this many entries on, an inner product in main memory is a sum of inner products of BLAS."""


BEYOND = 1e-3
"""How far beyond 1 rounding can lead; differences of large products lose more digits."""


class Products(NamedTuple):
    """Inner products of two centred representations, each divided by its scale.

    ``xy`` is ⟨A, B⟩/(s_x s_y), ``xx`` is ⟨A, A⟩/s_x², ``yy`` is ⟨B, B⟩/s_y². A constant
    representation has a self-product of exactly zero.
    """

    xy: Array
    xx: Array
    yy: Array
    traces: tuple[Array, Array] | None = None
    """tr A/s_x and tr B/s_y, where they cost nothing."""
    few_digits: tuple[Array, Array] | None = None
    """Whether the rounding of the entries of each Gram counts, where this is known."""


def inner(xp: Namespace, a: Array, b: Array) -> Array:
    """Return ⟨a, b⟩, summed over all entries in float64 if the device has it."""
    if math.prod(a.shape) >= MANY and a.dtype == b.dtype == xp.float64:
        u, v = host_numbers(a), host_numbers(b)
        if u is not None and v is not None and u.shape == v.shape:
            found: Array = xp.asarray(_in_parts(u, v), dtype=xp.float64, device=device(a))
            return found
    out: Array = xp.sum(a * b, dtype=accumulator_dtype(xp, a))
    return out


def _in_parts(u: np.ndarray, v: np.ndarray) -> float:
    """Sum the products without an array of them. Short sums lose few digits.

    Measured for two matrices of 5000² entries on one core: 0.03 s instead of 0.09 s.
    """
    u, v = u.reshape(-1), v.reshape(-1)
    parts = (np.dot(u[i : i + MANY], v[i : i + MANY]) for i in range(0, len(u), MANY))
    return math.fsum(parts)


def alignment(xp: Namespace, products: Products) -> Array:
    """Return xy/(√xx·√yy) of products that obey |xy| ≤ √xx·√yy, so at most 1 and at least −1."""
    return within_one(xp, ratio(xp, products))


def within_one(xp: Namespace, values: Array) -> Array:
    """Return values whose size is at most 1 but for rounding, without this rounding.

    >>> within_one(np, np.array([-1 - 1e-15, 0.5, 1 + 1e-15, 2.0]))
    array([-1. ,  0.5,  1. ,  2. ])

    Of 1 + 1e-7, the arccos is NaN and the distance is negative. Derivatives are those of the
    values. What is farther outside is not rounding, and it stays.
    """
    size = xp.abs(values)
    near = (size > 1) & (size <= 1 + BEYOND)
    beyond = xp.where(near, xp.where(values > 0, values - 1, values + 1), xp.zeros_like(values))
    inside: Array = values - detached(beyond)
    return inside


def ratio(xp: Namespace, products: Products) -> Array:
    """Return xy/(√xx·√yy), or NaN if a self-product is zero.

    √(xx·yy) would overflow. An epsilon in the denominator would turn the similarity of small
    features into zero. Only the numerator may be negative; it is not clamped.
    """
    defined = (products.xx > 0) & (products.yy > 0)
    # The unused branch of `where` still has a derivative, so keep the square root away from zero.
    xx = xp.where(defined, products.xx, xp.ones_like(products.xx))
    yy = xp.where(defined, products.yy, xp.ones_like(products.yy))
    out: Array = xp.where(
        defined,
        products.xy / (xp.sqrt(xx) * xp.sqrt(yy)),
        xp.full_like(products.xy, float("nan")),
    )
    return out
