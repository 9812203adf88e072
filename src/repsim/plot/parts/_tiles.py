"""Many small maps in one Axes: tiles of one colour scale, with names that fit above them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from repsim.plot._heatmap import UNDEFINED
from repsim.plot.parts._lines import plain
from repsim.plot.parts._ticks import LINE, NAME_SIZE

__all__ = ["TileName", "add_tile", "columns_for", "frame_tiles"]

LEAST_SIZE = 4.0
"""Points: a name that would have to be smaller is not written."""


class TileName(Text):
    """Lines of text that are fitted, each time they are drawn, into a box in data coordinates.

    They become smaller where the box is low, down to one line; the first line loses its beginning
    where the box is narrow, for the end of a layer's name tells more.

    Parameters
    ----------
    left, bottom, width, height : float
        The box; `bottom` is the edge that the text stands on.
    lines : sequence of str
        What to write; all but the first can be left out.
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
        self._lines = list(lines)
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
        """`line`, or as much of its end as is no wider than `width` pixels."""
        for start in range(len(line)):
            text = line if start == 0 else "…" + line[start:]
            wide = renderer.get_text_width_height_descent(text, self.get_fontproperties(), False)[0]
            if wide <= width:
                return text
        return ""


def columns_for(tiles: int, width: float, height: float, ax: Axes | None) -> int:
    """Return the number of columns with which tiles of this shape fill `ax` best.

    Without an `ax`, what makes a picture somewhat wider than high.
    """
    room = 1.6
    if ax is not None:
        box = ax.get_window_extent()
        room = box.width / max(box.height, 1e-9)

    def tile_size(columns: int) -> float:
        rows = -(-tiles // columns)
        return min(room / (columns * width), 1 / (rows * height))

    best = max(range(1, tiles + 1), key=tile_size)
    # As many rows can do with fewer columns: no row is then nearly empty.
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
    """Draw one map whose upper left corner is at (left, top), y running downwards.

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
    """Show the tiles and nothing else: no ticks, no spines, squares as squares."""
    ax.set(xlim=(0.0, width), ylim=(height, 0.0), aspect="equal", xticks=[], yticks=[])
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
