"""Names beside points, each on the side where it covers least."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from repsim._shown import shown
from repsim.plot.parts._plain import plain
from repsim.plot.parts._ticks import NAME_SIZE

__all__ = ["PointNames"]

GAP = 5.0
"""Points between a marker and its name."""

SIDES = (
    (1, 0, "left", "center"),
    (-1, 0, "right", "center"),
    (0, 1, "center", "bottom"),
    (0, -1, "center", "top"),
    (0.7, 0.7, "left", "bottom"),
    (-0.7, -0.7, "right", "top"),
    (0.7, -0.7, "left", "top"),
    (-0.7, 0.7, "right", "bottom"),
)
"""Where a name may stand: right first."""


class PointNames(Artist):
    """Names of points; their sides are chosen each time they are drawn.

    Parameters
    ----------
    points : array of float, (m, 2)
        In data coordinates.
    names, colours : sequence of str
        As many.
    """

    def __init__(self, points: Any, names: Sequence[str], colours: Sequence[str]) -> None:
        super().__init__()
        self._points = np.asarray(points, dtype=np.float64)
        self._texts = [
            Text(0, 0, plain(shown(name)), color=colour, fontsize=NAME_SIZE, zorder=4.0)
            for name, colour in zip(names, colours, strict=True)
        ]
        self.set_zorder(4.0)
        self.set_in_layout(False)

    def draw(self, renderer: Any) -> None:
        """Place the names, then draw them."""
        if self.axes is None or not self.get_visible():
            return
        pixels = self.axes.transData.transform(self._points)
        point = renderer.points_to_pixels(1.0)
        marker = FontProperties(size=NAME_SIZE).get_size_in_points() / 2 * point
        taken = [
            Bbox.from_bounds(x - marker / 2, y - marker / 2, marker, marker) for x, y in pixels
        ]
        frame = self.axes.get_window_extent(renderer)
        for text, (x, y) in zip(self._texts, pixels, strict=True):
            text.set_figure(self.axes.figure)
            best: tuple[float, Any] | None = None
            for right, up, ha, va in SIDES:
                place = x + right * GAP * point, y + up * GAP * point
                text.set(x=place[0], y=place[1], ha=ha, va=va)
                box = text.get_window_extent(renderer)
                cost = _covered(box, taken) + 2 * (_area(box) - _common(box, frame))
                if best is None or cost < best[0] - 1e-9:
                    best = cost, (place, ha, va, box)
            assert best is not None
            place, ha, va, box = best[1]
            text.set(x=place[0], y=place[1], ha=ha, va=va)
            taken.append(box)
            text.draw(renderer)

    def get_texts(self) -> list[Text]:
        """Return the names, placed as last drawn."""
        return list(self._texts)


def _area(box: Any) -> float:
    return float(box.width * box.height)


def _common(a: Any, b: Any) -> float:
    """Return the area that two boxes share."""
    box = Bbox.intersection(a, b)
    return 0.0 if box is None else _area(box)


def _covered(box: Any, others: Sequence[Any]) -> float:
    return sum(_common(box, other) for other in others)
