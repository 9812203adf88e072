"""Ridge regression by its normal equations, where these keep the digits."""

from __future__ import annotations

from typing import NamedTuple

from array_api_compat import device

from repsim._typing import Array, Namespace
from repsim.arrays import detached, known
from repsim.measures.parts._ridge_folds import Mask, split

__all__ = ["Normal", "normal_predictions", "normally"]

DIGITS = 1e-8
"""The relative error that solving by products of features may cause."""


class Normal(NamedTuple):
    """The part of a ridge fit that does not depend on the target.

    With more samples than features, ``inverse`` is (X̄ᵀX̄ + λI)⁻¹ (p, p); otherwise
    ``hat`` is X_h X̄ᵀ(X̄X̄ᵀ + λI)⁻¹ (h, m), which maps centred training targets to held-out
    predictions.
    """

    inverse: Array | None
    hat: Array | None


def normally(xp: Namespace, x: Array, mask: Mask, penalty: Array) -> Normal | None:
    """Solve for the predictors ``x`` (n, p) of a fold; None if that would cost digits.

    A decomposition of the features keeps them for any penalty, and takes several times as long.
    """
    train, held = _centred(xp, x, mask)
    m, p = train.shape
    turned = xp.matrix_transpose(train)
    size = xp.sum(train * train)
    if known(xp.isfinite(penalty)) is not True:
        return None
    products = _plus(xp, turned @ train if m > p else train @ turned, penalty)
    if m <= p:
        # Products of centred samples are zero in the direction (1, …, 1), which no centred target
        # has, so any number may stand there.
        products = products + size / m**2
    rounding = float(xp.finfo(x.dtype).eps) * size
    # Without a large penalty, features whose variances are of one size will do. Constant ones have
    # only zeros here, which cannot be solved for.
    if known(rounding < DIGITS * penalty) is not True:
        least = xp.min(xp.linalg.eigvalsh(detached(products)))
        if known(rounding < DIGITS * least) is not True:
            return None
    if m > p:
        return Normal(xp.linalg.inv(products), None)
    hat = xp.linalg.solve(products, train @ xp.matrix_transpose(held))
    return Normal(None, xp.matrix_transpose(hat))


def normal_predictions(xp: Namespace, x: Array, mask: Mask, found: Normal, train: Array) -> Array:
    """Predict held-out targets (h, q) minus their training mean from centred training targets."""
    if found.hat is not None:
        out: Array = found.hat @ train
        return out
    features, held = _centred(xp, x, mask)
    predicted: Array = held @ (found.inverse @ (xp.matrix_transpose(features) @ train))
    return predicted


def _centred(xp: Namespace, x: Array, mask: Mask) -> tuple[Array, Array]:
    train, held = split(xp, x, mask)
    mean = xp.mean(train, axis=0, keepdims=True)
    return train - mean, held - mean


def _plus(xp: Namespace, products: Array, penalty: Array) -> Array:
    out: Array = products + penalty * xp.eye(
        products.shape[0], dtype=products.dtype, device=device(products)
    )
    return out
