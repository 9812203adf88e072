"""Grids, steps and prefixes as a caller writes them: one parser for every function that asks."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, TypeAlias

import numpy as np

from repsim._errors import InputError
from repsim._options import got, is_whole

MOST = 2**26
"""Tokens or pixels along one side, at most: more than any image or text has."""

__all__ = [
    "Grid",
    "PatchSize",
    "VideoGrid",
    "VideoPatchSize",
    "as_cell",
    "as_grid",
    "as_patch_size",
    "as_prefix",
    "as_video_grid",
    "as_video_patch_size",
]

Grid: TypeAlias = int | tuple[int, int]
"""Patches along the height and the width; one number for a square."""

PatchSize: TypeAlias = float | tuple[float, float]
"""Pixels from one patch to the next along the height and the width; one number for both."""

VideoGrid: TypeAlias = Grid | tuple[int, int, int]
"""A grid, or tokens along time, height and width."""

VideoPatchSize: TypeAlias = PatchSize | tuple[float, float, float]
"""A patch size, or frames and pixels from one token to the next along time, height and width."""


def as_grid(operation: str, grid: Any, argument: str = "grid") -> tuple[int, int]:
    """Return (rows, columns), or raise an error that says what a grid is."""
    pair = _pair(grid)
    if len(pair) != 2 or not all(is_whole(side) and 1 <= side <= MOST for side in pair):
        raise InputError(
            f"{operation}: {argument} must be the number of patches along height and width, each "
            f"at least 1.\n"
            f"  {argument}: {got(grid)}\n"
            f"  For 224×224 images in patches of 16×16 it is (14, 14)."
        )
    return int(pair[0]), int(pair[1])


def as_video_grid(operation: str, grid: Any, argument: str = "grid") -> tuple[int, ...]:
    """Return (rows, columns) or (frames, rows, columns), or raise as :func:`as_grid`."""
    if len(_pair(grid)) != 3:
        return as_grid(operation, grid, argument)
    time, *rest = _pair(grid)
    frames, _ = as_grid(operation, (time, 1), argument)
    return (frames, *as_grid(operation, tuple(rest), argument))


def as_video_patch_size(operation: str, patch_size: Any) -> tuple[float, ...]:
    """Return (height, width) or (frames, height, width), or raise as :func:`as_patch_size`."""
    if len(_pair(patch_size)) != 3:
        return as_patch_size(operation, patch_size)
    time, *rest = _pair(patch_size)
    return (as_patch_size(operation, time)[0], *as_patch_size(operation, tuple(rest)))


def as_patch_size(operation: str, patch_size: Any) -> tuple[float, float]:
    """Return (height, width) in pixels, or raise an error that says what a patch size is."""
    pair = _pair(patch_size)
    if len(pair) != 2 or not all(_is_number(side) and 0 < _float(side) <= MOST for side in pair):
        raise InputError(
            f"{operation}: patch_size must be positive, in pixels: one number, or height and "
            f"width.\n"
            f"  patch_size: {got(patch_size)}\n"
            f"  For a model of patches of 16×16 pixels it is 16."
        )
    return float(pair[0]), float(pair[1])


def as_prefix(operation: str, prefix: Any) -> int:
    """Return the number of tokens before the patches, or raise an error that says what it is."""
    if not is_whole(prefix) or not 0 <= prefix <= MOST:
        raise InputError(
            f"{operation}: prefix must be a whole number of at least 0, the tokens before the "
            f"patches.\n"
            f"  prefix: {got(prefix)}\n"
            f"  With one CLS token it is 1, with CLS and four registers 5."
        )
    return int(prefix)


def as_cell(operation: str, argument: str, value: Any) -> tuple[int, int]:
    """Return (row, column), counted from 0, or raise an error that says what a position is."""
    pair = _pair(value) if isinstance(value, (tuple, list, np.ndarray)) else ()
    if len(pair) != 2 or not all(is_whole(side) and side >= 0 for side in pair):
        raise InputError(
            f"{operation}: {argument} must be two integers of at least 0, (row, column).\n"
            f"  got {got(value)}"
        )
    return int(pair[0]), int(pair[1])


def _pair(value: Any) -> tuple[Any, ...]:
    several = isinstance(value, (tuple, list)) or (isinstance(value, np.ndarray) and value.ndim > 0)
    return tuple(value) if several else (value, value)


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real)


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer beyond every float
        return math.inf
