"""Partial least squares: regression on the directions of greatest covariance with the target."""

from __future__ import annotations

from array_api_compat import device

from repsim._typing import Array, Namespace
from repsim.arrays import unit_scale
from repsim.measures.parts._geometry import Contrasts
from repsim.measures.parts._rounding import ERRORS, rounding_along, squared_sizes

__all__ = ["pls_predictions"]


def pls_predictions(
    xp: Namespace, samples: Contrasts, target: Array, held: Array, components: int
) -> Array:
    """Predict held-out targets from at most this number of components (NIPALS, not rescaled).

    Parameters
    ----------
    xp : namespace
        Of all arrays.
    samples : Contrasts, shape (m, p)
        Predictors of the training samples.
    target : array, shape (m, q)
        Their targets; columns sum to zero.
    held : array, shape (h, p)
        Predictors of the held-out samples, minus the training mean.
    components : int
        Fewer are used if nothing that the predictors could explain is left.

    Returns
    -------
    array, shape (h, q)
        Predictions minus the training mean.
    """
    train, held, turn = _narrowed(xp, samples.points, held)
    # Weights depend on the targets through their inner products alone, so a basis of their rows
    # is enough, and the predictions are brought back at the end.
    basis = None
    if target.shape[1] > target.shape[0]:
        basis, triangle = xp.linalg.qr(xp.matrix_transpose(target))
        target = xp.matrix_transpose(triangle)
    size, sizes = xp.linalg.vector_norm, squared_sizes(xp, samples)
    whole, many = (size(train), size(target)), 8 * max(train.shape) ** 0.5
    fine = float(xp.finfo(train.dtype).eps)
    shape = held.shape[0], target.shape[1]
    out: Array = xp.zeros(shape, dtype=train.dtype, device=device(train))
    for _ in range(min(components, *train.shape)):
        weights, strength = _covarying(xp, xp.matrix_transpose(train) @ target)
        scores = train @ weights
        # Rounding changes the products of what is left by this much, and those of these weights by
        # less if they are of small features, by more if means are large. It is never less than a
        # single rounding, or the errors of the computation, which are those of all features.
        in_x, in_y = whole[0] * size(target), size(train) * whole[1]
        along = rounding_along(
            xp, xp.matrix_transpose(weights if turn is None else turn @ weights), samples, sizes
        )[0]
        own = along * size(target) + many * samples.resolution * size(scores) * whole[1]
        least = xp.maximum(along * size(target) / ERRORS, many * fine * (in_x + in_y))
        floor = xp.minimum(own, many * samples.resolution * (in_x + in_y))
        counts = strength > xp.maximum(floor, least)
        scores = xp.where(counts, scores, xp.zeros_like(scores))
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


def _narrowed(xp: Namespace, train: Array, held: Array) -> tuple[Array, Array, Array | None]:
    """Rotate the features to a basis of the training samples if they are fewer; the basis too."""
    if train.shape[1] <= train.shape[0]:
        return train, held, None
    basis, triangle = xp.linalg.qr(xp.matrix_transpose(train))
    return xp.matrix_transpose(triangle), held @ basis, basis


def _covarying(xp: Namespace, cross: Array) -> tuple[Array, Array]:
    """Return the left singular vector of the largest singular value, (p, 1), and this value."""
    cross, scale = unit_scale(xp, cross)
    flip = cross.shape[0] < cross.shape[1]
    narrow = xp.matrix_transpose(cross) if flip else cross
    _, vectors = xp.linalg.eigh(xp.matrix_transpose(narrow) @ narrow)
    top = vectors[:, -1:]
    weights = top if flip else cross @ top
    strength = xp.linalg.vector_norm(narrow @ top)
    norm = xp.linalg.vector_norm(weights)
    unit = weights / xp.where(norm > 0, norm, xp.ones_like(norm))
    return unit, strength * scale
