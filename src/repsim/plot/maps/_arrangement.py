"""The layout of pictures side by side: equal rows, one colour bar, one key, within a given width.

matplotlib's own engines keep slots equal, labels included, so pictures with different labels would
differ in size. This one measures the labels and divides the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import LayoutEngine
from matplotlib.legend import Legend

from repsim.plot.parts._beside import PAD, WIDTH

__all__ = ["Arrangement", "Placed"]

EDGE = 0.04
"""Inches: what stays empty along the sides of the figure."""

GAP = 0.1
"""Inches between two pictures with their labels."""

LEAST = 0.2
"""Inches: the least width of a picture, whatever its labels need."""


@dataclass(frozen=True)
class Placed:
    """A picture, its place in the grid, and its height as a part of its width."""

    ax: Axes
    row: int
    column: int
    ratio: float
    shares_bar: bool

    @property
    def whole(self) -> bool:
        """Whether its slot holds its labels too, as that of a picture with its own bar does."""
        return self.ax.get_axes_locator() is not None


class Arrangement(LayoutEngine):
    """Places pictures in rows and columns, the bar right of them and the key below."""

    _adjust_compatible = False
    _colorbar_gridspec = False

    def __init__(self, pictures: Sequence[Placed]) -> None:
        super().__init__()
        self._pictures = pictures
        self.bar: Axes | None = None
        self.key: Legend | None = None
        self._thin = False
        self.height = 1.0
        """Height of the figure that leaves nothing empty, in inches; known after a layout."""

    def set(self, **options: Any) -> None:
        """Set nothing: this engine has no options."""

    def execute(self, fig: Any) -> None:
        """Place everything; labels are measured again because a new size shows other labels."""
        for _ in range(3):
            self._place(fig)

    def fit(self, figure: Figure, *, thin: bool = False) -> None:
        """Lay out, and give the figure the height that it needs.

        With `thin`, labels may be longer than their sides, because they will be broken into lines.
        """
        self._thin = thin
        for _ in range(3):
            self.execute(figure)
            figure.set_size_inches(figure.get_figwidth(), self.height)
        self.execute(figure)

    def _place(self, figure: Any) -> None:
        width, height = figure.get_size_inches()
        rows = 1 + max(each.row for each in self._pictures)
        columns = 1 + max(each.column for each in self._pictures)
        left, right = np.zeros((2, columns))
        above, below = np.zeros((2, rows))
        tallest = np.zeros(columns)
        for each in self._pictures:
            margins = _margins(each.ax, thin=self._thin)
            at, row = each.column, each.row
            left[at], right[at] = max(left[at], margins[0]), max(right[at], margins[2])
            below[row], above[row] = max(below[row], margins[1]), max(above[row], margins[3])
            tallest[at] = max(tallest[at], each.ratio)
        bar_width, of_maps = 0.0, [each.row for each in self._pictures if each.shares_bar]
        if self.bar is not None:
            margins = _margins(self.bar, thin=self._thin)
            bar_width = (PAD + WIDTH) / 72 + margins[2]
            first, last = min(of_maps), max(of_maps)
            below[last], above[first] = max(below[last], margins[1]), max(above[first], margins[3])
        free = width - 2 * EDGE - (left + right).sum() - GAP * (columns - 1) - bar_width
        widths = max(free, LEAST * columns) / tallest / (1 / tallest).sum()
        wides = [
            widths[each.column] + each.whole * (left + right)[each.column]
            for each in self._pictures
        ]
        heights = np.zeros(rows)
        for each, wide in zip(self._pictures, wides, strict=True):
            heights[each.row] = max(heights[each.row], each.ratio * wide)
        key = 0.0 if self.key is None else self.key.get_window_extent().height / figure.dpi + GAP
        fixed = 2 * EDGE + (above + below).sum() + GAP * (rows - 1) + key
        self.height = fixed + heights.sum()
        shrink = min(1.0, max(height - fixed, LEAST * rows) / heights.sum())
        heights *= shrink
        starts = EDGE + np.cumsum(left + right + widths + GAP) - (right + widths + GAP)
        floors = height - EDGE - np.cumsum(above + below + heights + GAP) + below + GAP
        size = np.array([width, height, width, height])
        for each, wide in zip(self._pictures, wides, strict=True):
            start = starts[each.column] - each.whole * left[each.column]
            box = start, floors[each.row], wide, shrink * each.ratio * wide
            each.ax.set_position(tuple(box / size))
        if self.bar is not None:
            floor, top = floors[max(of_maps)], floors[min(of_maps)] + heights[min(of_maps)]
            start = starts[-1] + widths[-1] + right[-1] + PAD / 72
            self.bar.set_position(tuple(np.array([start, floor, WIDTH / 72, top - floor]) / size))
        if self.key is not None:
            self.key.set_bbox_to_anchor((0.5, EDGE / height), figure.transFigure)


def _margins(ax: Axes, *, thin: bool) -> Any:
    """How far what `ax` draws reaches beyond its slot, in inches: left, bottom, right, top.

    With `thin`, only the thickness of its title and labels counts.
    """
    figure: Any = ax.figure
    slot = ax.get_position(original=True).transformed(figure.transFigure)
    drawn = ax.get_tightbbox(for_layout_only=thin)
    if drawn is None:
        return np.zeros(4)
    outwards = np.array([-1, -1, 1, 1])
    return np.maximum(outwards * np.subtract(drawn.extents, slot.extents), 0.0) / figure.dpi
