"""Many small maps in one Axes: tiles of one colour scale, with fitted names above them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from repsim._shown import shown
from repsim.plot.parts._colours import UNDEFINED
from repsim.plot.parts._plain import plain
from repsim.plot.parts._ticks import LINE, NAME_SIZE

__all__ = ["TileName", "add_tile", "columns_for", "frame_tiles"]

LEAST_SIZE = 4.0
"""Smallest font of a name, in points; a name that needs a smaller one is left out."""


class TileName(Text):
    """Lines of text that are fitted, each time they are drawn, into a box in data coordinates.

    If the box is low, they become smaller, down to one line. If the box is narrow, the beginning of
    the first line is cut, because the end of a layer's name is more specific.

    Parameters
    ----------
    left, bottom, width, height : float
        The box; `bottom` is the lower edge of the text.
    lines : sequence of str
        The text; all lines but the first can be left out.
    """

    def __init__(
        self, left: float, bottom: float, width: float, height: float, lines: Sequence[str]
    ) -> None:
        super().__init__(
            left + width / 2,
            bottom,
            plain("\n".join(lines)),
            ha="center",
            va="bottom",
            linespacing=LINE - 0.1,
            fontsize=NAME_SIZE,
        )
        self._lines = list(map(shown, lines))
        self._box = width, height
        self.set_in_layout(False)  # never larger than its box, which the axes contain

    def draw(self, renderer: Any) -> None:
        """Fit the text, then draw it."""
        if self.axes is None or not self.get_visible():
            return
        to_pixels = self.axes.transData
        corner, origin = to_pixels.transform([self._box, (0.0, 0.0)])
        width, height = np.abs(corner - origin)
        points = height * 72 / renderer.points_to_pixels(72)
        lines = self._lines
        size = min(NAME_SIZE, points / (LINE * len(lines)))
        if size < LEAST_SIZE + 1:
            lines = lines[:1]
            size = min(NAME_SIZE, points / LINE)
        if size < LEAST_SIZE:
            self.set_text("")
            return
        self.set_fontsize(size)
        self.set_text(plain("\n".join([self._within(renderer, lines[0], width), *lines[1:]])))
        super().draw(renderer)

    def _within(self, renderer: Any, line: str, width: float) -> str:
        """`line`, or as much of its end as fits into `width` pixels."""
        for start in range(len(line)):
            text = line if start == 0 else "…" + line[start:]
            wide = renderer.get_text_width_height_descent(text, self.get_fontproperties(), False)[0]
            if wide <= width:
                return text
        return ""


def columns_for(tiles: int, width: float, height: float, ax: Axes | None) -> int:
    """Return the number of columns at which tiles of this shape fill `ax` best.

    Without an `ax`, the number that makes the picture somewhat wider than high.
    """
    room = 1.6
    if ax is not None:
        box = ax.get_window_extent()
        room = box.width / max(box.height, 1e-9)

    def tile_size(columns: int) -> float:
        rows = -(-tiles // columns)
        return min(room / (columns * width), 1 / (rows * height))

    best = max(range(1, tiles + 1), key=tile_size)
    # Use the fewest columns for this number of rows, so no row is nearly empty.
    rows = -(-tiles // best)
    return -(-tiles // rows)


def add_tile(
    ax: Axes,
    values: Any,
    left: float,
    top: float,
    *,
    norm: Normalize,
    cmap: str | Colormap,
    interpolation: str = "nearest",
    cell: tuple[float, float] = (1.0, 1.0),
) -> AxesImage:
    """Draw one map with its upper left corner at (left, top); y runs downwards.

    `cell` is the height and width of one of its cells, in data coordinates. Undefined cells (NaN)
    are hatched.
    """
    rows, columns = np.shape(values)
    width, height = columns * cell[1], rows * cell[0]
    image = ax.imshow(
        values,
        norm=norm,
        cmap=cmap,
        interpolation=interpolation,
        extent=(left, left + width, top + height, top),
    )
    if np.isnan(values).any():
        ax.add_patch(Rectangle((left, top), width, height, zorder=-1.0, **UNDEFINED))
    ax.add_patch(
        Rectangle((left, top), width, height, facecolor="none", edgecolor="0.35", linewidth=0.5)
    )
    return image


def frame_tiles(ax: Axes, width: float, height: float) -> None:
    """Show only the tiles: no ticks, no spines, equal aspect."""
    ax.set(xlim=(0.0, width), ylim=(height, 0.0), aspect="equal", xticks=[], yticks=[])
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
