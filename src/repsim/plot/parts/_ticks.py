"""Layer names as tick labels: as many as fit without touching, at every size of the axes.

The choice is made when the ticks are drawn, not when the picture is built. It is therefore right
after a layout engine ran, or after resizing, zooming or changing the label size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axis import Axis, XAxis
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import Formatter, Locator
from numpy.typing import ArrayLike

from repsim._shown import shown
from repsim.plot.parts._plain import plain

__all__ = ["NAME_SIZE", "name_layers", "number_layers"]

NAME_SIZE = 7.0
"""Size of a layer's name, in points."""

LINE = 1.3
"""Height of a line of text divided by its font size, with some space."""


STYLE: dict[str, Any] = {"labelsize": NAME_SIZE, "length": 2.0, "width": 0.6, "pad": 2.0}


class LayerLocator(Locator):
    """Ticks at evenly chosen layers, always including the first and the last.

    Parameters
    ----------
    positions : array-like of float, (layers,)
        Where the layers lie on the axis, increasing.
    """

    def __init__(self, positions: ArrayLike) -> None:
        self._positions = np.asarray(positions, dtype=np.float64)

    def __call__(self) -> Any:
        assert self.axis is not None
        return self.tick_values(*self.axis.get_view_interval())

    def tick_values(self, vmin: float, vmax: float) -> Any:
        """Return the positions of the layers to name when vmin to vmax is in view."""
        low, high = min(vmin, vmax), max(vmin, vmax)
        seen = self._positions[(self._positions >= low) & (self._positions <= high)]
        if len(seen) < 2:
            return seen
        points = self._length() * (seen[-1] - seen[0]) / (high - low)
        layers_apart = int(np.ceil(self._spacing() * (len(seen) - 1) / max(points, 1e-9)))
        if layers_apart >= len(seen):
            return seen[:1]
        # Rounding an even division keeps whole gaps of at least `layers_apart` layers.
        count = (len(seen) - 1) // layers_apart + 1
        return seen[np.linspace(0, len(seen) - 1, count).round().astype(int)]

    def _length(self) -> float:
        """Length of the axis on paper, in points."""
        axes = self.axis.axes  # type: ignore[union-attr]
        box = axes.get_window_extent()
        pixels = box.width if isinstance(self.axis, XAxis) else box.height
        return float(pixels * 72 / axes.figure.dpi)

    def _font_size(self) -> float:
        assert isinstance(self.axis, Axis)
        size = self.axis.get_tick_params().get("labelsize", NAME_SIZE)
        return float(FontProperties(size=size).get_size_in_points())

    def _spacing(self) -> float:
        """Least distance between two names, in points: the line height of their font."""
        return self._font_size() * LINE


class IndexLocator(LayerLocator):
    """Ticks at every 1, 2, 5, 10, 20, … layers from layer 0, as many as fit with some space."""

    def tick_values(self, vmin: float, vmax: float) -> Any:
        """Return the positions of the layers to number when vmin to vmax is in view."""
        low, high = min(vmin, vmax), max(vmin, vmax)
        shown = self._positions[(self._positions >= low) & (self._positions <= high)]
        per_layer = self._length() / max(high - low, 1e-9)
        digits = len(str(len(self._positions) - 1)) if isinstance(self.axis, XAxis) else 1
        least = self._font_size() * (1.0 + 0.7 * digits)
        steps = (ten * step for ten in 10 ** np.arange(9) for step in (1, 2, 5))
        step = next(step for step in steps if step * per_layer >= least or step > len(shown))
        return shown[shown % step == 0]


class LayerFormatter(Formatter):
    """The name of the layer at a position, or of the nearest one (under the mouse)."""

    def __init__(self, positions: ArrayLike, names: Sequence[str], longest: int | None) -> None:
        self._positions = np.asarray(positions, dtype=np.float64)
        self._names = [plain(_end(shown(name), longest)) for name in names]

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Return the name of the layer nearest to `x`."""
        return self._names[int(np.abs(self._positions - x).argmin())]


def _end(name: str, longest: int | None) -> str:
    """Return `name`, or its end after "…": the end of a layer's name says which one it is."""
    return name if longest is None or len(name) <= longest else "…" + name[1 - longest :]


def name_layers(
    axis: Axis, positions: ArrayLike, names: Sequence[str], *, longest: int | None = None
) -> None:
    """Write layer names along `axis`; rotated along a horizontal axis.

    Names are in full, or the last `longest` characters of those that are longer.
    """
    axis.set_major_locator(LayerLocator(positions))
    axis.set_major_formatter(LayerFormatter(positions, names, longest))
    rotation = 90 if isinstance(axis, XAxis) else 0
    axis.set_tick_params(**STYLE, labelrotation=rotation)


def number_layers(axis: Axis, count: int) -> None:
    """Write round layer indices along `axis`, from 0."""
    axis.set_major_locator(IndexLocator(np.arange(count)))
    axis.set_major_formatter("{x:.0f}")
    axis.set_tick_params(**STYLE, labelrotation=0)
