"""The layers of a map in an order in which those that are alike stand together."""

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

    A profile is a row (column) of the map; two are as far apart as the Euclidean distance of what
    both have, per entry. Linkage is average, and of the 2^(n−1) orders of the leaves the one whose
    neighbours are closest is taken (Bar-Joseph, Gifford, Jaakkola 2001).

    Parameters
    ----------
    values : array, shape (m, n)
        Profiles without any value (NaN) come last, in their own order.

    Returns
    -------
    rows, columns : arrays of int, shapes (m,) and (n,)
        The end nearer to the first layer comes first. Cost O(m³ + n³).

    Examples
    --------
    >>> import numpy as np
    >>> a, b = [1.0, 0.9, 0.1], [0.1, 0.2, 0.9]
    >>> rows, columns = cluster_order(np.array([a, b, a, b]))
    >>> sorted(rows[:2].tolist()), sorted(rows[2:].tolist())
    ([0, 2], [1, 3])
    """
    return _clustered(values), _clustered(values.T)


def axis_order(values: Matrix) -> tuple[Order, Order]:
    """Return rows and columns in the order of their places on the first principal axis.

    With the means of rows and columns taken off, as in principal coordinates: :math:`u` and
    :math:`v` of the largest singular value, each turned so that its first layer stands in the
    lower half. NaN count as the mean of the map.

    Parameters
    ----------
    values : array, shape (m, n)

    Returns
    -------
    rows, columns : arrays of int, shapes (m,) and (n,)

    Examples
    --------
    >>> import numpy as np
    >>> rows, columns = axis_order(np.array([[1.0, 0.2], [0.1, 1.2], [0.9, 0.3]]))
    >>> rows.tolist(), columns.tolist()
    ([0, 2, 1], [0, 1])
    """
    known = np.isfinite(values)
    if not known.any():
        return np.arange(values.shape[0]), np.arange(values.shape[1])
    filled = np.where(known, values, values[known].mean())
    centred = filled - filled.mean(axis=0) - filled.mean(axis=1, keepdims=True) + filled.mean()
    left, _, right = np.linalg.svd(centred, full_matrices=False)
    return _along(left[:, 0]), _along(right[0])


def _along(axis: np.ndarray[Any, np.dtype[np.float64]]) -> Order:
    """Order of places on an axis; where rounding alone would place layers, their own order does."""
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
    """Root mean squared difference of each two profiles, over the entries that both have."""
    out = np.zeros((len(profiles), len(profiles)))
    for i, profile in enumerate(profiles):
        differences = profiles[i:] - profile
        both = np.isfinite(differences)
        squares = np.where(both, differences, 0.0) ** 2
        count = both.sum(axis=1)
        shared = count > 0
        out[i, i:][shared] = np.sqrt(squares[shared].sum(axis=1) / count[shared])
        out[i, i:][~shared] = np.nan
    # Two profiles that share no entry are as far apart as any two.
    out = np.where(np.isnan(out), np.nanmax(out), out)
    symmetric: Matrix = np.maximum(out, out.T)
    return symmetric
