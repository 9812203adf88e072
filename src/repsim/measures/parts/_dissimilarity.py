"""Dissimilarities of all pairs of samples, for RDMs and neighbour lists."""

from __future__ import annotations

from array_api_compat import array_namespace

from repsim._array import accumulator_dtype, unit_scale
from repsim._errors import InputError
from repsim._typing import Array
from repsim.kernels import squared_distances
from repsim.measures._registry import undefined

__all__ = ["DISSIMILARITIES", "dissimilarities", "require_choice"]

DISSIMILARITIES = ("euclidean", "correlation", "cosine")


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
    resolution = float(xp.finfo(x.dtype).eps)
    # If the samples share a large mean, only their differences remain. In float64 these lose
    # nothing but the rounding of the input.
    x = xp.astype(x, accumulator_dtype(xp, x), copy=False)
    if kind == "euclidean":
        scaled, _ = unit_scale(xp, x - x[:1, :])
        return squared_distances(xp, scaled), xp.all(xp.isfinite(x))
    if kind == "correlation":
        # Subtract the first feature before the mean, so a constant row is exactly zero.
        x = x - x[:, :1]
        x = x - xp.mean(x, axis=1, keepdims=True)
    x, _ = unit_scale(xp, x, axis=1)  # because the square of 1e-30 is zero in float32
    missing = ~xp.any(xp.abs(x) > 0, axis=1, keepdims=True)
    norm = xp.linalg.vector_norm(xp.where(missing, xp.ones_like(x), x), axis=1, keepdims=True)
    # 1 − cos = ‖u − v‖²/2 of unit vectors, which keeps the digits that 1 − cos cancels.
    d = squared_distances(xp, x / norm) / 2
    # Two rows that differ by a factor have the same direction up to the rounding of the input.
    d = xp.where(d <= 4 * resolution**2, xp.zeros_like(d), d)
    none = xp.any(missing)
    undefined(
        operation,
        name,
        none,
        "has a row of zeros, which has no direction for a cosine"
        if kind == "cosine"
        else "has a row that is the same in all features, which has no correlation with any other",
    )
    return d, ~none & xp.all(xp.isfinite(d))


def require_choice(operation: str, name: str, choice: object, choices: tuple[str, ...]) -> None:
    """Raise if the value is not one of the choices, and list them."""
    if choice not in choices:
        raise InputError(
            f"{operation}: unknown {name}.\n"
            f"  expected one of {', '.join(map(repr, choices))}\n"
            f"  got {choice!r}"
        )
