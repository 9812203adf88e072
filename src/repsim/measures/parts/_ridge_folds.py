"""Ridge regression of one representation on another, with held-out samples."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import device

from repsim._options import as_number, as_numbers
from repsim._typing import Array, Namespace
from repsim.measures.parts._geometry import Contrasts
from repsim.measures.parts._rounding import beyond_rounding

__all__ = [
    "Fold",
    "Mask",
    "as_penalties",
    "fold_errors",
    "interleaved",
    "predict",
    "split",
    "training_samples",
    "training_spectrum",
]

Mask = np.ndarray[Any, np.dtype[np.bool_]]


class Fold(NamedTuple):
    """Centred training predictors X̄ = U diag(s) Vᵀ, and held-out ones in the directions V.

    ``left`` is U (m, r), ``values`` are s (r,), ``held`` is (held-out − training mean) V (h, r),
    ``counts`` marks the directions above rounding, ``size`` is tr(X̄X̄ᵀ)/m.
    """

    left: Array
    values: Array
    held: Array
    counts: Array
    size: Array


def as_penalties(operation: str, ridge: object) -> tuple[float, ...]:
    """Return the penalties of an option ``ridge=``, one number or several, or raise."""
    if isinstance(ridge, Iterable) and getattr(ridge, "ndim", 1) != 0:
        return as_numbers(operation, "ridge", ridge, least=0)
    return (as_number(operation, "ridge", ridge, least=0),)


def interleaved(n: int, fold: int, folds: int) -> Mask:
    """Return which samples are held out: sample i is in fold i mod ``folds``."""
    out: Mask = np.arange(n) % folds == fold
    return out


def split(xp: Namespace, x: Array, held: Mask) -> tuple[Array, Array]:
    """Return training and held-out rows."""
    return (
        xp.take(x, xp.asarray(np.flatnonzero(~held), device=device(x)), axis=0),
        xp.take(x, xp.asarray(np.flatnonzero(held), device=device(x)), axis=0),
    )


def training_samples(x: Contrasts, train: Array, mean: Array) -> Contrasts:
    """Return the training rows (m, p) of samples x minus their mean (1, p), in the same form."""
    dimensions = max(1, train.shape[0] - 1)
    return x._replace(points=train - mean, dimensions=dimensions, mean=x.mean + mean[0, :])


def training_spectrum(xp: Namespace, x: Contrasts, mask: Mask) -> Fold:
    """Decompose the training predictors of a fold of all samples ``x`` (n, p)."""
    train, held = split(xp, x.points, mask)
    mean = xp.mean(train, axis=0, keepdims=True)
    seen = training_samples(x, train, mean)
    left, values, right = xp.linalg.svd(seen.points, full_matrices=False)
    return Fold(
        left,
        values,
        (held - mean) @ xp.matrix_transpose(right),
        beyond_rounding(xp, values, right, seen),
        xp.sum(values * values) / train.shape[0],
    )


def fold_errors(
    xp: Namespace,
    predictors: Fold,
    target: Array,
    mask: Mask,
    penalties: tuple[float, ...],
) -> tuple[Array, Array]:
    """Return the squared error on the held-out samples, and that of the training mean."""
    train, held = split(xp, target, mask)
    mean = xp.mean(train, axis=0, keepdims=True)
    train, held = train - mean, held - mean
    predicted = predict(xp, predictors, train, penalties)
    return xp.sum((held - predicted) ** 2), xp.sum(held * held)


def predict(xp: Namespace, predictors: Fold, train: Array, penalties: tuple[float, ...]) -> Array:
    """Predict held-out targets (h, q) minus their training mean from centred training targets.

    The penalty with the smallest leave-one-out error within the training samples is used (Hastie,
    Tibshirani, Friedman 2009, Eq. 7.64); the first if several are equal.
    """
    coordinates = xp.matrix_transpose(predictors.left) @ train
    shrinkage = [_shrinkage(xp, predictors, penalty) for penalty in penalties]
    chosen = shrinkage[0]
    if len(penalties) > 1:
        least = _left_out(xp, predictors, train, coordinates, chosen)
        for candidate in shrinkage[1:]:
            error = _left_out(xp, predictors, train, coordinates, candidate)
            better = error < least
            chosen = xp.where(better, candidate, chosen)
            least = xp.where(better, error, least)
    safe = xp.where(predictors.counts, predictors.values, xp.ones_like(predictors.values))
    out: Array = predictors.held @ ((chosen / safe)[:, None] * coordinates)
    return out


def _shrinkage(xp: Namespace, fold: Fold, penalty: float) -> Array:
    """Return s²/(s² + λ), λ = penalty · tr(X̄X̄ᵀ)/m, and zero for directions of rounding."""
    power = fold.values * fold.values
    below = xp.where(fold.counts, power + penalty * fold.size, xp.ones_like(power))
    out: Array = xp.where(fold.counts, power / below, xp.zeros_like(power))
    return out


def _left_out(
    xp: Namespace, fold: Fold, train: Array, coordinates: Array, shrinkage: Array
) -> Array:
    """Return Σ (e_i/(1 − h_i))² with h the diagonal of the hat matrix, including the intercept."""
    residual = train - fold.left @ (shrinkage[:, None] * coordinates)
    hat = 1 / train.shape[0] + xp.sum(fold.left * fold.left * shrinkage, axis=1)
    # The error is undefined for a sample that its own fit reproduces: infinite, so this penalty is
    # chosen only if there is no other.
    free = 1 - hat
    tiny = free <= 64 * float(xp.finfo(free.dtype).eps)
    ratio = xp.sum(residual * residual, axis=1) / xp.where(tiny, xp.ones_like(free), free) ** 2
    out: Array = xp.sum(xp.where(tiny, xp.full_like(ratio, float("inf")), ratio))
    return out
