"""Inner products of all samples with all samples, a block of features at a time."""

from __future__ import annotations

from collections.abc import Callable

from repsim._array import column_blocks, host_resident, known, promote
from repsim._typing import Array, Namespace
from repsim.kernels._centre import centre_features, double_centre

__all__ = ["centred_products", "flat_if_constant", "squared_distances"]

FEW = 8
"""Samples whose mean stands in for the mean of all."""

FAR = 4.0
"""How many times their variance the squared features may be, about that point."""


def centred_products(xp: Namespace, x: Array) -> Array:
    """Return XcXcᵀ, the (n, n) inner products of centred features.

    Half precision is promoted and every column shifted inside a block, so beside the result the
    memory is one block, whatever the number of features.

    On a processor, where features are shifted in its cache, one pass over them is what the time
    goes to, and a mean is a pass. So they are first shifted by the mean of a few samples, which is
    near the mean of all unless there is an outlier among them, and the n×n products are centred
    instead. Where they turn out not to have been near, or every sample is the same (a rounded mean
    leaves noise), the products are made again from centred features.
    """
    if host_resident(x):
        n = x.shape[0]
        few = min(FEW, n)
        products = _products(
            xp, x, lambda block: block - xp.mean(block[:few, :], axis=0, keepdims=True)
        )
        trace = xp.sum(xp.linalg.diagonal(products))
        centred_trace = trace - xp.sum(products) / n
        if known(trace <= FAR * centred_trace):
            return double_centre(xp, products)
    return double_centre(xp, _products(xp, x, lambda block: centre_features(xp, block)))


def _products(xp: Namespace, x: Array, shift: Callable[[Array], Array]) -> Array:
    total: Array | None = None
    for block in column_blocks(x):
        features = shift(promote(xp, x[:, block]))
        product = features @ xp.matrix_transpose(features)
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


def squared_distances(xp: Namespace, x: Array) -> Array:
    """Return the (n, n) squared Euclidean distances between rows; non-negative, zero diagonal.

    From inner products about the sample that is nearest to the mean: ‖a‖² + ‖b‖² − 2a·b loses its
    digits when a and b are far from the origin, and one outlier moves the mean away from all.

    Parameters
    ----------
    xp : namespace
        The array namespace of ``x``.
    x : array, shape (n, p)
        Samples by features.

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
    products = _products(xp, x, lambda block: block - xp.take(block, centre, axis=0))
    norms = xp.linalg.diagonal(products)
    sums = norms[:, None] + norms[None, :]
    distances = sums - 2 * products
    # Below the rounding of the products two rows are duplicates: exactly zero, and never negative.
    # (Not the other way round: a comparison with NaN is false, and NaN must stay NaN.)
    rounding = 8 * xp.finfo(products.dtype).eps * sums
    out: Array = xp.where(distances <= rounding, xp.zeros_like(distances), distances)
    return out
