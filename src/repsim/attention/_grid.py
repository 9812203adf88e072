"""Distances between the patches of a grid, and their mean in closed form."""

from __future__ import annotations

import numpy as np

from repsim._grid_options import Grid, PatchSize, as_grid, as_patch_size, as_prefix

__all__ = ["grid_distances", "uniform_distance"]


def grid_distances(
    grid: Grid, patch_size: PatchSize = 1.0
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Distance of every patch of a grid to every other.

    >>> from repsim.attention import grid_distances
    >>> grid_distances((1, 3), patch_size=16)
    array([[ 0., 16., 32.],
           [16.,  0., 16.],
           [32., 16.,  0.]])

    ::

        D_ij = √((ph·(r_i − r_j))² + (pw·(c_i − c_j))²)

    with patch i in row r_i and column c_i, counted row by row: i = r_i·gw + c_i.

    Parameters
    ----------
    grid : int or (int, int)
        Patches along the height and the width, (gh, gw), each at least 1; one number for a square.
        N = gh·gw.
    patch_size : float or (float, float), default 1
        Pixels from one patch to the next along the height and the width, (ph, pw), positive. With
        the default, distances are in patches.

    Returns
    -------
    numpy.ndarray, shape (N, N)
        float64, in pixels; symmetric, 0 on the diagonal.

    Raises
    ------
    InputError
        `grid` or `patch_size` is not one or two positive numbers.

    Notes
    -----
    Time and memory O(N²). Distances are between the centres of the patches. For overlapping patches
    `patch_size` is the stride.

    References
    ----------
    Raghu et al. 2021, arXiv:2108.08810, Sec. 4, after Dosovitskiy et al. 2021,
    arXiv:2010.11929, Fig. 7.
    """
    rows, columns = as_grid("grid_distances", grid)
    height, width = as_patch_size("grid_distances", patch_size)
    r, c = np.divmod(np.arange(rows * columns), columns)
    distances = np.hypot(height * (r[:, None] - r), width * (c[:, None] - c))
    return distances.astype(np.float64, copy=False)


def uniform_distance(grid: Grid, patch_size: PatchSize = 1.0, prefix: int = 0) -> float:
    """Mean attention distance of a head that attends equally to all tokens, in closed form.

    >>> from repsim.attention import uniform_distance
    >>> round(uniform_distance(14, 16), 6)  # the 224-pixel images of ViT-B/16, without CLS
    116.492227
    >>> round(uniform_distance(14, 16, prefix=1), 6)
    115.900896

    ::

        d = N/(N + p) · Σ_{|a|<gh, |b|<gw} (gh − |a|)(gw − |b|) √((ph·a)² + (pw·b)²) / N²

    Parameters
    ----------
    grid : int or (int, int)
        Patches along the height and the width, (gh, gw); N = gh·gw.
    patch_size : float or (float, float), default 1
        Pixels from one patch to the next along the height and the width, (ph, pw).
    prefix : int, default 0
        Tokens that are not patches (CLS, distillation, registers), p. They take p/(N + p) of the
        attention, which the plain convention of :func:`mean_distance` counts as distance 0. Pass 0
        to get the reference for the renormalised distance.

    Returns
    -------
    float
        In pixels. Exact up to rounding: no N×N array is made.

    Raises
    ------
    InputError
        `grid` or `patch_size` is not one or two positive numbers, or `prefix` is not a whole
        number of at least 0.

    Notes
    -----
    A head with this mean distance need not attend uniformly. A head well below it is local. Time
    and memory O(N).

    References
    ----------
    Raghu et al. 2021, arXiv:2108.08810, Sec. 4, for the distance.
    """
    rows, columns = as_grid("uniform_distance", grid)
    height, width = as_patch_size("uniform_distance", patch_size)
    extra = as_prefix("uniform_distance", prefix)
    a, b = np.arange(rows)[:, None], np.arange(columns)
    # Each offset except 0 occurs with both signs.
    pairs = (rows - a) * (columns - b) * np.where(a > 0, 2.0, 1.0) * np.where(b > 0, 2.0, 1.0)
    patches = rows * columns
    total = float(np.sum(pairs * np.hypot(height * a, width * b)))
    return total / patches / (patches + extra)
