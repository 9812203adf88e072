"""Dissimilarities of all pairs of samples, for RDMs and neighbour lists."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import device

from repsim._typing import Array, Namespace
from repsim.arrays import (
    accumulator_dtype,
    array_namespace,
    detached,
    host_numbers,
    row_blocks,
    unit_scale,
    writable_numbers,
)
from repsim.kernels import squared_distances
from repsim.measures._registry import undefined

__all__ = [
    "NO_DIRECTION",
    "angular",
    "directions",
    "dissimilarities",
    "near_points",
    "placed",
    "squared_euclidean",
    "wide",
    "without_float64",
]

Numbers = np.ndarray[Any, np.dtype[Any]]

NO_DIRECTION = {
    "cosine": "has a row of zeros, which has no direction for a cosine",
    "correlation": "has a row that is the same in all features, which has no correlation with any "
    "other",
}
"""What the warning says of a row whose dissimilarities are undefined."""

SAME_DIRECTION = 4
"""1 − cos up to this number of squared rounding units of the input is zero."""


def dissimilarities(operation: str, name: str, x: Array, kind: str) -> tuple[Array, Array]:
    """Return the dissimilarities of all rows of ``x`` (n, p), and whether all are defined.

    Parameters
    ----------
    operation, name : str
        For the warning if a row has no direction.
    x : array, shape (n, p)
        Checked features.
    kind : {"euclidean", "correlation", "cosine"}
        ‖a − b‖² up to a factor that is the same for all pairs; 1 − r(a, b), r the correlation over
        features; 1 − a·b/(‖a‖‖b‖).

    Returns
    -------
    d : array, shape (n, n)
        In float64 where the device has it; symmetric, non-negative, zero on the diagonal and
        between duplicates.
    defined : array, 0-d, bool
        False if a row of zeros has no cosine, or a constant row no correlation. ``d`` is finite in
        any case.
    """
    xp = array_namespace(x)
    if kind == "euclidean":
        d, _ = squared_euclidean(x)
        return d, xp.all(xp.isfinite(x))
    d, missing = angular(x, kind)
    none = xp.any(missing)
    undefined(operation, name, none, NO_DIRECTION[kind])
    return d, ~none & xp.all(xp.isfinite(d))


def squared_euclidean(x: Array) -> tuple[Array, Array]:
    """Return ‖a − b‖²/s² of all rows of ``x`` (n, p), (n, n), and the power of two s (0-d)."""
    values = without_float64(x)
    if values is not None:
        d, s = squared_euclidean(values)
        return placed(d, x), placed(s, x)
    scaled, scale = _spread(x)
    return squared_distances(array_namespace(x), scaled), scale


def _spread(x: Array) -> tuple[Array, Array]:
    """Return the rows of ``x`` minus the first, divided by a power of two, and this scale."""
    xp = array_namespace(x)
    x = wide(xp, x)
    # If the samples share a large mean, only their differences remain. In float64 these lose
    # nothing but the rounding of the input.
    return unit_scale(xp, x - x[:1, :])


def angular(x: Array, kind: str) -> tuple[Array, Array]:
    """Return 1 − cos or 1 − r of all rows, (n, n), and which rows have no direction, (n, 1)."""
    values = without_float64(x)
    if values is not None:
        found, rows = angular(values, kind)
        return placed(found, x), array_namespace(x).asarray(rows, device=device(x))
    xp = array_namespace(x)
    resolution = float(xp.finfo(x.dtype).eps)
    rows, missing = directions(x, kind)
    # 1 − cos = ‖u − v‖²/2 of unit vectors, which keeps the digits that 1 − cos cancels.
    d = squared_distances(xp, rows)
    # Two rows that differ by a factor have the same direction up to the rounding of the input.
    least = SAME_DIRECTION * resolution**2
    own = writable_numbers(d)
    if own is None:
        d = d / 2
        return xp.where(d <= least, xp.zeros_like(d), d), missing
    for here in row_blocks(own):
        block = own[here]
        block *= 0.5
        np.copyto(block, 0, where=block <= least)
    return d, missing


def near_points(operation: str, name: str, x: Array, kind: str) -> tuple[Array, float, Array]:
    """Return points (n, p) whose squared distances order samples as :func:`dissimilarities` does.

    Parameters
    ----------
    operation, name, x, kind
        As for :func:`dissimilarities`.

    Returns
    -------
    points : array, shape (n, p)
        In float64 where the device has it.
    least : float
        Squared distances of these points up to this one are zero.
    defined : array, 0-d, bool
        As :func:`dissimilarities` returns it.
    """
    xp = array_namespace(x)
    if kind == "euclidean":
        return _spread(x)[0], 0.0, xp.all(xp.isfinite(x))
    points, missing = directions(x, kind)
    none = xp.any(missing)
    undefined(operation, name, none, NO_DIRECTION[kind])
    least = 2 * SAME_DIRECTION * float(xp.finfo(x.dtype).eps) ** 2
    return points, least, ~none & xp.all(xp.isfinite(points))


def directions(x: Array, kind: str) -> tuple[Array, Array]:
    """Return the rows of ``x`` with norm one, and which rows have no direction, (n, 1)."""
    xp = array_namespace(x)
    x = wide(xp, x)
    if kind == "correlation":
        # Subtract the first feature before the mean, so a constant row is exactly zero.
        x = x - x[:, :1]
        x = x - xp.mean(x, axis=1, keepdims=True)
    x, _ = unit_scale(xp, x, axis=1)  # because the square of 1e-30 is zero in float32
    missing = ~xp.any(xp.abs(x) > 0, axis=1, keepdims=True)
    norm = xp.linalg.vector_norm(xp.where(missing, xp.ones_like(x), x), axis=1, keepdims=True)
    return x / norm, missing


def without_float64(x: Array) -> Numbers | None:
    """Return the values of an array in main memory whose framework has no float64 beside it.

    Small distances between samples far from the others need its digits, so NumPy computes them.
    """
    xp = array_namespace(x)
    return None if accumulator_dtype(xp, x) == xp.float64 else host_numbers(detached(x))


def placed(found: Array, beside: Array) -> Array:
    """Return numbers of NumPy in the framework, dtype and place of another array."""
    xp = array_namespace(beside)
    out: Array = xp.asarray(found, dtype=beside.dtype, device=device(beside))
    return out


def wide(xp: Namespace, x: Array) -> Array:
    """Return ``x`` in float64 where the device has it."""
    out: Array = xp.astype(x, accumulator_dtype(xp, x), copy=False)
    return out
