"""Inner products of all samples with all samples, a block of features at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from array_api_compat import device, is_torch_array

from repsim._array import (
    accumulator_dtype,
    column_blocks,
    compute_dtype,
    host_resident,
    numbers,
    promote,
    row_products,
)
from repsim._typing import Array, Namespace
from repsim.kernels._centre import centre_features, double_centre

__all__ = ["centred_products", "flat_if_constant", "squared_distances"]

FAR = 0.5
"""Times √n: how many times their distance from the mean the samples may be from the origin."""

NEAREST, FARTHEST = 2.0, 5.0
"""The least and the most that this may be, whatever the number of samples."""

FEW = 1024
"""Samples whose products, n² numbers, are added up in float64 from block to block."""

MANY = 1 << 18
"""Numbers of which a copy, shifted, costs more than to ask whether it is needed."""

PROBE = 8192
"""Features whose products tell whether those of all are worth making."""

MUCH = 1 << 26
"""Multiplications from which it is worth asking first: a millisecond."""

Origin = Callable[[Array], Array]
"""From a block of features (n, b) to the point (1, b) that they are taken relative to."""


def centred_products(xp: Namespace, x: Array, precision: str = "highest") -> Array:
    """Return XcXcᵀ, the (n, n) inner products of centred features.

    Half precision is promoted and every column shifted inside a block, so beside the result the
    memory is one block, whatever the number of features.

    The products of features about any origin are centred as a matrix, n² numbers in place of n·p;
    what an origin away from the mean costs is digits. A mean takes a pass over the features, and
    taking it off another. So where values can be read, features, if many, are first used as they
    are, then about the median of three samples, which is near the mean of all unless two of the
    three are outliers, and only then about their mean; the products themselves tell which is
    enough (:func:`_centred_if_near`), and those of the first features whether to make the others.
    Elsewhere reading that answer would wait for the accelerator: there it is the median of three.
    Factors that are going to be rounded are never used as they are.
    """
    dtype = compute_dtype(xp, x)
    wide = accumulator_dtype(xp, x) if x.shape[0] <= FEW else dtype
    tries: tuple[Origin | None, ...] = ()
    last: Origin = _median_of_three(xp)
    if host_resident(x):
        as_they_are = precision == "highest" and x.shape[0] * x.shape[1] > MANY
        if not getattr(x, "requires_grad", False):  # a derivative must not depend on the answer
            tries = (None, last) if as_they_are else (last,)
        last = _mean(xp)
    entries = np.float32 if dtype == xp.float32 else np.float64
    for origin in tries:
        first, *rest = _untouched(xp, x) if origin is None else column_blocks(x)
        products = _products(xp, x, [first], origin, precision, wide)
        centred = _centred_if_near(products, entries)
        if centred is not None and rest:
            products = products + _products(xp, x, rest, origin, precision, wide)
            centred = _centred_if_near(products, entries)
        if centred is not None:
            near: Array = xp.asarray(centred, device=device(x))
            return near
    products = _products(xp, x, column_blocks(x), last, precision, wide)
    out: Array = xp.astype(double_centre(xp, products), dtype, copy=False)
    return out


def _untouched(xp: Namespace, x: Array) -> Iterable[slice]:
    """Cut features that are used as they are: some to ask, and all the others."""
    n, p = x.shape
    if not (is_torch_array(x) and x.dtype == xp.float32):
        return column_blocks(x)  # copied after all, or products of long rows would lose digits
    if n * n * p < MUCH or p < 2 * PROBE:
        return [slice(0, p)]
    return [slice(0, PROBE), slice(PROBE, p)]


@np.errstate(all="ignore")  # what is not finite is reported where the layer's name is known
def _centred_if_near(products: Array, dtype: Any) -> np.ndarray[Any, np.dtype[Any]] | None:
    """Return the products about the mean, if those about the origin have the digits they need.

    A product's rounding is of the size of ‖a‖‖b‖ about the origin, and at best of that about the
    mean: Σ‖a‖ ≤ r Σ‖a − mean‖ bounds what is lost by r². What that does to CKA falls with the
    number of samples, measured as 1/n, so r = √n/2 bounds it by the same for any: a few 10⁻⁶ in
    float32 where it shows most, for independent representations. Sums of lengths, for in a sum of
    squares one outlier would speak for all others. Where all samples are the same the right side is
    rounding, so the mean is taken, which leaves exactly zero.

    In NumPy: it takes a third of the time of others for an operation on so few numbers.
    """
    k = numbers(products)
    if k is None:
        return None
    means = k.mean(axis=1)
    mean = means.mean()
    squares = k.diagonal()
    about_mean = squares - 2 * means + mean
    # Rounding may leave a square below zero: as much of a reason to answer no as any of its size.
    length, about_mean = (np.sqrt(np.abs(s)).sum() for s in (squares, about_mean))
    most = min(max(FAR * math.sqrt(len(k)), NEAREST), FARTHEST)
    if not length <= most * about_mean:
        return None
    # Rows tell what columns would, the matrix is symmetric; each takes half of the mean back.
    means -= 0.5 * mean
    out: np.ndarray[Any, np.dtype[Any]] = k - means
    out -= means[:, None]
    return out.astype(dtype, copy=False)


def _median_of_three(xp: Namespace) -> Origin:
    """One of the values of each column, so that a constant column becomes exactly zero."""

    def origin(block: Array) -> Array:
        n = block.shape[0]
        a, b, c = block[:1, :], block[n // 2 : n // 2 + 1, :], block[n - 1 :, :]
        out: Array = xp.maximum(xp.minimum(a, b), xp.minimum(xp.maximum(a, b), c))
        return out

    return origin


def _mean(xp: Namespace) -> Origin:
    """By differences from the first row, which are exact where the mean is many times the spread.

    So it is the value itself for a constant column, where a rounded mean would leave noise that
    looks like a representation.
    """
    return lambda block: block[:1, :] + xp.mean(block - block[:1, :], axis=0, keepdims=True)


def _products(
    xp: Namespace,
    x: Array,
    blocks: Iterable[slice],
    origin: Origin | None,
    precision: str,
    dtype: Any,
) -> Array:
    """Return the products of these blocks of features about an origin, added up in a dtype."""
    total: Array | None = None
    for block in blocks:  # also where nothing is copied: shorter sums lose fewer digits
        features = promote(xp, x if block.stop - block.start == x.shape[1] else x[:, block])
        if origin is not None:
            features = features - origin(features)
        product = row_products(xp, features, precision, dtype)
        total = product if total is None else total + product
    assert total is not None, "inputs without features are refused at the public edge"
    return total


def flat_if_constant(xp: Namespace, x: Array, gram: Array) -> Array:
    """Return the Gram of rows that are all the same with entries that are all the same.

    A matrix product gives equal rows products that differ in the last digit, by where in it they
    stand; centring would leave that digit, and it would look like a representation.
    """
    same = xp.all(x == x[:1, :])
    out: Array = xp.where(same, gram[:1, :1], gram)
    return out


def squared_distances(xp: Namespace, x: Array, precision: str = "highest") -> Array:
    """Return the (n, n) squared Euclidean distances between rows; non-negative, zero diagonal.

    From inner products about the sample that is nearest to the mean: ‖a‖² + ‖b‖² − 2a·b loses its
    digits when a and b are far from the origin, and one outlier moves the mean away from all.

    Parameters
    ----------
    xp : namespace
        The array namespace of ``x``.
    x : array, shape (n, p)
        Samples by features.
    precision : {"highest", "tf32", "bf16"}
        What the features keep of their digits in the products, as in :class:`RBF`.

    Returns
    -------
    array, shape (n, n)
        At least float32, in the namespace and on the device of ``x``.
    """
    norms: Array | None = None
    for block in column_blocks(x):
        features = centre_features(xp, promote(xp, x[:, block]))
        squares = xp.sum(features * features, axis=1)
        norms = squares if norms is None else norms + squares
    centre = xp.reshape(xp.argmin(norms), (1,))
    blocks = column_blocks(x)
    dtype = compute_dtype(xp, x)
    products = _products(
        xp, x, blocks, lambda block: xp.take(block, centre, axis=0), precision, dtype
    )
    norms = xp.linalg.diagonal(products)
    sums = norms[:, None] + norms[None, :]
    distances = sums - 2 * products
    # Below the rounding of the products two rows are duplicates: exactly zero, and never negative.
    # (Not the other way round: a comparison with NaN is false, and NaN must stay NaN.)
    rounding = 8 * xp.finfo(products.dtype).eps * sums
    out: Array = xp.where(distances <= rounding, xp.zeros_like(distances), distances)
    return out
