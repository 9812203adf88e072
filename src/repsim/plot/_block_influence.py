"""Which blocks turn the residual stream, and which spans of blocks could be left out."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from repsim._options import require_choice
from repsim.plot.parts._beside import add_colour_bar, make_room
from repsim.plot.parts._colours import UNDEFINED
from repsim.plot.parts._figure import new_axes, require_axes, text_width
from repsim.plot.parts._lines import DISTINCT, frame_lines, width_for
from repsim.plot.parts._ticks import NAME_SIZE, name_layers
from repsim.results import BLOCK_INFLUENCE, names_of

__all__ = ["block_influence"]

KINDS = ("lines", "map")
HEIGHT = 2.8
PER_BLOCK, SHORTEST, LONGEST = 0.2, 1.8, 8.0
"""Inches: the height of the lines; a cell of the map, and the limits of its sides."""


def block_influence(
    result: xr.Dataset, ax: Axes | None = None, *, kind: Literal["lines", "map"] = "lines"
) -> Axes:
    """Draw the influence of every block, or the angular distance of every span of blocks.

    >>> import xarray as xr
    >>> from repsim.plot import block_influence
    >>> result = xr.Dataset(
    ...     {
    ...         "influence": ("block", [0.5, 0.1]),
    ...         "angular": (("start", "span"), [[0.33, 0.4], [0.14, float("nan")]]),
    ...     },
    ...     coords={"block": ["h.0", "h.1"], "start": ["h.0", "h.1"], "span": [1, 2]},
    ... )
    >>> block_influence(result).lines[0].get_ydata().tolist()
    [0.5, 0.1]
    >>> block_influence(result, kind="map").images[0].get_array().shape
    (2, 2)

    Parameters
    ----------
    result : xarray.Dataset
        A result of `repsim.block_influence`: `influence` (block) and optionally
        `influence_standard_error` for the lines, `angular` (start, span) for the map.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default the current Axes of pyplot if they are empty, or a new figure.
    kind : {"lines", "map"}
        ``"lines"``: influence by block, with bands of one standard error to each side. ``"map"``:
        the angular distance, with the start of the span upwards and its length to the right. Its
        colours begin at 0, where a span changes no direction, and end at the largest distance, so
        spans of nearly equal distance look alike. A circle marks the best start of each length.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`, or the new Axes. Undefined values (NaN) are gaps in the line. In the map, spans beyond
        the last block are blank, and other undefined cells are hatched.

    Raises
    ------
    InputError
        `result` is not such a Dataset, or `kind` is unknown.

    References
    ----------
    Gromov et al. (2024), "The Unreasonable Ineffectiveness of the Deeper Layers".
    """
    require_axes("block_influence", ax)
    require_choice("block_influence", "kind", kind, KINDS)
    if kind == "lines":
        error = "influence_standard_error"
        wanted = BLOCK_INFLUENCE.require(result, "block_influence", "influence", optional=(error,))
        return _draw_lines(wanted, ax)
    return _draw_map(BLOCK_INFLUENCE.require(result, "block_influence", "angular"), ax)


def _draw_lines(result: xr.Dataset, ax: Axes | None) -> Axes:
    names, values = names_of(result, "block"), result["influence"].values
    if ax is None:
        ax = new_axes(width_for(len(names)), HEIGHT, beside=0.6, below=0.4 + text_width(names))
    frame_lines(ax)
    at, colour = np.arange(len(names)), DISTINCT[0]
    ax.plot(at, values, marker="o", markersize=3.0, linewidth=1.2, color=colour)
    if "influence_standard_error" in result:
        errors = result["influence_standard_error"].values
        band: dict[str, Any] = {"color": colour, "alpha": 0.2, "linewidth": 0.0, "zorder": 1.0}
        if np.isfinite(errors).any():
            ax.fill_between(at, values - errors, values + errors, **band)
    ax.set_xlim(-0.5, len(names) - 0.5)
    ax.set_ylim(bottom=0.0)
    ax.set_ylabel("influence, 1 − cosine")
    ax.set_xlabel("block")
    name_layers(ax.xaxis, at, names)
    return ax


def _draw_map(result: xr.Dataset, ax: Axes | None) -> Axes:
    names, values = names_of(result, "start"), result["angular"].values
    spans = [int(span) for span in result["span"].values]
    sides = [float(np.clip(PER_BLOCK * n, SHORTEST, LONGEST)) for n in (len(spans), len(names))]
    if ax is None:
        ax = new_axes(*sides, beside=1.2 + text_width(names), below=0.6)
    known = np.isfinite(values)
    largest = float(values.max(where=known, initial=0.0))
    image = ax.imshow(
        values,
        cmap="viridis",
        vmin=0.0,
        vmax=largest if largest > 0 else 1.0,
        origin="lower",
        interpolation="nearest",
        aspect="auto",
    )
    for start, column in np.argwhere(~known):
        if known[start, column:].any():  # shorter than a span that exists
            ax.add_patch(Rectangle((column - 0.5, start - 0.5), 1.0, 1.0, zorder=-1.0, **UNDEFINED))
    columns = np.flatnonzero(known.any(axis=0))
    best = [int(np.nanargmin(values[:, column])) for column in columns]
    circle: dict[str, Any] = {
        "marker": "o",
        "markersize": 4.0,
        "markerfacecolor": "none",
        "linestyle": "none",
        "path_effects": [withStroke(linewidth=2.2, foreground="black")],  # seen on bright cells
    }
    ax.plot(columns, best, color="white", **circle)
    ax.set_xlim(-0.5, len(spans) - 0.5)
    ax.set_ylim(-0.5, len(names) - 0.5)
    ax.grid(visible=False)
    ax.spines[:].set_linewidth(0.6)
    ax.set_ylabel("first block of the span")
    ax.set_xlabel("length of the span, in blocks\n(○: the least distance of this length)")
    name_layers(ax.yaxis, np.arange(len(names)), names)
    ax.tick_params(axis="x", labelsize=NAME_SIZE, length=2.0, width=0.6)
    ticks = MaxNLocator(8, integer=True).tick_values(0, max(len(spans) - 1, 1))
    shown = [int(tick) for tick in ticks if 0 <= tick < len(spans)]
    ax.set_xticks(shown, [str(spans[tick]) for tick in shown])
    bar = add_colour_bar(ax, image, BLOCK_INFLUENCE.label(result, "angular"), extend="neither")
    make_room(ax, [bar.ax])
    return ax
