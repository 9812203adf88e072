"""Orders of the layers of a map that put similar layers together."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

__all__ = ["axis_order", "cluster_order"]

Matrix = np.ndarray[Any, np.dtype[np.float64]]
Order = np.ndarray[Any, np.dtype[np.intp]]


def cluster_order(values: Matrix) -> tuple[Order, Order]:
    """Return rows and columns in the order of a hierarchical clustering of their profiles.

    >>> import numpy as np
    >>> a, b = [1.0, 0.9, 0.1], [0.1, 0.2, 0.9]
    >>> rows, columns = cluster_order(np.array([a, b, a, b]))
    >>> sorted(rows[:2].tolist()), sorted(rows[2:].tolist())
    ([0, 2], [1, 3])

    A profile is a row (column) of the map. The distance of two profiles is the root mean squared
    difference over the entries that both have. Linkage is average. The leaves have 2^(n−1)
    orders; the one with the closest neighbours is chosen (Bar-Joseph, Gifford, Jaakkola 2001).

    Parameters
    ----------
    values : array, shape (m, n)
        Profiles without finite values come last, in their original order.

    Returns
    -------
    rows, columns : arrays of int, shapes (m,) and (n,)
        The end that is nearer to the first layer comes first. Cost O(m³ + n³).
    """
    known = np.where(np.isfinite(values), values, np.nan)
    return _clustered(known), _clustered(known.T)


def axis_order(values: Matrix) -> tuple[Order, Order]:
    """Return rows and columns in the order of their coordinates on the first principal axis.

    >>> import numpy as np
    >>> rows, columns = axis_order(np.array([[1.0, 0.2], [0.1, 1.2], [0.9, 0.3]]))
    >>> rows.tolist(), columns.tolist()
    ([0, 2, 1], [0, 1])

    The means of rows and columns are subtracted, as in principal coordinates. The coordinates are
    :math:`u` and :math:`v` of the largest singular value, each with the sign that puts its first
    layer in the lower half. Values that are not finite count as the mean of the map.

    Parameters
    ----------
    values : array, shape (m, n)

    Returns
    -------
    rows, columns : arrays of int, shapes (m,) and (n,)
    """
    known = np.isfinite(values)
    if not known.any():
        return np.arange(values.shape[0]), np.arange(values.shape[1])
    filled = np.where(known, values, values[known].mean())
    centred = filled - filled.mean(axis=0) - filled.mean(axis=1, keepdims=True) + filled.mean()
    left, _, right = np.linalg.svd(centred, full_matrices=False)
    return _along(left[:, 0]), _along(right[0])


def _along(axis: np.ndarray[Any, np.dtype[np.float64]]) -> Order:
    """Order by coordinate; layers that differ only by rounding keep their original order."""
    turn = -1.0 if axis[0] > np.median(axis) else 1.0
    return np.argsort((turn * axis).round(9), kind="stable")


def _clustered(profiles: Matrix) -> Order:
    some = np.isfinite(profiles).any(axis=1)
    kept, rest = np.flatnonzero(some), np.flatnonzero(~some)
    if len(kept) < 3:
        return np.concatenate([kept, rest])
    leaves = leaves_list(
        linkage(squareform(_distances(profiles[kept])), "average", optimal_ordering=True)
    )
    if leaves.tolist().index(0) > (len(leaves) - 1) / 2:
        leaves = leaves[::-1]
    return np.concatenate([kept[leaves], rest])


def _distances(profiles: Matrix) -> Matrix:
    """Root mean squared difference of all pairs of profiles, over the entries that both have."""
    out = np.zeros((len(profiles), len(profiles)))
    for i, profile in enumerate(profiles):
        differences = profiles[i:] - profile
        both = np.isfinite(differences)
        squares = np.where(both, differences, 0.0) ** 2
        count = both.sum(axis=1)
        shared = count > 0
        out[i, i:][shared] = np.sqrt(squares[shared].sum(axis=1) / count[shared])
        out[i, i:][~shared] = np.nan
    # Two profiles that share no entry get the largest distance.
    out = np.where(np.isnan(out), np.nanmax(out), out)
    symmetric: Matrix = np.maximum(out, out.T)
    return symmetric
