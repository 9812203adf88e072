"""Checks of attention weights: finite, not negative, every row a distribution over the keys."""

from __future__ import annotations

from repsim._errors import InputError, NonFiniteError
from repsim._grid_options import as_prefix
from repsim._typing import Array, Namespace
from repsim.arrays import describe, known, namespace, promote

__all__ = ["as_weights", "require_tokens"]

TOLERANCE = 0.01
"""How far the sum of a row may be from 1. Rounding to bfloat16 changes it by up to 2⁻⁸ = 0.004,
float16 by less. Weights in float32 may have been half precision before."""


def as_weights(
    operation: str, weights: Array, prefix: int = 0, name: str = "weights"
) -> tuple[Namespace, Array, int]:
    """Return the namespace, the weights in the dtype to compute in, and the prefix tokens.

    Values are checked only if they can be read, so not inside ``jax.jit``.
    """
    extra = as_prefix(operation, prefix)
    xp = namespace(operation, **{name: weights})
    if weights.ndim < 3:
        raise InputError(
            f"{operation}: {name} must be (..., heads, queries, keys).\n"
            f"  {describe(name, weights)}\n"
            f"  For the map of a single head pass {name}[None]."
        )
    if 0 in weights.shape[-2:] or extra >= min(weights.shape[-2:]):
        raise InputError(
            f"{operation}: {name} must have queries and keys beyond the prefix tokens.\n"
            f"  {describe(name, weights)}    prefix: {extra}\n"
            f"  prefix is the number of tokens before the patches: 1 for one CLS token."
        )
    out = promote(xp, weights, operation, name)
    _check_values(operation, xp, out, name, describe(name, weights))
    return xp, out, extra


def require_tokens(operation: str, weights: Array, grid: tuple[int, int], prefix: int) -> None:
    """Raise if queries or keys are not the prefix tokens and the patches of the grid."""
    tokens = grid[0] * grid[1] + prefix
    if weights.shape[-2:] != (tokens, tokens):
        queries, keys = weights.shape[-2:]
        raise InputError(
            f"{operation}: queries and keys of weights must be the prefix tokens and the patches "
            f"of the grid.\n"
            f"  {describe('weights', weights)} → {queries} queries, {keys} keys\n"
            f"  grid: {grid}, prefix: {prefix} → {grid[0]}·{grid[1]} + {prefix} = {tokens} tokens\n"
            f"  {_repair(queries, keys, grid)}"
        )


def _repair(queries: int, keys: int, grid: tuple[int, int]) -> str:
    if queries != keys:
        return "Distances are defined for self-attention, where every token is query and key."
    rest = keys - grid[0] * grid[1]
    if rest >= 0:
        return f"If the grid is right, prefix={rest}."
    return "Is the grid that of the images, and the attention over all of them, not in windows?"


def _check_values(operation: str, xp: Namespace, weights: Array, name: str, line: str) -> None:
    if known(xp.all(xp.isfinite(weights))) is False:
        bad = int(xp.sum(xp.astype(~xp.isfinite(weights), xp.int32)))
        raise NonFiniteError(
            f"{operation}: {name} must be finite.\n"
            f"  {line}: {bad} entries are NaN or infinite\n"
            f"  A softmax over keys that are all masked is NaN: set such rows to 0."
        )
    if known(xp.any(weights < 0)):
        raise InputError(
            f"{operation}: {name} must not be negative.\n"
            f"  {line}: least {float(xp.min(weights)):.3g}\n"
            f"  Attention weights are taken after the softmax; these look like the logits."
        )
    sums = xp.sum(weights, axis=-1)
    # A query whose keys are all masked attends to no key.
    off = xp.where(sums > 0, xp.abs(sums - 1), xp.zeros_like(sums))
    if known(xp.any(off > TOLERANCE)):
        count = int(xp.sum(xp.astype(off > TOLERANCE, xp.int32)))
        raise InputError(
            f"{operation}: every row of {name} must sum to 1 over the keys (or be all 0).\n"
            f"  {line}: {count} rows are off, by up to {float(xp.max(off)):.3g}\n"
            f"  The keys are the last axis; take the weights before dropout, all tokens included."
        )
