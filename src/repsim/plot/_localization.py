"""Whether tokens keep their places: their similarity with every patch of the input."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from repsim._errors import InputError
from repsim._options import as_count, as_number, got, require_choice
from repsim.plot.parts._beside import add_colour_bar, make_room
from repsim.plot.parts._colours import Scale, colour_scale
from repsim.plot.parts._figure import new_axes, require_axes
from repsim.plot.parts._plain import plain
from repsim.plot.parts._ticks import NAME_SIZE
from repsim.plot.parts._tiles import TileName, add_tile, frame_tiles
from repsim.results import (
    PLACES,
    TOKEN_LOCALIZATION,
    Frame,
    frame_map,
    names_of,
    ordinal,
    token_maps,
    token_scale,
)

__all__ = ["localization"]

MOST = 8
"""Tiles along a side by default."""

SIDE = 4.8
"""Inches: the longer side of the picture."""

FINE = 5
"""With more patches per side, the frame leaves a margin of one patch around the own patch."""

FRAME = "#2ee86b"
"""A colour that is not on the scale."""

GAP = 0.12
"""Space between two tiles, as a part of a tile."""


def localization(
    result: xr.Dataset,
    ax: Axes | None = None,
    layer: str | None = None,
    *,
    across: Literal["space", "time"] = "space",
    every: int | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
) -> Axes:
    """Draw the CKA of each token of a layer with the patches of the input.

    >>> import numpy as np, xarray as xr
    >>> from repsim.plot import localization
    >>> rows, columns = np.divmod(np.arange(4), 2)
    >>> result = xr.Dataset(
    ...     {
    ...         "cka": (("layer", "token", "patch"), np.eye(4)[None]),
    ...         "hit_rate": ("layer", [1.0]),
    ...         "chance": ("layer", [0.25]),
    ...     },
    ...     coords={
    ...         "layer": ["blocks.11"],
    ...         "token_row": (("layer", "token"), rows[None]),
    ...         "token_column": (("layer", "token"), columns[None]),
    ...         "is_prefix": (("layer", "token"), np.zeros((1, 4), bool)),
    ...         "patch_row": (("layer", "patch"), rows[None]),
    ...         "patch_column": (("layer", "patch"), columns[None]),
    ...     },
    ... )
    >>> ax = localization(result)
    >>> ax.images[1].get_array().tolist()  # the token at the upper right
    [[0.0, 1.0], [0.0, 0.0]]

    Each map is drawn at the place of its token, and the patch at that place is framed. A token that
    kept its place is brightest inside the frame. Prefix tokens (CLS) are separate, at the left. The
    title gives the share of all spatial tokens whose most similar patch is their own, and that
    share by chance. For a video, the tokens and patches of the middle frame are drawn.

    ``across="time"`` draws one map for a video instead: the mean CKA of the tokens of each frame,
    downwards, with the patches of each frame, to the right, at the places of the tokens. The frame
    that a token lies in is framed.

    Parameters
    ----------
    result : xarray.Dataset
        A result of `repsim.token_localization`: `cka` (layer, token, patch), with the coordinates
        `token_row`, `token_column`, `is_prefix` (layer, token) and `patch_row`, `patch_column`
        (layer, patch), and `hit_rate` and `chance` along `layer`.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default the current Axes of pyplot if they are empty, or a new figure.
    layer : str, optional
        The layer to draw; optional if `result` has only one.
    across : {"space", "time"}
        Whether to draw the places of the tokens in a frame, or the frames of a video.
    every : int, optional
        Draw the tokens of every n-th row and column; by default so that at most 8 are drawn along a
        side. Not with ``across="time"``.
    vmin, vmax : float, optional
        The ends of the colour scale; by default 0 and the greatest value drawn, but at least 0.2.
        CKA is unbiased here, so it can be below 0 by chance: below `vmin`, the colour fades within
        half of the scale, as in `repsim.plot.heatmap`. Noise such as ±0.03 is dark. Values above
        `vmax` have one colour.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`, or the new Axes. ``ax.images`` are the maps, spatial tokens first, row by row;
        undefined values (NaN) are hatched.

    Raises
    ------
    InputError
        `result` is not such a Dataset, the layer is not in it or has no tokens, `every` is not
        positive or is given with ``across="time"``, the result is not of videos, or `vmin` is not
        less than `vmax`.

    References
    ----------
    Raghu et al. (2021), "Do Vision Transformers See Like Convolutional Neural Networks?", Sec. 6.
    """
    require_axes("localization", ax)
    result = TOKEN_LOCALIZATION.require(result, "localization", "cka", "hit_rate")
    vmin, vmax = (
        end if end is None else as_number("localization", name, end)
        for name, end in (("vmin", vmin), ("vmax", vmax))
    )
    require_choice("localization", "across", across, ("space", "time"))
    one = _one_layer(result, layer)
    if across == "time":
        return _draw_frames(one, ax, every, vmin, vmax)
    tokens = _tokens(one, every)
    scale = _scale(np.stack([*tokens.spatial.values(), *tokens.prefix]), vmin, vmax)
    drawn, prefix = np.split(scale.values, [len(tokens.spatial)])
    colours: dict[str, Any] = {"norm": scale.norm, "cmap": scale.cmap}

    rows, columns = tokens.patches
    step_x, step_y = columns * (1 + GAP), rows * (1 + GAP)
    beside = step_x * (1 + GAP) * bool(tokens.prefix)
    width = beside + len(tokens.columns) * step_x - columns * GAP
    height = max(len(tokens.rows), len(tokens.prefix) * 1.3) * step_y - rows * GAP
    if ax is None:
        inch = SIDE / max(width, height)
        ax = new_axes(width * inch, height * inch, beside=0.9, below=0.6)

    own = tokens.grid == tokens.patches
    first = len(ax.images)
    for (row, column), values in zip(tokens.spatial, drawn, strict=True):
        left = beside + tokens.columns.index(column) * step_x
        top = tokens.rows.index(row) * step_y
        add_tile(ax, values, left, top, **colours)
        if own:
            around = 1.0 if max(rows, columns) > FINE else 0.0
            ax.add_patch(
                Rectangle(
                    (left + column - around, top + row - around),
                    1.0 + 2 * around,
                    1.0 + 2 * around,
                    facecolor="none",
                    edgecolor=FRAME,
                    linewidth=0.8 if around else 1.4,
                    gid="own patch",
                )
            )
    for index, values in enumerate(prefix):
        top = (0.3 + index * 1.3) * step_y
        add_tile(ax, values, 0.0, top, **colours)
        ax.add_artist(TileName(0.0, top - 0.03 * rows, columns, 0.26 * step_y, [f"prefix {index}"]))
    frame_tiles(ax, width, height)
    _title(ax, one, tokens)
    label = "CKA with the patch (unbiased)"
    bar = add_colour_bar(ax, ax.images[first], label, extend=scale.extend)
    make_room(ax, [bar.ax])
    return ax


def _scale(shown: Any, vmin: float | None, vmax: float | None) -> Scale:
    """Return the colours for these values; the ends that are not given are those of the page."""
    low, high = token_scale(shown)
    return colour_scale(
        shown,
        "localization",
        vmin=low if vmin is None else vmin,
        vmax=high if vmax is None else vmax,
        cmap="magma",
    )


def _draw_frames(
    one: xr.Dataset, ax: Axes | None, every: int | None, vmin: float | None, vmax: float | None
) -> Axes:
    if every is not None:
        raise InputError(
            f"localization: across='time' draws every frame, and means over rows and columns.\n"
            f"  got every={got(every)}\n  Leave every out."
        )
    values = frame_map(one)
    if values is None:
        raise InputError(
            "localization: this layer is not of a video, so it has no frames.\n"
            f"  layer: {one['layer'].item()}\n  Leave across out for the places in space."
        )
    frames, of_patches = values.shape
    if ax is None:
        side = SIDE * 0.6
        ax = new_axes(side * min(1.0, of_patches / frames), side, beside=0.9, below=0.9)
    scale = _scale(values, vmin, vmax)
    image = add_tile(ax, scale.values, 0.0, 0.0, norm=scale.norm, cmap=scale.cmap)
    for frame in range(frames):
        own = (2 * frame + 1) * of_patches // (2 * frames)
        style: dict[str, Any] = {"facecolor": "none", "edgecolor": FRAME, "linewidth": 1.4}
        ax.add_patch(Rectangle((own, frame), 1.0, 1.0, gid="own frame", **style))
    frame_tiles(ax, of_patches, frames)
    for axis, count in ((ax.xaxis, of_patches), (ax.yaxis, frames)):
        numbers = range(0, count, math.ceil(count / MOST))
        axis.set_ticks([number + 0.5 for number in numbers], labels=list(map(str, numbers)))
    ax.tick_params(labelsize=NAME_SIZE, length=0.0)
    ax.set_xlabel("frame of the patch", fontsize=NAME_SIZE + 1)
    ax.set_ylabel("frame of the token", fontsize=NAME_SIZE + 1)
    lines = [plain(str(one["layer"].item()))]
    away, chance = (
        float(one[name]) if name in one else math.nan
        for name in ("argmax_time_distance", "chance_time_distance")
    )
    if math.isfinite(away):
        lines.append(f"most similar patch: {away:.3g} frames of the input away")
        lines += [f"(by chance {chance:.3g})"] if math.isfinite(chance) else []
    ax.set_title("\n".join(lines), fontsize=NAME_SIZE + 1)
    label = "CKA with the patch\nat the place of the token (unbiased)"
    make_room(ax, [add_colour_bar(ax, image, label, extend=scale.extend).ax])
    return ax


class _Tokens(NamedTuple):
    """The maps of one layer to draw."""

    spatial: dict[tuple[int, int], np.ndarray[Any, np.dtype[np.float64]]]
    """By row and column of the token."""
    prefix: list[np.ndarray[Any, np.dtype[np.float64]]]
    rows: list[int]
    columns: list[int]
    grid: tuple[int, int]
    """For all spatial tokens, including those not drawn."""
    patches: tuple[int, int]
    """Grid of the patches, the shape of a map."""
    every: int
    frame: Frame | None


def _one_layer(result: xr.Dataset, layer: str | None) -> xr.Dataset:
    names = names_of(result, "layer")
    if (layer is None and len(names) > 1) or (layer is not None and layer not in names):
        raise InputError(
            f"localization: layer must name one layer of the result.\n"
            f"  layer: {layer!r}    result: {', '.join(names)}\n"
            f"  As in localization(result, layer={names[-1]!r})."
        )
    return result.isel(layer=0 if layer is None else names.index(layer))


def _tokens(one: xr.Dataset, every: int | None) -> _Tokens:
    """Arrange the tokens of one layer by place."""
    missing = [name for name in PLACES if name not in one.coords and name not in one]
    if missing:
        raise InputError(
            "localization: result must have the places of tokens and patches.\n"
            f"  missing: {', '.join(missing)}    coordinates: {', '.join(map(str, one.coords))}\n"
            "  Pass what repsim.token_localization returned."
        )
    tokens = token_maps(one)
    if not tokens.placed.any():
        raise InputError(
            "localization: layer must have tokens with a place.\n"
            f"  layer: {one['layer'].item()}    tokens with a row and a column: 0\n"
            "  A pooled layer has no places: draw a layer before the pooling."
        )
    if every is None:
        every = math.ceil(max(tokens.grid) / MOST)
    else:
        every = as_count("localization", "every", every)
    # Start in the middle of the first step, so omitted tokens lie on both sides.
    rows, columns = (list(range((every - 1) // 2, side, every)) for side in tokens.grid)
    places = zip(
        tokens.rows[tokens.placed].tolist(),
        tokens.columns[tokens.placed].tolist(),
        tokens.maps[tokens.placed],
        strict=True,
    )
    spatial = {
        (row, column): values for row, column, values in places if row in rows and column in columns
    }
    prefix = [each for each in tokens.maps[tokens.is_prefix] if np.isfinite(each).any()]
    return _Tokens(
        dict(sorted(spatial.items())),
        prefix,
        rows,
        columns,
        tokens.grid,
        tokens.patches,
        every,
        tokens.frame,
    )


def _title(ax: Axes, one: xr.Dataset, tokens: _Tokens) -> None:
    hit = float(one["hit_rate"])
    lines = [plain(str(one["layer"].item())), "no token has a patch of its own"]
    if np.isfinite(hit):
        framed = " (framed)" if tokens.grid == tokens.patches else ""
        lines[1] = f"own patch{framed} most similar: {hit:.1%} of tokens"
        if "chance" in one:
            lines.append(f"(by chance {float(one['chance']):.1%})")
    if tokens.frame is not None:
        lines.append(f"frame {tokens.frame.of_tokens + 1} of {tokens.frame.total} of the tokens")
    if tokens.every > 1:
        lines.append(f"every {ordinal(tokens.every)} row and column of tokens")
    ax.set_title("\n".join(lines), fontsize=NAME_SIZE + 1)
