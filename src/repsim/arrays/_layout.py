"""Flatten activations to samples by features, and cut features into blocks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from array_api_compat import device, is_numpy_array, is_torch_array

from repsim._typing import Array, Namespace
from repsim.arrays._namespace import array_namespace, device_type

__all__ = ["column_blocks", "flatten_features", "reordered_pairs", "row_blocks"]

CACHE_BYTES = 1 << 22
"""Block of a matrix that stays in the caches of a CPU while it is shifted and multiplied.

Measured: with 512 KiB to 2 MiB, a whole comparison of two networks takes 6 to 7 % longer.
"""

ROWS_BYTES = 1 << 20
"""Block of rows of a matrix (n, n) that stays in the second cache while it is changed in place."""

LONG = 4096
"""Features in one product of NumPy: longer sums lose digits and save no time.

Products of torch are cut where they are computed, which takes fewer calls.
"""

DEVICE_BYTES = 1 << 28
"""Block on an accelerator: large enough for full speed, small compared with the activations."""


def flatten_features(xp: Namespace, x: Array) -> Array:
    """Flatten trailing axes, as the papers do with feature maps: "n c h w" -> "n (c h w)"."""
    if x.ndim == 2:
        return x
    out: Array = xp.reshape(x, (x.shape[0], math.prod(x.shape[1:])))
    return out


def reordered_pairs(matrix: Array, order: Any) -> Array:
    """Return a matrix of samples by samples (n, n) with its samples in another order.

    >>> import numpy as np
    >>> reordered_pairs(np.array([[0, 1, 2], [1, 0, 3], [2, 3, 0]]), [2, 0, 1]).tolist()
    [[0, 2, 3], [2, 0, 1], [3, 1, 0]]
    """
    xp = array_namespace(matrix)
    taken = xp.asarray(order, device=device(matrix))
    out: Array = xp.take(xp.take(matrix, taken, axis=0), taken, axis=1)
    return out


def column_blocks(x: Array) -> Iterator[slice]:
    """Cut the features of ``x`` (n, p) into slices small enough to be copied one at a time.

    A centred copy then takes the memory of one block instead of the whole activation, and on a CPU
    it stays in the cache. Traced frameworks get one block because their compiler chooses blocks
    itself.
    """
    n, p = x.shape
    if is_numpy_array(x) or is_torch_array(x):
        cpu = device_type(x) == "cpu"
        # In narrower blocks, summing the products costs more than the cache gains.
        width = max(2048, (CACHE_BYTES if cpu else DEVICE_BYTES) // (4 * n))
        if is_numpy_array(x):
            width = min(width, LONG)
    else:
        width = p
    for start in range(0, p, width):
        yield slice(start, min(start + width, p))


def row_blocks(matrix: Array) -> Iterator[slice]:
    """Cut the rows of a float64 matrix into slices that stay in the cache of a CPU.

    Several changes of one block after the other then read the main memory once, and no change
    allocates a matrix, which costs more than the arithmetic.
    """
    rows, columns = matrix.shape
    height = max(1, ROWS_BYTES // (8 * columns))
    for start in range(0, rows, height):
        yield slice(start, min(start + height, rows))
