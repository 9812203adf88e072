"""Attention rollout: how much of each input token reaches each token of the last layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Literal

from array_api_compat import device

from repsim._errors import ArrayTypeError, InputError
from repsim._options import as_count, got, require_choice
from repsim._typing import Array, Namespace
from repsim.arrays import array_namespace, describe, same_home, without_autocast
from repsim.attention._weights import as_weights

__all__ = ["rollout"]

HEADS: dict[str, Callable[[Namespace, Array], Array]] = {
    "mean": lambda xp, a: xp.mean(a, axis=-3),
    "max": lambda xp, a: xp.max(a, axis=-3),
    "min": lambda xp, a: xp.min(a, axis=-3),
}
"""How to combine the heads of a layer into one map."""


@without_autocast
def rollout(
    layers: Iterable[Array],
    *,
    heads: Literal["mean", "max", "min"] = "mean",
    samples: int | None = None,
) -> Array:
    """Attention rollout: the attention of all layers multiplied into one map over the input.

    >>> import numpy as np
    >>> from repsim.attention import rollout
    >>> swap = np.array([[[0.0, 1.0], [1.0, 0.0]]])
    >>> rollout([swap])
    array([[0.5, 0.5],
           [0.5, 0.5]])
    >>> first, last = np.random.default_rng(0).dirichlet(np.ones(5), size=(2, 3, 5))
    >>> rollout([first, last]).sum(axis=-1).round(12)
    array([1., 1., 1., 1., 1.])

    ::

        Ā_l = 0.5·A_l + 0.5·I,  rows divided by their sums
        R = Ā_L ⋯ Ā_2 Ā_1

    with A_l the map of layer l, its heads combined; the identity stands for the skip connection.

    Parameters
    ----------
    layers : iterable of arrays, each of shape (..., heads, tokens, tokens)
        Attention weights after the softmax, one array per layer from the first to the last, at
        least 0. Every row sums to 1 over the keys (within 0.01, for half precision) or is all 0.
        Layers may differ in their number of heads, but not in their tokens or leading axes. The
        argument is iterated once, so a generator works and keeps only one layer in memory.
    heads : {"mean", "max", "min"}, default "mean"
        How to combine the heads of a layer into one map. The paper uses the mean. For the others,
        dividing by the row sums makes the rows distributions again.
    samples : int, optional
        The number of inputs of the model. With it, weights in windows are refused: Swin's have
        samples × windows leading entries, and its windows shift from layer to layer, so that one
        row is not the same token in two layers. The weights alone do not show that.

    Returns
    -------
    array, shape (..., tokens, tokens)
        Rows are the tokens after the last layer and sum to 1 over the tokens of the input. Row 0 is
        that of CLS if there is one. Same namespace and device as the layers, differentiable;
        float32 for half precision and float32, float64 for float64 and integers.

    Raises
    ------
    ArrayTypeError
        A layer is not an array of real numbers, or the layers are of different frameworks or
        devices.
    InputError
        No layers; layers of different tokens or leading axes, or with other keys than queries;
        negative entries or rows that do not sum to 1; NaN or infinity (``NonFiniteError``);
        unknown `heads`; more maps than `samples`.

    Notes
    -----
    The rollout of identities is the identity; the order of the layers matters. A row of zeros
    passes its token on unchanged. Rollout ignores values, norms and MLPs: it says where attention
    could carry a token, not what the model computed. Cost O(L·tokens³) per map. Under ``jax.jit``
    errors about values are not possible.

    References
    ----------
    Abnar & Zuidema 2020, "Quantifying attention flow in transformers", arXiv:2005.00928, Sec. 3.
    """
    require_choice("rollout", "heads", heads, HEADS)
    if samples is not None:
        samples = as_count("rollout", "samples", samples)
    if not isinstance(layers, Iterable) or getattr(layers, "ndim", 1) == 0:
        raise InputError(
            f"rollout: layers must be a list of arrays of weights.\n  got {got(layers)}"
        )
    out: Array | None = None
    for index, weights in enumerate(layers):
        name = f"layers[{index}]"
        xp, a, _ = as_weights("rollout", weights, name=name)
        if a.shape[-1] != a.shape[-2]:
            raise InputError(
                f"rollout: queries and keys must be the same tokens.\n"
                f"  {describe(name, weights)}\n"
                f"  Rollout is defined for self-attention."
            )
        maps = math.prod(a.shape[:-3])
        if samples is not None and maps != samples:
            raise InputError(
                f"rollout: each layer must have one map for each sample.\n"
                f"  {describe(name, weights)} → {maps} maps    samples: {samples}\n"
                f"  Attention in windows has no rollout: windows shift from layer to layer, and a "
                f"row is another token in each."
            )
        mixed = HEADS[heads](xp, a)
        if out is not None:
            _check_alike(out, mixed, weights, name)
        identity = xp.eye(a.shape[-1], dtype=a.dtype, device=device(a))
        mixed = 0.5 * mixed + 0.5 * identity
        mixed = mixed / xp.sum(mixed, axis=-1, keepdims=True)
        out = mixed if out is None else _multiply(mixed, out)
    if out is None:
        raise InputError(
            "rollout: layers must hold at least one array of weights.\n"
            "  layers: 0\n"
            "  Was it a generator that is already exhausted?"
        )
    return out


def _check_alike(before: Array, mixed: Array, weights: Array, name: str) -> None:
    if not same_home(mixed, before):
        raise ArrayTypeError(
            f"rollout: all layers must belong to one framework and device.\n"
            f"  {describe('the layers before', before)}\n  {describe(name, weights)}\n"
            f"  Move or convert them first."
        )
    if mixed.shape != before.shape:
        raise InputError(
            f"rollout: all layers must have the same tokens and leading axes.\n"
            f"  without heads: {tuple(before.shape)} before    {name}: {tuple(mixed.shape)}\n"
            f"  Models that pool or merge tokens between layers have no rollout."
        )


def _multiply(after: Array, before: Array) -> Array:
    xp = array_namespace(after, before)
    dtype = xp.result_type(after.dtype, before.dtype)
    product: Array = xp.matmul(
        xp.astype(after, dtype, copy=False), xp.astype(before, dtype, copy=False)
    )
    return product
