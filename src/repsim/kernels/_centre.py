"""Centring: of features by their means, and of the inner products of features by theirs."""

from __future__ import annotations

from repsim._typing import Array, Namespace

__all__ = ["centre_features", "double_centre"]


def centre_features(xp: Namespace, x: Array) -> Array:
    """Return ``x`` minus its column means.

    The first row is taken off before the mean is formed. Differences of nearby numbers are exact,
    so a column whose mean is many times its spread keeps every digit it has, and a constant column
    becomes exactly zero, where a rounded mean would leave noise that looks like a representation.

    Parameters
    ----------
    xp : namespace
        The array namespace of ``x``.
    x : array, shape (n, p)
        Features.

    Returns
    -------
    array, shape (n, p)
        Columns sum to zero.
    """
    shifted = x - x[:1, :]
    out: Array = shifted - xp.mean(shifted, axis=0, keepdims=True)
    return out


def double_centre(xp: Namespace, k: Array) -> Array:
    """Return HKH with H = I − 11ᵀ/n, by means: O(n²), never a product with H.

    Parameters
    ----------
    xp : namespace
        The array namespace of ``k``.
    k : array, shape (..., n, n)
        Gram matrices.

    Returns
    -------
    array, shape (..., n, n)
        Rows and columns sum to zero.
    """
    rows = xp.mean(k, axis=-1, keepdims=True)
    columns = xp.mean(k, axis=-2, keepdims=True)
    out: Array = k - rows - columns + xp.mean(rows, axis=-2, keepdims=True)
    return out
