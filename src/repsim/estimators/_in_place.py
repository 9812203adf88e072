"""The centring maps of large Grams in main memory, in place and block by block."""

from __future__ import annotations

from typing import Any

import numpy as np

from repsim.arrays import row_blocks

__all__ = ["centre_in_place"]

Numbers = np.ndarray[Any, np.dtype[Any]]


def centre_in_place(k: Numbers, *, unbiased: bool) -> float:
    """Centre a Gram (n, n) as :func:`repsim.estimators.centred` does, without another matrix.

    A new matrix for each step would cost more than the arithmetic, because the system clears its
    pages first. Measured for n = 5000 on one core: 0.14 s instead of 0.48 s (biased) and 0.55 s.

    Parameters
    ----------
    k : numpy array, shape (n, n)
        Changed: doubly centred, or U-centred with a zero diagonal. Exactly zero if all entries off
        the diagonal are equal up to rounding.
    unbiased : bool
        U-centre.

    Returns
    -------
    float
        The largest size of an entry off the diagonal, before centring.
    """
    n = len(k)
    origin = k[0, -1]
    diagonal = np.zeros(n) if unbiased else k.diagonal() - origin
    rows, columns = np.empty((n, 1)), np.zeros(n)
    largest = 0.0
    for here in row_blocks(k):
        block = k[here]
        _fill_diagonal(block, here, np.zeros(n))
        largest = max(largest, _size(block))
        block -= origin
        _fill_diagonal(block, here, diagonal)
        rows[here, 0] = block.sum(axis=1)
        columns += block.sum(axis=0)
    total = rows.sum() / ((n - 1) * (n - 2) if unbiased else n * n)
    # The means in the dtype of the Gram: a float64 operand would make each block a float64 one.
    rows = (rows / (n - 2 if unbiased else n)).astype(k.dtype)
    columns = (columns / (n - 2 if unbiased else n) - total).astype(k.dtype)
    left = 0.0
    for here in row_blocks(k):
        block = k[here]
        block -= rows[here]
        block -= columns
        if unbiased:
            _fill_diagonal(block, here, diagonal)
        left = max(left, _size(block))
    if left <= 8 * np.finfo(k.dtype).eps * largest:
        k[...] = 0
    return largest


def _fill_diagonal(block: Numbers, here: slice, values: Numbers) -> None:
    rows = np.arange(here.start, here.stop)
    block[rows - here.start, rows] = values[here]


def _size(block: Numbers) -> float:
    return float(np.maximum(block.max(), -block.min()))
