"""Reading a map, and drawing its cells, sides and notes; what stands beside it comes later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_hex
from matplotlib.image import AxesImage
from matplotlib.legend_handler import HandlerBase, HandlerTuple
from matplotlib.patches import Patch, Rectangle

from repsim._shown import shown
from repsim.plot.parts._between import Group
from repsim.plot.parts._chance import Mask, by_chance
from repsim.plot.parts._colours import UNDEFINED, Scale, least_like
from repsim.plot.parts._layer_map import as_layers, layer_map, layer_names, side_titles
from repsim.plot.parts._plain import plain
from repsim.plot.parts._ticks import name_layers, number_layers
from repsim.results import scale_of

__all__ = ["LABELS", "DrawnMap", "LayerMap", "beyond", "draw_map", "name_sides", "read_map"]

LABELS = ("names", "index", "none")

SQUARISH = 2.0
"""Up to this ratio of the two numbers of layers, cells are squares."""

STRIP = 0.04
"""The width of the colours of groups, as a part of the longer side."""

BY_CHANCE = ("#b8b8b8", "#cdb99a")
"""Grey (beige on a grey scale) for cells not above chance; NaN is lighter and hatched."""

Note = Patch | tuple[Patch, ...]
Notes = dict[str, Note]
"""Entries of a key: texts and samples of colour, several of them for a fade."""

SIDE_BY_SIDE: dict[Artist | type, HandlerBase] = {tuple: HandlerTuple(ndivide=None, pad=0.0)}
"""How a key draws the samples of a fade."""


@dataclass(frozen=True)
class LayerMap:
    """What a picture of a map needs from a result."""

    array: xr.DataArray
    names_x: list[str]
    names_y: list[str]
    titles: tuple[str, str]
    """What stands beside the layers of x and of y; names of models need no title."""
    grey: Mask
    level: str
    low: float
    high: float
    similar: bool

    @property
    def undefined(self) -> Mask:
        """Which cells are NaN."""
        missing: Mask = np.isnan(self.array.values)
        return missing

    @property
    def visible(self) -> Any:
        """The values that get a colour of the scale; NaN in other cells."""
        return np.where(self.grey, np.nan, self.array.values)

    @property
    def cmap(self) -> str:
        """The colormap in which bright is alike."""
        return "magma" if self.similar else "viridis_r"

    @property
    def squares(self) -> bool:
        """Whether cells are squares."""
        return max(self.array.shape) <= SQUARISH * min(self.array.shape)


@dataclass
class DrawnMap:
    """A map on its Axes."""

    image: AxesImage
    scale: Scale
    notes: Notes = field(default_factory=dict)
    """What the colours mean that are not on the scale."""


def read_map(result: Any, above_chance: Any, operation: str) -> LayerMap:
    """Return the map of a result, or raise; nothing is drawn."""
    result, of_models = as_layers(result)
    above_chance, _ = as_layers(above_chance)
    array = layer_map(result, operation)
    grey = by_chance(result, array, above_chance, operation) & ~np.isnan(array.values)
    low, high, similar = scale_of(array)
    # Names of models need no title.
    titles = ("", "") if of_models else side_titles(array)
    by_mask = above_chance is None or isinstance(above_chance, xr.DataArray)
    return LayerMap(
        array,
        layer_names(array, "layer_x"),
        layer_names(array, "layer_y"),
        titles,
        grey,
        "" if by_mask else f" (z < {above_chance:g})",
        low,
        high,
        similar,
    )


def draw_map(
    ax: Axes, of: LayerMap, scale: Scale, looks: Mapping[str, Group] | None = None
) -> DrawnMap:
    """Draw the cells of a map, and the colours of groups along its sides."""
    n_x, n_y = of.array.shape
    place: dict[str, Any] = {
        "origin": "lower",
        "interpolation": "nearest",
        "aspect": "equal" if of.squares else "auto",
        "extent": (-0.5, n_y - 0.5, -0.5, n_x - 0.5),
    }
    dull = least_like(scale.colours, BY_CHANCE)
    if of.grey.any():  # below the map, which is transparent there
        ax.imshow(np.where(of.grey, 0.0, np.nan), cmap=ListedColormap([dull]), **place)
    image = ax.imshow(scale.values, cmap=scale.cmap, norm=scale.norm, **place)
    ax.grid(visible=False)
    ax.spines[:].set_linewidth(0.6)
    drawn = DrawnMap(image, scale)
    if of.undefined.any():
        # The hatching shows through the undefined cells.
        ax.add_patch(Rectangle((-0.5, -0.5), n_y, n_x, zorder=-1.0, **UNDEFINED))
        drawn.notes["undefined (NaN)"] = Patch(**UNDEFINED)
    if of.grey.any():
        drawn.notes[f"not above\nchance{of.level}"] = Patch(facecolor=dull, linewidth=0.0)
    if looks is not None:
        drawn.notes |= _draw_groups(ax, looks, of.names_x, of.names_y)
    return drawn


def beyond(scale: Scale) -> Notes:
    """Return notes of the colours beyond the scale; the ends of a colour bar say the same."""
    low, most, least = map(_number, (*scale.ends, scale.least))
    notes: Notes = {}
    if scale.least < scale.ends[0]:
        notes[f"{low} to {least}"] = tuple(map(_sample, scale.fade))
    if scale.extend in ("min", "both"):
        notes[f"below {least}"] = _sample(scale.cmap.get_under())
    if scale.extend in ("max", "both"):
        notes[f"above {most}"] = _sample(scale.cmap.get_over())
    return notes


def _sample(colour: Any) -> Patch:
    return Patch(facecolor=to_hex(colour, keep_alpha=True), linewidth=0.0, antialiased=False)


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")


def name_sides(
    ax: Axes,
    of: LayerMap,
    labels: str,
    *,
    sides: tuple[bool, bool] = (True, True),
    longest: int | None = None,
) -> None:
    """Write names or indices of layers, and the models, along the `sides` x and y of a map."""
    for axis, names, title, wanted in zip(
        (ax.yaxis, ax.xaxis), (of.names_x, of.names_y), of.titles, sides, strict=True
    ):
        if wanted:
            axis.set_label_text(plain(title))
        if labels == "none" or not wanted:
            axis.set_ticks([])
        elif labels == "index":
            number_layers(axis, len(names))
        else:
            name_layers(axis, np.arange(len(names)), names, longest=longest)


def _draw_groups(
    ax: Axes, looks: Mapping[str, Group], names_x: Sequence[str], names_y: Sequence[str]
) -> Notes:
    """Draw the colours of groups left of the map and below it; return the entries of the key."""
    wide = STRIP * max(len(names_x), len(names_y))
    flat: dict[str, Any] = {"linewidth": 0.0, "zorder": 1.5}
    for at, name in enumerate(names_x):
        place = (-0.5 - wide, at - 0.5)
        ax.add_patch(Rectangle(place, wide, 1.0, facecolor=looks[name].colour, **flat))
    for at, name in enumerate(names_y):
        place = (at - 0.5, -0.5 - wide)
        ax.add_patch(Rectangle(place, 1.0, wide, facecolor=looks[name].colour, **flat))
    ax.set_xlim(-0.5 - wide, len(names_y) - 0.5)
    ax.set_ylim(-0.5 - wide, len(names_x) - 0.5)
    return {
        plain(shown(look.name)): Patch(facecolor=look.colour, linewidth=0.0)
        for look in dict.fromkeys(looks[name] for name in (*names_x, *names_y))
    }
