"""How far a head looks: the distance to the tokens, weighted by attention."""

from __future__ import annotations

from array_api_compat import device

from repsim._errors import DegenerateWarning, warn
from repsim._grid_options import Grid, PatchSize, as_grid, as_patch_size
from repsim._options import require_bool
from repsim._typing import Array, Namespace
from repsim.arrays import known, without_autocast
from repsim.attention._grid import grid_distances
from repsim.attention._weights import as_weights, require_tokens

__all__ = ["mean_distance"]


@without_autocast
def mean_distance(
    weights: Array,
    grid: Grid,
    patch_size: PatchSize = 1.0,
    prefix: int = 0,
    *,
    renormalize: bool = False,
) -> Array:
    """Mean attention distance: how far from a patch each head attends.

    >>> import numpy as np
    >>> from repsim.attention import mean_distance
    >>> local, uniform = np.eye(197), np.full((197, 197), 1 / 197)  # CLS and 14×14 patches
    >>> mean_distance(np.stack([local, uniform]), grid=14, patch_size=16, prefix=1).round(2)
    array([  0. , 115.9])
    >>> cls = np.zeros((197, 197)); cls[:, 0] = 0.5; cls += 0.5 * uniform  # half of it at CLS
    >>> for renormalize in (False, True):
    ...     mean_distance(cls[None], 14, 16, prefix=1, renormalize=renormalize).round(2)
    array([57.95])
    array([116.49])

    ::

        plain:         d = mean_i  Σ_j A_ij D_ij
        renormalised:  d = mean_i (Σ_j A_ij D_ij / Σ_j A_ij)

    over the query patches i and the key patches j, with D from :func:`grid_distances`. Prefix
    tokens are left out on both sides.

    Parameters
    ----------
    weights : array, shape (..., heads, queries, keys)
        Attention weights after the softmax, at least 0. Every row sums to 1 over the keys (within
        0.01, for half precision) or is all 0 (a query whose keys are all masked). Queries and keys
        are the p prefix tokens, then the gh·gw patches row by row. Any leading axes.
    grid : int or (int, int)
        Patches along the height and the width, (gh, gw); one number for a square. For attention in
        windows, the grid of a window.
    patch_size : float or (float, float), default 1
        Pixels from one patch to the next along the height and the width, (ph, pw).
    prefix : int, default 0
        Tokens before the patches (CLS, distillation, registers), p.
    renormalize : bool, default False
        Whether each patch's attention to the patches is divided by its sum. The plain convention,
        which the papers use, counts attention to prefix tokens as distance 0. It is therefore
        *smaller for a head that attends to CLS*, however far the rest of its attention reaches.

    Returns
    -------
    array, shape (..., heads)
        In pixels, between 0 and the diagonal of the grid. The papers average it over images. Same
        namespace and device as `weights`, differentiable; float32 for half precision and float32,
        float64 for float64 and integers.

    Raises
    ------
    ArrayTypeError
        `weights` is not an array of real numbers.
    InputError
        `weights` is not (..., heads, queries, keys) for this grid and prefix, has negative entries
        or rows that do not sum to 1; NaN or infinity (``NonFiniteError``); a bad `grid`,
        `patch_size` or `prefix`.

    Warns
    -----
    DegenerateWarning
        Renormalised only: no patch of a head attends to any patch, so its distance is NaN. If this
        holds for some of the patches, the mean is over the others.

    Notes
    -----
    A row of zeros counts as distance 0 in the plain convention and is left out in the renormalised
    one. The plain distance is linear in the weights, so the distance of the mean weights of several
    images is the mean of their distances. It is 0 for the identity, and :func:`uniform_distance`
    for uniform attention.

    Cost O(heads·N²), with one temporary array of the size of `weights`. Under ``jax.jit`` values
    cannot be read, and errors about values and warnings are not possible.

    References
    ----------
    Raghu et al. 2021, arXiv:2108.08810, Sec. 4, Fig. 3. Dosovitskiy et al. 2021, arXiv:2010.11929,
    App. D.7.
    """
    require_bool("mean_distance", "renormalize", renormalize)
    shape, step = as_grid("mean_distance", grid), as_patch_size("mean_distance", patch_size)
    xp, a, extra = as_weights("mean_distance", weights, prefix)
    require_tokens("mean_distance", weights, shape, extra)
    a = a[..., extra:, extra:]
    d = xp.asarray(grid_distances(shape, step), dtype=a.dtype, device=device(a))
    travelled = xp.sum(a * d, axis=-1)
    if not renormalize:
        out: Array = xp.mean(travelled, axis=-1)
        return out
    return _mean_of_ratios(xp, travelled, xp.sum(a, axis=-1))


def _mean_of_ratios(xp: Namespace, travelled: Array, mass: Array) -> Array:
    """Mean over the queries, the last axis, of travelled/mass for queries with mass > 0."""
    some = mass > 0
    # Replace the divisor first, because a gradient through the unused 0/0 would be NaN.
    ratio = travelled / xp.where(some, mass, xp.ones_like(mass))
    count = xp.sum(xp.astype(some, mass.dtype), axis=-1)
    defined = count > 0
    if known(xp.all(defined)) is False:
        heads = int(xp.sum(xp.astype(~defined, xp.int32)))
        warn(
            f"mean_distance: in {heads} of the maps no patch attends to any patch, so their "
            f"renormalised distance is undefined and NaN is returned.",
            DegenerateWarning,
        )
    mean = xp.sum(ratio, axis=-1) / xp.where(defined, count, xp.ones_like(count))
    out: Array = xp.where(defined, mean, xp.full_like(mean, float("nan")))
    return out
