"""Curves: their frame, colours and key.

Ordered colours (layers, amounts of data) come from viridis without its pale end; unordered colours
come from Okabe & Ito (2008). Colour-blind readers can distinguish both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.transforms import ScaledTranslation

from repsim.plot.parts._beside import PAD, add_colour_bar, make_room
from repsim.plot.parts._plain import plain
from repsim.plot.parts._ticks import NAME_SIZE, name_layers

__all__ = [
    "CONTROLS",
    "DISTINCT",
    "FEW",
    "MARKERS",
    "REFERENCE",
    "Colour",
    "add_key",
    "add_layer_key",
    "frame_lines",
    "in_order",
    "width_for",
]

DISTINCT = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
CONTROLS = ("0.35", "#D55E00", "#CC79A7", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""Beside each colour, because colours of one lightness are one grey in print."""

REFERENCE: dict[str, Any] = {"color": "0.45", "linestyle": (0, (4, 2)), "linewidth": 1.0}
"""The reference line of a curve: chance, uniform attention."""

FEW = 10
"""Up to this number, layers are listed one by one; more are shown along a colour bar."""

SHORTEST, LONGEST = 3.4, 9.0
PER_LAYER = 0.16
"""Inches: the width of a picture with layers along its axis."""


Colour = tuple[float, float, float, float]


def in_order(count: int) -> list[Colour]:
    """Return `count` colours from dark to light, none too pale for a line on white."""
    cmap = matplotlib.colormaps["viridis"]
    return [cmap(float(at)) for at in np.linspace(0.0, 0.85, count)]


def width_for(layers: int) -> float:
    """Width of a picture with this number of layers along its axis, in inches."""
    return float(np.clip(PER_LAYER * layers, SHORTEST, LONGEST))


def frame_lines(ax: Axes) -> None:
    """Set the common frame of all pictures of curves."""
    ax.grid(visible=True, color="0.92", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[:].set_linewidth(0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=NAME_SIZE + 1, length=2.0, width=0.6)
    ax.xaxis.label.set_fontsize(NAME_SIZE + 2)
    ax.yaxis.label.set_fontsize(NAME_SIZE + 2)


def add_key(ax: Axes, handles: Sequence[Artist], title: str | None = None) -> None:
    """List the labels of `handles` right of `ax`, with room taken from it; see `make_room`."""
    to_the_right = ScaledTranslation(PAD / 72, 0, ax.figure.dpi_scale_trans)
    key = ax.legend(
        handles=list(handles),
        labels=[plain(str(handle.get_label())) for handle in handles],
        title=title,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        bbox_transform=ax.transAxes + to_the_right,
        borderaxespad=0.0,
        borderpad=0.0,
        handlelength=1.8,
        handletextpad=0.5,
        labelspacing=0.35,
        frameon=False,
        fontsize=NAME_SIZE,
        title_fontsize=NAME_SIZE + 1,
        alignment="left",
    )
    make_room(ax, [key])


def add_layer_key(ax: Axes, names: Sequence[str], title: str) -> None:
    """Draw a bar that shows the colour of each layer and names as many layers as fit."""
    colours = ListedColormap(in_order(len(names)))
    norm = BoundaryNorm(np.arange(len(names) + 1) - 0.5, len(names))
    mappable = ScalarMappable(norm, colours)
    bar = add_colour_bar(ax, mappable, title, extend="neither")
    bar.ax.minorticks_off()
    name_layers(bar.ax.yaxis, np.arange(len(names)), names)
    make_room(ax, [bar.ax])
