"""Inner products of all pairs of samples, one block of features at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from array_api_compat import device, is_torch_array

from repsim._typing import Array, Namespace
from repsim.arrays import (
    accumulator_dtype,
    column_blocks,
    compute_dtype,
    host_resident,
    numbers,
    promote,
    recorded,
    row_blocks,
    row_products,
    writable_numbers,
)
from repsim.kernels._centre import centre_features, column_means, double_centre

__all__ = ["centred_products", "squared_distances"]

FAR = 0.5
"""FAR·√n bounds the samples' distance from the origin in units of that from their mean."""

NEAREST, FARTHEST = 2.0, 5.0
"""The least and the greatest value of this bound."""

FEW = 1024
"""Up to this number of samples, the products (n² numbers) of blocks are summed in float64."""

MANY = 1 << 18
"""Above this number of entries, a shifted copy costs more than checking whether it is needed."""

Origin = Callable[[Array], Array]
"""A function from a block of features (n, b) to the point (1, b) that is subtracted from it."""


def centred_products(xp: Namespace, x: Array, precision: str = "highest") -> Array:
    """Return XcXcᵀ, the (n, n) inner products of centred features.

    Half precision is promoted and columns are shifted inside a block, so the memory in addition to
    the result is one block for any number of features.

    Centring the product matrix takes n² operations instead of n·p, and works for features about any
    origin, but an origin far from the mean costs digits. Computing the mean takes a pass over the
    features, and subtracting it another. If values can be read, three origins are therefore tried
    in order: none (only for many features), the median of three samples, and the mean. The median
    of three is near the mean unless two of the three samples are outliers. The products themselves
    show whether an origin is near enough (:func:`_centred_if_near`), and those of the first block
    whether to compute the others. On an accelerator, reading the answer would wait for the device,
    so the median of three is used at once. Factors that will be rounded are always shifted.
    """
    # Measured for the three cases of benchmarks/peers.py on one core and on two: the mean at once
    # takes 10, 15-18 and 18-20 % more CPU time of `compare`, the median at once 5, 6-7 and 10-11 %.
    dtype = compute_dtype(xp, x)
    wide = accumulator_dtype(xp, x) if x.shape[0] <= FEW else dtype
    tries: tuple[Origin | None, ...] = ()
    last: Origin = _median_of_three(xp)
    if host_resident(x):
        as_they_are = precision == "highest" and x.shape[0] * x.shape[1] > MANY
        if not recorded(x):  # a derivative must not depend on the answer
            tries = (None, last) if as_they_are else (last,)
        last = partial(column_means, xp)
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
    """Cut features that are not shifted into blocks: one, if they need no copy and short sums."""
    if is_torch_array(x) and x.dtype == xp.float32:
        return [slice(0, x.shape[1])]
    return column_blocks(x)


@np.errstate(all="ignore")  # non-finite values are reported where the layer is known
def _centred_if_near(products: Array, dtype: Any) -> np.ndarray[Any, np.dtype[Any]] | None:
    """Return the products about the mean if those about the origin are accurate enough.

    The rounding error of a product is proportional to ‖a‖‖b‖ about the origin, and at best to that
    about the mean, so Σ‖a‖ ≤ r Σ‖a − mean‖ bounds the loss by r². The effect on CKA was measured to
    fall as 1/n, so r = √n/2 gives the same bound for any n: a few 10⁻⁶ in float32 for independent
    representations, where the effect is largest. The check uses sums of lengths, because in a sum
    of squares one outlier could hide all other samples. If all samples are equal, the right side is
    only rounding; the check fails, and subtracting the mean gives exactly zero.

    It uses NumPy, which takes a third of the time of other frameworks for small arrays.
    """
    k = numbers(products)
    if k is None:
        return None
    means = k.mean(axis=1)
    mean = means.mean()
    squares = k.diagonal()
    about_mean = squares - 2 * means + mean
    # Rounding may make a square negative. Its absolute value counts against the check too.
    length, about_mean = (np.sqrt(np.abs(s)).sum() for s in (squares, about_mean))
    most = min(max(FAR * math.sqrt(len(k)), NEAREST), FARTHEST)
    if not length <= most * about_mean:
        return None
    # The matrix is symmetric, so row means equal column means; each restores half of the mean.
    means -= 0.5 * mean
    out: np.ndarray[Any, np.dtype[Any]] = k - means
    out -= means[:, None]
    return out.astype(dtype, copy=False)


def _median_of_three(xp: Namespace) -> Origin:
    """A value of each column, so a constant column becomes exactly zero."""

    def origin(block: Array) -> Array:
        n = block.shape[0]
        a, b, c = block[:1, :], block[n // 2 : n // 2 + 1, :], block[n - 1 :, :]
        out: Array = xp.maximum(xp.minimum(a, b), xp.minimum(xp.maximum(a, b), c))
        return out

    return origin


def _products(
    xp: Namespace,
    x: Array,
    blocks: Iterable[slice],
    origin: Origin | None,
    precision: str,
    dtype: Any,
) -> Array:
    """Return the products of these blocks of features about an origin, summed in a dtype."""
    total: Array | None = None
    for block in blocks:  # blocks even without a copy, because shorter sums lose fewer digits
        features = promote(xp, x if block.stop - block.start == x.shape[1] else x[:, block])
        if origin is not None:
            features = features - origin(features)
        product = row_products(xp, features, precision, dtype)
        total = product if total is None else total + product
    assert total is not None, "inputs without features are refused at the public edge"
    return total


def squared_distances(xp: Namespace, x: Array, precision: str = "highest") -> Array:
    """Return the (n, n) squared Euclidean distances between rows; non-negative, zero diagonal.

    They follow from inner products about the sample nearest to the mean, because ‖a‖² + ‖b‖² − 2a·b
    loses digits if a and b are far from the origin. The mean itself will not do, because one
    outlier can move it away from all samples.

    Parameters
    ----------
    xp : namespace
        The array namespace of ``x``.
    x : array, shape (n, p)
        Samples by features.
    precision : {"highest", "tf32", "bf16"}
        How many digits the features keep in the products, as in :class:`RBF`.

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
    own = writable_numbers(products)
    if own is not None:
        _become_distances(own)
        return products
    norms = xp.linalg.diagonal(products)
    sums = norms[:, None] + norms[None, :]
    distances = sums - 2 * products
    # If a distance is below the rounding of the products, two rows are duplicates: exactly zero,
    # never negative. (The comparison has this direction because it is false for NaN, and NaN must
    # stay NaN.)
    rounding = 8 * xp.finfo(products.dtype).eps * sums
    out: Array = xp.where(distances <= rounding, xp.zeros_like(distances), distances)
    return out


def _become_distances(products: np.ndarray[Any, np.dtype[Any]]) -> None:
    """Turn the products of rows into squared distances as above, in place.

    Measured for 5000 samples of 64 features on one core: 0.08 s instead of 0.21 s with a new array
    for each step, and 0.16 s instead of 0.72 s for torch.
    """
    norms = products.diagonal().copy()
    unit = 8 * np.finfo(products.dtype).eps
    farthest = norms.max()
    for rows in row_blocks(products):
        block = products[rows]
        sums = norms[rows, None] + norms
        block *= -2
        block += sums
        few = np.flatnonzero(block <= (unit * (norms[rows, None] + farthest)))
        near, size = block.take(few), sums.take(few)
        block.put(few, np.where(near <= unit * size, 0, near))
