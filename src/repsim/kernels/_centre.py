"""Centring of features, and of their inner products."""

from __future__ import annotations

from repsim._typing import Array, Namespace

__all__ = ["centre_features", "column_means", "double_centre"]


def centre_features(xp: Namespace, x: Array) -> Array:
    """Return ``x`` minus its column means.

    The first row is subtracted before the mean is computed. Differences of nearby numbers are
    exact, so a column whose mean is many times its spread keeps all its digits, and a constant
    column becomes exactly zero. A rounded mean would leave noise in it that looks like a
    representation.

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


def column_means(xp: Namespace, x: Array) -> Array:
    """Return the column means (1, p) of ``x`` (n, p), by differences from the first row.

    These are exact if the spread is small. For a constant column the mean is therefore the value
    itself.

    Parameters
    ----------
    xp : namespace
        The array namespace.
    x : array, shape (n, p)
        Of a floating dtype.

    Returns
    -------
    array, shape (1, p)
        In the dtype of ``x``.
    """
    out: Array = x[:1, :] + xp.mean(x - x[:1, :], axis=0, keepdims=True)
    return out


def double_centre(xp: Namespace, k: Array) -> Array:
    """Return HKH with H = I − 11ᵀ/n, computed from means in O(n²) without a product with H.

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
