"""How widely a head attends, and how much of its attention goes to prefix tokens."""

from __future__ import annotations

from repsim._typing import Array
from repsim.arrays import without_autocast
from repsim.attention._weights import as_weights

__all__ = ["entropy", "prefix_mass"]


@without_autocast
def entropy(weights: Array, prefix: int = 0) -> Array:
    """Entropy of each head's attention, averaged over the query patches.

    >>> import numpy as np
    >>> from repsim.attention import entropy
    >>> entropy(np.stack([np.eye(4), np.full((4, 4), 0.25)])) / np.log(4)
    array([0., 1.])

    ::

        H = mean_i  −Σ_j A_ij log A_ij

    over the query patches i and *all* tokens j, including prefix tokens: H is the entropy of the
    whole distribution that the softmax returns.

    Parameters
    ----------
    weights : array, shape (..., heads, queries, keys)
        Attention weights after the softmax, at least 0. Every row sums to 1 over the keys (within
        0.01, for half precision) or is all 0. Any leading axes; queries and keys may differ in
        number.
    prefix : int, default 0
        Tokens before the patches (CLS, distillation, registers), which are left out as queries.

    Returns
    -------
    array, shape (..., heads)
        In nats, from 0 (one key) to log(keys) (uniform). Same namespace and device as `weights`,
        differentiable; float32 for half precision and float32, float64 for float64 and integers.

    Raises
    ------
    ArrayTypeError
        `weights` is not an array of real numbers.
    InputError
        `weights` is not (..., heads, queries, keys) with more tokens than the prefix, has negative
        entries or rows that do not sum to 1; NaN or infinity (``NonFiniteError``); a bad `prefix`.

    Notes
    -----
    Invariant to permutations of the keys: a low entropy says that a head attends to few tokens, not
    where they are. A weight of 0 adds nothing (0·log 0 = 0), so a row of zeros has entropy 0. Cost
    O(heads·N²), with temporary arrays of the size of `weights`. Under ``jax.jit`` errors about
    values are not possible.

    References
    ----------
    Clark et al. 2019, "What does BERT look at?", arXiv:1906.04341, for the entropy
    of attention heads.
    """
    xp, a, extra = as_weights("entropy", weights, prefix)
    a = a[..., extra:, :]
    some = xp.where(a > 0, a, xp.ones_like(a))  # 0·log 0 = 0, in the gradient too
    rows = -xp.sum(a * xp.log(some), axis=-1)
    out: Array = xp.mean(rows, axis=-1)
    return out


@without_autocast
def prefix_mass(weights: Array, prefix: int) -> Array:
    """Share of each head's attention on prefix tokens, averaged over the query patches.

    >>> import numpy as np
    >>> from repsim.attention import prefix_mass
    >>> prefix_mass(np.full((1, 5, 5), 0.2), prefix=1)
    array([0.2])

    ::

        m = mean_i  Σ_{j < p} A_ij

    over the query patches i. For rows that sum to 1 it is 1 − Σ_{j ≥ p} A_ij, the share that the
    plain :func:`mean_distance` counts as distance 0.

    Parameters
    ----------
    weights : array, shape (..., heads, queries, keys)
        Attention weights after the softmax, at least 0. Every row sums to 1 over the keys (within
        0.01, for half precision) or is all 0. Any leading axes.
    prefix : int
        Tokens before the patches (CLS, distillation, registers), p: the first p queries and keys.

    Returns
    -------
    array, shape (..., heads)
        From 0 to 1; p/(N + p) for uniform attention, 0 without prefix tokens. Same namespace and
        device as `weights`, differentiable; float32 for half precision and float32, float64 for
        float64 and integers.

    Raises
    ------
    ArrayTypeError
        `weights` is not an array of real numbers.
    InputError
        `weights` is not (..., heads, queries, keys) with more tokens than the prefix, has negative
        entries or rows that do not sum to 1; NaN or infinity (``NonFiniteError``); a bad `prefix`.

    Notes
    -----
    A row of zeros has no prefix mass. Cost O(heads·N·p), the check of the rows O(heads·N²). Under
    ``jax.jit`` errors about values are not possible.

    References
    ----------
    Raghu et al. 2021, arXiv:2108.08810, Sec. 4, for the distance that it complements. Darcet et al.
    2024, arXiv:2309.16588, for what registers do to attention.
    """
    xp, a, extra = as_weights("prefix_mass", weights, prefix)
    out: Array = xp.mean(xp.sum(a[..., extra:, :extra], axis=-1), axis=-1)
    return out
