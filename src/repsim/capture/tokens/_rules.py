"""Rules from sizes to positions: grid, prefix and windows.

They are functions of plain numbers, so a table can test them without a model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

__all__ = [
    "MOST_PREFIX",
    "Convolution",
    "Move",
    "Size",
    "grid_of_map",
    "grid_of_sequence",
    "prefix_of_sequence",
    "real_in_windows",
    "reduction",
    "tiles",
    "window_of",
]

Size: TypeAlias = tuple[int, int]
"""Height and width."""

MOST_PREFIX = 16
"""The most class, distillation and register tokens that a sequence may have."""


@dataclass(frozen=True, slots=True)
class Convolution:
    """The sizes (height, width) that a two-dimensional convolution led from and to."""

    source: Size
    result: Size
    stride: Size


@dataclass(frozen=True, slots=True)
class Move:
    """A padding or cyclic shift of a tensor with four axes.

    Attributes
    ----------
    before, after : tuple of int
        Its shape before and after. A shift does not change it.
    by : tuple of int
        The number of places by which each axis moved towards its end.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    by: tuple[int, ...]


# -- which grid ------------------------------------------------------------------------------------


def grid_of_sequence(
    n: int,
    maps: Sequence[Size],
    *,
    prefix: int | None = None,
    declared: int | None = None,
    merging: bool = True,
) -> tuple[Size, int] | None:
    """Return the grid and the prefix of a sequence of n tokens; None if no map fits.

    The patches come from the map that leaves the fewest other tokens; if several leave equally few,
    from the latest of these. The latest map of all may be wrong, because convolutions inside
    attention reduce keys, and later stages are smaller. Unless somebody says how many other tokens
    there are, they are no more than the patches.

    Parameters
    ----------
    n : int
        Tokens, prefix and patches together.
    maps : sequence of (int, int)
        The sizes of the earlier outputs of convolutions, in order.
    prefix : int, optional
        The number of tokens before the patches, if the caller passed it.
    declared : int, optional
        The number that the model declares. Layers before these tokens are added have none.
    merging : bool, default True
        Whether patches may have been merged after the last convolution.
    """
    if prefix is not None:
        allowed = {prefix}
    elif declared is not None:
        allowed = {declared, 0}
    else:
        allowed = set(range(MOST_PREFIX + 1))
    latest_first = list(dict.fromkeys(reversed(maps)))
    fitting = [(n - h * w, (h, w)) for h, w in latest_first if n - h * w in allowed]
    if prefix is None and declared is None:  # more other tokens than patches are another sequence
        fitting = [(over, (h, w)) for over, (h, w) in fitting if over <= h * w]
    if fitting:
        over, size = min(fitting, key=lambda each: each[0])
        return size, over
    # A single token comes from pooling, not from merging.
    if merging and 0 in allowed and n > 1:
        for size in latest_first:
            if smaller := _merged(n, size):
                return smaller, 0
    return None


def prefix_of_sequence(
    n: int,
    maps: Sequence[Size],
    *,
    prefix: int | None = None,
    declared: int | None = None,
    around: int | None = None,
) -> int | None:
    """Return how many of n tokens come before the patches; None if unknown.

    Parameters
    ----------
    n, maps, prefix, declared
        As in :func:`grid_of_sequence`.
    around : int, optional
        The number that a module around these tokens declares. It is used if no map fits: tokens may
        have been dropped, or only the prefix may remain.
    """
    if prefix is not None:
        return prefix if prefix <= n else None
    known = declared if around is None else around
    if known == 0:
        return 0
    if found := grid_of_sequence(n, maps, declared=known):
        return found[1]
    return around if around is not None and around <= n else None


def grid_of_map(
    axes: tuple[int, int, int],
    image: Size | None,
    maps: Sequence[Size],
    *,
    channels_last: bool | None = None,
    mixed: bool = True,
) -> tuple[Size, bool] | None:
    """Return the size of a map and whether its channels are first; None if ambiguous.

    Parameters
    ----------
    axes : (int, int, int)
        The axes after the samples.
    image : (int, int), optional
        Height and width of the model's input; a map has the same aspect.
    maps : sequence of (int, int)
        Maps of convolutions; the map is one of these, or one of them reduced by an integer.
    channels_last : bool, optional
        If the caller passed it.
    mixed : bool, default True
        Whether the model has layers of both kinds. If not, channels are first when sizes do not
        decide.
    """
    first, last = (axes[1], axes[2]), (axes[0], axes[1])
    if channels_last is not None:
        return (last, False) if channels_last else (first, True)
    both = [(first, True), (last, False)]
    shaped = both if image is None else [each for each in both if _has_aspect(each[0], image)]
    derived = [each for each in both if any(reduction(m, each[0]) for m in maps)]
    if len(shaped) == 1:
        return shaped[0]
    if len(derived) == 1:
        return derived[0]
    if not mixed and len(shaped) == 2:
        return first, True
    return None


def window_of(keys: int, sizes: Iterable[Size]) -> Size | None:
    """Return the first window with this number of positions."""
    return next((size for size in sizes if math.prod(size) == keys), None)


def real_in_windows(
    size: Size, window: Size, moves: Sequence[Move]
) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]] | None:
    """Return which positions of each window hold tokens of the map, (windows, positions).

    A map is padded to whole windows. In shifted windows the padding moves with the map.

    Parameters
    ----------
    size : (int, int)
        Rows and columns of the map.
    window : (int, int)
        Rows and columns of a window.
    moves : sequence of Move
        The earlier paddings and shifts, in order.

    Returns
    -------
    numpy.ndarray or None
        None if the map needs padding but no padding to whole windows was seen.
    """
    rows, columns = (-(-a // b) * b for a, b in zip(size, window, strict=True))
    board = np.ones((rows, columns), dtype=bool)
    if (rows, columns) != size:
        for at in range(len(moves) - 1, -1, -1):
            move = moves[at]
            for axis in (1, 2):  # channels last, then channels first
                if move.after[axis : axis + 2] == (rows, columns) != move.before[axis : axis + 2]:
                    break
            else:
                continue
            break
        else:
            return None
        top, left = move.by[axis], move.by[axis + 1]
        board[:] = False
        board[top : top + size[0], left : left + size[1]] = True
        for later in moves[at + 1 :]:
            if later.before == later.after and later.after[axis : axis + 2] == (rows, columns):
                board = np.roll(board, later.by[axis : axis + 2], axis=(0, 1))
    cut = board.reshape(rows // window[0], window[0], columns // window[1], window[1])
    return cut.transpose(0, 2, 1, 3).reshape(-1, math.prod(window))


def tiles(patches: int, image: Size) -> Size | None:
    """Return the grid of square patches that tile an image exactly; None if there is none."""
    height, width = image
    side = math.isqrt(height * width // patches) if patches > 0 else 0
    if not side or height % side or width % side or height * width != patches * side**2:
        return None
    return height // side, width // side


def reduction(size: Size, smaller: Size) -> int | None:
    """Return the integer by which both sides of a map were reduced, up to rounding.

    Merging and pooling round up or down, and pad or drop the remainder. If several integers fit, a
    power of two is preferred, because stages merge by two repeatedly. Returns None if no integer
    fits, or if two fit and neither is a power of two.
    """
    if size == smaller:
        return 1
    if min(smaller) < 1 or smaller[0] > size[0] or smaller[1] > size[1]:
        return None
    fitting = [
        by
        for by in range(2, max(size) + 1)
        if all(b in (a // by, -(-a // by)) for a, b in zip(size, smaller, strict=True))
    ]
    exact = [by for by in fitting if size == (smaller[0] * by, smaller[1] * by)]
    halvings = [by for by in fitting if by & (by - 1) == 0]
    for choice in (exact, halvings, fitting):
        if len(choice) == 1:
            return choice[0]
    return None


def _merged(n: int, size: Size) -> Size | None:
    """Return the grid of n tokens after merging patches by one integer on both sides.

    The merge is exact, or by a power of two with the last row and column padded. None if there is
    no such grid.
    """
    for by in range(2, max(size) + 1):
        smaller = (-(-size[0] // by), -(-size[1] // by))
        exact = size == (smaller[0] * by, smaller[1] * by)
        if math.prod(smaller) == n and (exact or by & (by - 1) == 0):
            return smaller
    return None


def _has_aspect(size: Size, image: Size) -> bool:
    (height, width), (tall, wide) = size, image
    if height > tall or width > wide:
        return False
    # Strides round sizes; on a square image they round equally in both directions.
    slack = 0 if tall == wide else max(tall, wide)
    return abs(height * wide - width * tall) <= slack
