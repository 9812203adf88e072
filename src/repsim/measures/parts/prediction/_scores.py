"""Scores of predictions, one for each column, and their mean or median."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import device

from repsim._errors import InputError
from repsim._options import got
from repsim._typing import Array, Namespace
from repsim.arrays import to_numpy, unit_scale
from repsim.estimators import within_one
from repsim.kernels import centre_features

__all__ = ["REDUCTIONS", "SCORES", "column_scores", "corrected", "reduced"]

SCORES = ("pearson", "r2")
REDUCTIONS = ("mean", "median")

FLAT = 64
"""Predictions whose spread is below this number of rounding units are constant."""


def column_scores(
    xp: Namespace, predicted: Array, target: Array, score: str
) -> tuple[Array, Array]:
    """Return the score of each column (q,), and which columns have none.

    ``target`` (n, q) has columns that sum to zero and are not constant. A constant prediction has
    no correlation.
    """
    y, scale = unit_scale(xp, target, axis=0)
    if score == "r2":
        left = y - predicted / scale
        value = 1 - xp.sum(left * left, axis=0) / xp.sum(y * y, axis=0)
        return value, xp.zeros_like(value) > 0
    # The size of the predictions does not matter for a correlation, and may be tiny.
    scaled, _ = unit_scale(xp, predicted, axis=0)
    p, spread = unit_scale(xp, centre_features(xp, scaled), axis=0)
    squares = xp.sum(p * p, axis=0)
    floor = FLAT * float(xp.finfo(p.dtype).eps)
    flat = (squares <= 0) | (spread[0, :] <= floor)
    safe = xp.where(flat, xp.ones_like(squares), squares)
    value = xp.sum(p * y, axis=0) / (xp.sqrt(safe) * xp.linalg.vector_norm(y, axis=0))
    return within_one(xp, value), flat


def corrected(operation: str, xp: Namespace, scores: Array, reliability: Any, score: str) -> Array:
    """Divide scores (q,) by the highest that noise in the targets allows."""
    if reliability is None:
        return scores
    try:
        given = np.asarray(to_numpy(reliability), dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        given = np.asarray(np.nan)
    if given.ndim > 1 or not np.all((given > 0) & (given <= 1)):
        raise InputError(
            f"{operation}: reliability must be numbers above 0 and up to 1.\n"
            f"  got {got(reliability)}\n"
            f"  It is the correlation of two independent measurements of each column. Drop columns "
            f"whose measurements do not correlate."
        )
    if given.ndim and given.shape != (scores.shape[0],):
        raise InputError(
            f"{operation}: reliability must have one number for each column of y.\n"
            f"  got {given.shape[0]} for {scores.shape[0]} columns"
        )
    # Noise in y lowers a correlation by the root of the reliability, and R² by the reliability.
    ceiling = np.sqrt(given) if score == "pearson" else given
    out: Array = scores / xp.asarray(ceiling, dtype=scores.dtype, device=device(scores))
    return out


def reduced(xp: Namespace, scores: Array, how: str) -> Array:
    """Return the mean or the median of (q,)."""
    if how == "mean":
        out: Array = xp.mean(scores)
        return out
    ordered = xp.sort(scores)
    q = scores.shape[0]
    middle: Array = (ordered[(q - 1) // 2] + ordered[q // 2]) / 2
    return middle
