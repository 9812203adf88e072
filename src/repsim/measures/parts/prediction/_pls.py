"""Partial least squares: regression on the directions of greatest covariance with the target."""

from __future__ import annotations

from array_api_compat import device

from repsim._typing import Array, Namespace
from repsim.arrays import unit_scale

__all__ = ["pls_predictions"]


def pls_predictions(
    xp: Namespace, train: Array, target: Array, held: Array, components: int, resolution: float
) -> Array:
    """Predict held-out targets from at most this number of components (NIPALS, not rescaled).

    Parameters
    ----------
    xp : namespace
        Of all arrays.
    train, target : array, shapes (m, p) and (m, q)
        Predictors and targets of the training samples; columns sum to zero.
    held : array, shape (h, p)
        Predictors of the held-out samples, minus the training mean.
    components : int
        Fewer are used if nothing that the predictors could explain is left.
    resolution : float
        Rounding unit of the data.

    Returns
    -------
    array, shape (h, q)
        Predictions minus the training mean.
    """
    train, held = _narrowed(xp, train, held)
    # Weights depend on the targets through their inner products alone, so a basis of their rows
    # is enough, and the predictions are brought back at the end.
    basis = None
    if target.shape[1] > target.shape[0]:
        basis, triangle = xp.linalg.qr(xp.matrix_transpose(target))
        target = xp.matrix_transpose(triangle)
    size = xp.linalg.vector_norm
    whole, unit = (size(train), size(target)), 8 * resolution * max(train.shape) ** 0.5
    shape = held.shape[0], target.shape[1]
    out: Array = xp.zeros(shape, dtype=train.dtype, device=device(train))
    for _ in range(min(components, *train.shape)):
        # That of the data changes the products of what is left by this much.
        rounding = unit * (whole[0] * size(target) + size(train) * whole[1])
        weights = _covarying(xp, xp.matrix_transpose(train) @ target, rounding)
        scores = train @ weights
        square = xp.sum(scores * scores)
        safe = xp.where(square > 0, square, xp.ones_like(square))
        loadings = xp.matrix_transpose(train) @ scores / safe
        slopes = xp.matrix_transpose(target) @ scores / safe
        train = train - scores * xp.matrix_transpose(loadings)
        target = target - scores * xp.matrix_transpose(slopes)
        there = held @ weights
        held = held - there * xp.matrix_transpose(loadings)
        out = out + there * xp.matrix_transpose(slopes)
    return out if basis is None else out @ xp.matrix_transpose(basis)


def _narrowed(xp: Namespace, train: Array, held: Array) -> tuple[Array, Array]:
    """Rotate the features to a basis of the training samples if they are fewer."""
    if train.shape[1] <= train.shape[0]:
        return train, held
    basis, triangle = xp.linalg.qr(xp.matrix_transpose(train))
    return xp.matrix_transpose(triangle), held @ basis


def _covarying(xp: Namespace, cross: Array, floor: Array) -> Array:
    """Return the left singular vector of the largest singular value, (p, 1); zeros if below."""
    cross, scale = unit_scale(xp, cross)
    flip = cross.shape[0] < cross.shape[1]
    narrow = xp.matrix_transpose(cross) if flip else cross
    _, vectors = xp.linalg.eigh(xp.matrix_transpose(narrow) @ narrow)
    top = vectors[:, -1:]
    weights = top if flip else cross @ top
    strength = xp.linalg.vector_norm(narrow @ top)
    enough = strength * scale > floor
    norm = xp.linalg.vector_norm(weights)
    unit = weights / xp.where(enough, norm, xp.ones_like(norm))
    out: Array = xp.where(enough, unit, xp.zeros_like(unit))
    return out
