"""The two centring maps of a Gram matrix. They act on the last two axes, so also on stacks."""

from __future__ import annotations

from array_api_compat import device

from repsim._typing import Array, Namespace
from repsim.kernels import double_centre

__all__ = ["double_centre", "off_diagonal", "u_centre"]


def off_diagonal(xp: Namespace, k: Array) -> Array:
    """Return the Gram matrices with their diagonals set to zero: K̃."""
    eye = xp.eye(k.shape[-1], dtype=xp.bool, device=device(k))
    out: Array = xp.where(eye, xp.zeros_like(k[..., :1, :1]), k)
    return out


def u_centre(xp: Namespace, k: Array) -> Array:
    """U-centre Gram matrices (Székely & Rizzo 2014, Definition 2).

    With K̃ the Gram whose diagonal is set to zero, A_ij = K_ij − K̃_i·/(n−2) − K̃_·j/(n−2) +
    K̃_··/((n−1)(n−2)) off the diagonal and A_ii = 0. Then ⟨A, B⟩/(n(n−3)) is the unbiased HSIC of
    Song et al. 2012, Eq. 5, without the cancellation of that formula.

    Parameters
    ----------
    xp : namespace
        The array namespace of ``k``.
    k : array, shape (..., n, n)
        Gram matrices; n ≥ 3 for the map, n ≥ 4 for the estimator.

    Returns
    -------
    array, shape (..., n, n)
        Zero diagonal; rows and columns sum to zero.
    """
    n = k.shape[-1]
    off = off_diagonal(xp, k)
    rows = xp.sum(off, axis=-1, keepdims=True) / (n - 2)
    columns = xp.sum(off, axis=-2, keepdims=True) / (n - 2)
    total = xp.sum(rows, axis=-2, keepdims=True) / (n - 1)
    off -= rows  # in place on its own copy, to save n×n arrays
    off -= columns
    off += total
    return off_diagonal(xp, off)
