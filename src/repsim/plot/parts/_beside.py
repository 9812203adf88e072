"""Placing a colour bar and a key beside a picture, with room taken only from that picture.

The colour bar is a child of the Axes. Locators place both each time they are drawn. The bar is as
tall as the picture for any aspect, and the picture shrinks by the width of the bar and its labels.
Neighbouring Axes do not move, with any layout engine or none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.layout_engine import PlaceHolderLayoutEngine
from matplotlib.transforms import Bbox, BboxBase

from repsim.plot.parts._colours import Extend
from repsim.plot.parts._ticks import NAME_SIZE

__all__ = ["PAD", "WIDTH", "add_colour_bar", "dress_colour_bar", "make_room"]

PAD = 6.0
WIDTH = 9.0
LEAST = 0.3
"""Part of its slot that a picture always keeps."""


def _overhang(ax: Axes, boxes: Iterable[BboxBase | None]) -> Any:
    """How far `boxes` extend beyond `ax`, in pixels: left, bottom, right, top; never negative."""
    drawn = [box for box in boxes if box is not None and np.isfinite(box.extents).all()]
    return np.abs(np.subtract(Bbox.union([ax.bbox, *drawn]).extents, ax.bbox.extents))


def _boxes(artists: Iterable[Artist], renderer: Any) -> list[BboxBase | None]:
    """The boxes of `artists`; of an axis label only its thickness, which alone needs room."""
    return [
        artist.get_tightbbox(renderer, for_layout_only=True)
        if isinstance(artist, Axes)
        else artist.get_tightbbox(renderer)
        for artist in artists
    ]


def _figure_size(ax: Axes) -> Any:
    """Width and height of the area that positions refer to, in pixels.

    This is not ``figure.bbox``, which is the crop while a figure is saved with
    ``bbox_inches="tight"``.
    """
    (left, bottom), (right, top) = ax.figure.transSubfigure.transform([(0, 0), (1, 1)])
    return np.asarray([right - left, top - bottom])


class _ColourBarPlace:
    """Locator of a colour bar: right of `ax` and of the artists that are already there."""

    def __init__(self, ax: Axes, after: Sequence[Artist]) -> None:
        self._ax = ax
        self._after = after

    def __call__(self, axes: Any, renderer: Any) -> Bbox:
        ax = self._ax
        box = ax.get_position()
        width = _figure_size(ax)[0]
        point = ax.figure.dpi / 72 / width
        taken = _overhang(ax, _boxes(self._after, renderer))[2]
        left = box.x1 + taken / width + PAD * point
        return Bbox.from_bounds(left, box.y0, WIDTH * point, box.height)


class _Shrunk:
    """Locator of a picture: its slot minus the room for the artists around it.

    If a layout engine assigns the slots, all artists are inside the slot, including tick labels and
    titles. The engine would otherwise use the space that a fixed aspect leaves and cut them off. If
    the caller placed the Axes, its tick labels lie outside, as is usual in matplotlib, and only
    `artists` are inside.
    """

    def __init__(self, ax: Axes, artists: Sequence[Artist]) -> None:
        self._ax = ax
        self._artists = artists
        self._slot = ax.get_axes_locator()
        self._trial: Bbox | None = None
        self._last = b"", b"", Bbox.unit()

    def __call__(self, axes: Any, renderer: Any) -> Bbox:
        if self._trial is not None:
            return self._trial
        ax = self._ax
        # The stubs of matplotlib do not say that an Axes may have no locator.
        slot = self._slot(ax, renderer) if callable(self._slot) else ax.get_position(original=True)
        if ax.figure.get_layout_engine() is None:
            return self._within(slot, _overhang(ax, _boxes(self._artists, renderer)))
        # One drawing asks many times and measuring is slow. The last place is kept in the same slot
        # if the artists need as much room there as before. While a figure is saved after its
        # layout, nothing changes.
        key = np.asarray(slot.extents).tobytes()
        last_key, last_needed, last = self._last
        is_laid_out = isinstance(ax.figure.get_layout_engine(), PlaceHolderLayoutEngine)
        if last_key == key and is_laid_out:
            return last
        first = self._fitted(slot, Bbox.from_extents(*slot.extents), renderer)
        needed = np.asarray(first.extents).tobytes()
        if (last_key, last_needed) == (key, needed):
            return last
        place = self._fitted(slot, first, renderer)  # other names fit there, maybe longer ones
        self._last = key, needed, place
        return place

    def _fitted(self, slot: BboxBase, trial: Bbox, renderer: Any) -> Bbox:
        """`slot` minus the room that the artists need while the picture is in `trial`."""
        ax = self._ax
        self._trial = trial
        try:
            own = ax.get_tightbbox(  # asks this locator where `ax` is
                renderer, bbox_extra_artists=self._artists_within(), for_layout_only=True
            )
            return self._within(slot, _overhang(ax, [own, *_boxes(ax.child_axes, renderer)]))
        finally:
            self._trial = None

    def _artists_within(self) -> list[Artist]:
        """Everything that `ax` draws except the Axes in it, which are measured separately."""
        artists = self._ax.get_default_bbox_extra_artists()
        return [artist for artist in artists if not isinstance(artist, Axes)]

    def _within(self, slot: BboxBase, pixels: Any) -> Bbox:
        """`slot` minus these pixels on each side, but at least `LEAST` of it."""
        left, bottom, right, top = pixels / np.tile(_figure_size(self._ax), 2)
        x = min(1.0, (1 - LEAST) * slot.width / max(left + right, 1e-9))
        y = min(1.0, (1 - LEAST) * slot.height / max(bottom + top, 1e-9))
        return Bbox.from_extents(
            slot.x0 + x * left, slot.y0 + y * bottom, slot.x1 - x * right, slot.y1 - y * top
        )

    def get_subplotspec(self) -> Any:
        """Return the slot in the grid; `Figure.tight_layout` asks the locator for it."""
        return self._ax.get_subplotspec()


def make_room(ax: Axes, artists: Sequence[Artist]) -> None:
    """Shrink `ax` so that it and the `artists` around it fit in its slot."""
    ax.set_axes_locator(_Shrunk(ax, artists))


def add_colour_bar(
    ax: Axes, mappable: ScalarMappable, label: str, *, extend: Extend, after: Sequence[Artist] = ()
) -> Colorbar:
    """Add a colour bar right of `ax` and of the artists `after`; see `make_room`."""
    bar_ax = ax.inset_axes((1.0, 0.0, 0.05, 1.0))
    bar_ax.set_axes_locator(_ColourBarPlace(ax, after))
    bar = ax.figure.colorbar(mappable, cax=bar_ax, extend=extend, extendfrac=0.03)
    dress_colour_bar(bar, label)
    return bar


def dress_colour_bar(bar: Colorbar, label: str) -> None:
    """Give a colour bar its label, small numbers and thin lines."""
    bar.set_label(label, size=NAME_SIZE + 1)
    bar.ax.tick_params(labelsize=NAME_SIZE, length=2.0, width=0.6)
    bar.outline.set_linewidth(0.6)
