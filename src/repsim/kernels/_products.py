"""Inner products of all samples with all samples, a block of features at a time."""

from __future__ import annotations

from collections.abc import Callable

from repsim._array import (
    column_blocks,
    compute_dtype,
    host_resident,
    known,
    promote,
    row_products,
)
from repsim._typing import Array, Namespace
from repsim.kernels._centre import centre_features, double_centre

__all__ = ["centred_products", "flat_if_constant", "squared_distances"]

PROBE = 512
"""Features that tell whether the products of all as they are would do."""

MANY = 1 << 20
"""Numbers of which a copy, shifted, costs more than to ask."""

FAR = 2.0
"""How many times their distance from the mean the samples may be from the origin."""

Origin = Callable[[Array], Array]
"""From a block of features (n, b) to the point (1, b) that they are taken relative to."""


def centred_products(xp: Namespace, x: Array, precision: str = "highest") -> Array:
    """Return XcXcᵀ, the (n, n) inner products of centred features.

    Half precision is promoted and every column shifted inside a block, so beside the result the
    memory is one block, whatever the number of features.

    The products of features about any origin are centred as a matrix, n² numbers in place of n·p;
    what an origin away from the mean costs is digits. A mean takes a pass over the features, and
    taking it off another. So where values can be read, features are first used as they are, then
    about the median of three samples, which is near the mean of all unless two of them are
    outliers, and only then about their mean; the products themselves tell which is enough (see
    :func:`_near`). Elsewhere reading that answer would wait for the accelerator: there it is the
    median of three. Factors that are going to be rounded are never used as they are.
    """
    middle = _median_of_three(xp)
    origins: list[Origin | None] = []
    if host_resident(x):
        origins = [middle]
        if precision == "highest" and x.shape[0] * x.shape[1] >= MANY:
            part = _products(xp, x[:, :PROBE], None, precision)
            if known(_near(xp, part, double_centre(xp, part))):
                origins = [None, middle]
    for origin in origins:
        products = _products(xp, x, origin, precision)
        centred = double_centre(xp, products)
        if known(_near(xp, products, centred)):
            return centred
    last = _mean(xp) if origins else middle
    return double_centre(xp, _products(xp, x, last, precision))


def _near(xp: Namespace, products: Array, centred: Array) -> Array:
    """Whether the origin is so near to the samples that their products have the digits they can.

    A product's rounding is of the size of ‖a‖‖b‖ about the origin, and at best of that about the
    mean: Σ‖a‖ ≤ FAR·Σ‖a − mean‖ bounds what is lost by FAR², two bits. Sums of lengths, for in a
    sum of squares one outlier would speak for all others. Where all samples are the same the right
    side is rounding, so the mean is taken, which leaves exactly zero.
    """
    # Rounding may leave a square below zero: as much of a reason to answer no as any of its size.
    squares, about_mean = (xp.abs(xp.linalg.diagonal(k)) for k in (products, centred))
    out: Array = xp.sum(xp.sqrt(squares)) <= FAR * xp.sum(xp.sqrt(about_mean))
    return out


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


def _products(xp: Namespace, x: Array, origin: Origin | None, precision: str) -> Array:
    dtype = compute_dtype(xp, x)
    total: Array | None = None
    for block in column_blocks(x):  # also where nothing is copied: shorter sums lose fewer digits
        features = xp.astype(x[:, block], dtype, copy=False)
        if origin is not None:
            features = features - origin(features)
        product = row_products(xp, features, precision)
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
    products = _products(xp, x, lambda block: xp.take(block, centre, axis=0), precision)
    norms = xp.linalg.diagonal(products)
    sums = norms[:, None] + norms[None, :]
    distances = sums - 2 * products
    # Below the rounding of the products two rows are duplicates: exactly zero, and never negative.
    # (Not the other way round: a comparison with NaN is false, and NaN must stay NaN.)
    rounding = 8 * xp.finfo(products.dtype).eps * sums
    out: Array = xp.where(distances <= rounding, xp.zeros_like(distances), distances)
    return out
