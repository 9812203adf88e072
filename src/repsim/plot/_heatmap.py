"""A map: every layer of one model against every layer of the other, or models by models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.legend import Legend
from matplotlib.patches import Patch, Rectangle
from matplotlib.transforms import ScaledTranslation

from repsim._options import require_bool, require_text
from repsim._shown import shown
from repsim.plot.parts._beside import PAD, add_colour_bar, make_room
from repsim.plot.parts._between import Group, groups_of
from repsim.plot.parts._chance import by_chance
from repsim.plot.parts._colours import colour_scale, least_like
from repsim.plot.parts._figure import new_axes, require_axes, text_width
from repsim.plot.parts._layer_map import (
    as_layers,
    layer_map,
    layer_names,
    measure_label,
    model_name,
)
from repsim.plot.parts._plain import plain
from repsim.plot.parts._ticks import NAME_SIZE, name_layers
from repsim.results import scale_of

__all__ = ["heatmap"]

CELL = 0.2
SHORTEST, LONGEST = 2.2, 9.0
"""Inches: the side of a cell in a small map, and the limits of a side of the map."""

SQUARISH = 2.0
"""Up to this ratio of the two numbers of layers, cells are squares."""

STRIP = 0.04
"""The width of the colours of groups, as a part of the longer side."""

UNDEFINED: dict[str, Any] = {
    "facecolor": "0.88",
    "edgecolor": "0.55",
    "hatch": "//////",
    "linewidth": 0.0,
}

BY_CHANCE = ("#b8b8b8", "#cdb99a")
"""Grey (beige on a grey scale) for cells not above chance; NaN is lighter and hatched."""


def heatmap(
    result: xr.Dataset | xr.DataArray,
    ax: Axes | None = None,
    *,
    above_chance: float | xr.DataArray | None = None,
    groups: Mapping[str, str] | Sequence[str] | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
    cmap: str | Colormap | None = None,
    labels: bool = True,
    colorbar: bool = True,
    title: str | None = None,
) -> Axes:
    """Draw the similarity of every layer of one model with every layer of another.

    >>> import xarray as xr
    >>> from repsim.plot import heatmap
    >>> cka = xr.DataArray(
    ...     [[1.0, 0.4], [0.5, 0.8], [0.1, -0.01]],
    ...     coords={"layer_x": ["stem", "block.0", "head"], "layer_y": ["embed", "head"]},
    ...     dims=("layer_x", "layer_y"),
    ...     attrs={"model_x": "ResNet-50", "model_y": "ViT-B/32"},
    ...     name="cka",
    ... )
    >>> ax = heatmap(cka)
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('ViT-B/32 layer', 'ResNet-50 layer')
    >>> ax.images[0].colorbar.extend  # one value lies below the scale
    'min'

    The layers of x run upwards and those of y to the right, both from the lower left corner, as in
    the reference. Cells are not smoothed.

    Parameters
    ----------
    result : xarray.Dataset or xarray.DataArray
        A result of `repsim.compare`, whose measure is drawn, a map with the dimensions `layer_x`
        and `layer_y` in either order, or one of models, with `model_x` and `model_y`, such as
        `repsim.alignment` returns.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default the current Axes of pyplot if they are empty, or a new figure.
        A new figure grows with the number of layers, up to 9 inches a side.
    above_chance : float or xarray.DataArray, optional
        Which cells to show in colour; other cells are grey, with a note. A number is the smallest
        z-score in colour; `result` must then be a Dataset with the variable `z`, from
        ``repsim.compare(..., z_scores=True)`` or `repsim.max_t`. A DataArray of booleans is true
        where a cell is above chance, such as ``repsim.max_t(...).p_adjusted <= 0.05``.
    groups : mapping of str to str, or sequence of str, optional
        The group of each name, or one group for each name in their order if both sides have the
        same names. Each group has a colour along both sides of the map, and a key lists them.
    vmin, vmax : float, optional
        The ends of the colour scale: by default 0 and the greatest value that the measure can have,
        1 for CKA, or the largest of the map if there is none. A value beyond an end gets a colour
        that is not on the scale, and the colour bar gets an arrow at that end, because unbiased CKA
        can be below 0 by chance and should not look like 0. A value that is beyond by less than
        1e-5 of the scale is rounding and is drawn as the end.
    cmap : str or matplotlib.colors.Colormap, optional
        The colours of the scale, by default "magma"; "viridis_r" for a dissimilarity, so that
        bright is alike in both. If the colormap sets colours for values below or above, they are
        kept.
    labels : bool
        Whether to name the layers. Names are written in full, and as many as fit, always including
        the first and the last.
    colorbar : bool
        Whether to add a colour bar, ``ax.images[-1].colorbar``. It takes room only from `ax`.
    title : str, optional
        A title for the Axes.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`, or the new Axes. Undefined similarities (NaN) are hatched in grey, with a note.

    Raises
    ------
    InputError
        `result` is not such a map; `vmin` is not less than `vmax`; a threshold without z-scores; a
        mask of other layers; a name without a group.

    References
    ----------
    Raghu et al. (2021), "Do Vision Transformers See Like Convolutional Neural Networks?", Fig. 1.
    """
    require_axes("heatmap", ax)
    require_bool("heatmap", "labels", labels)
    require_bool("heatmap", "colorbar", colorbar)
    require_text("heatmap", title=title)
    result, of_models = as_layers(result)
    above_chance, _ = as_layers(above_chance)
    array = layer_map(result, "heatmap")
    names_x, names_y = layer_names(array, "layer_x"), layer_names(array, "layer_y")
    undefined = np.isnan(array.values)
    grey = by_chance(result, array, above_chance, "heatmap") & ~undefined
    visible = np.where(grey, np.nan, array.values)
    low, high, similar = scale_of(array)
    scale = colour_scale(
        visible,
        "heatmap",
        vmin=low if vmin is None else vmin,
        vmax=high if vmax is None else vmax,
        cmap=cmap if cmap is not None else "magma" if similar else "viridis_r",
    )
    if ax is None:
        ax = _axes_for(names_x, names_y, labels=labels, colorbar=colorbar, title=title)

    n_x, n_y = array.shape
    place: dict[str, Any] = {
        "origin": "lower",
        "interpolation": "nearest",
        "aspect": "equal" if max(n_x, n_y) <= SQUARISH * min(n_x, n_y) else "auto",
        "extent": (-0.5, n_y - 0.5, -0.5, n_x - 0.5),
    }
    everyone = list(dict.fromkeys([*names_x, *names_y]))
    looks = dict(zip(everyone, groups_of(groups, everyone, "heatmap"), strict=True))
    dull = least_like(scale.cmap, BY_CHANCE)
    if grey.any():  # below the map, which is transparent there
        ax.imshow(np.where(grey, 0.0, np.nan), cmap=ListedColormap([dull]), **place)
    image = ax.imshow(scale.values, cmap=scale.cmap, norm=scale.norm, **place)
    ax.grid(visible=False)
    ax.spines[:].set_linewidth(0.6)
    if not of_models:  # names of models need no title
        ax.set_ylabel(plain(f"{model_name(array, 'x')} layer"))
        ax.set_xlabel(plain(f"{model_name(array, 'y')} layer"))
    if title is not None:
        ax.set_title(title)
    _name_sides(ax, names_x if labels else [], names_y if labels else [])
    beside: list[Artist] = []
    if colorbar:
        bar = add_colour_bar(ax, image, measure_label(array, direction=True), extend=scale.extend)
        beside.append(bar.ax)
    notes: list[tuple[Patch, str]] = []
    if undefined.any():
        # The hatching shows through the undefined cells.
        ax.add_patch(Rectangle((-0.5, -0.5), n_y, n_x, zorder=-1.0, **UNDEFINED))
        notes.append((Patch(**UNDEFINED), "undefined (NaN)"))
    if grey.any():
        level = "" if isinstance(above_chance, xr.DataArray) else f" (z < {above_chance:g})"
        notes.append((Patch(facecolor=dull, linewidth=0.0), f"not above\nchance{level}"))
    if groups is not None:
        notes += _draw_groups(ax, looks, names_x, names_y)
    if notes:
        beside.append(_add_notes(ax, notes))
    make_room(ax, beside)
    return ax


def _name_sides(ax: Axes, names_x: Sequence[str], names_y: Sequence[str]) -> None:
    for axis, names in ((ax.yaxis, names_x), (ax.xaxis, names_y)):
        if names:
            name_layers(axis, np.arange(len(names)), names)
        else:
            axis.set_ticks([])


def _axes_for(
    names_x: list[str], names_y: list[str], *, labels: bool, colorbar: bool, title: str | None
) -> Axes:
    """Axes whose cells are `CELL` wide if the limits allow it."""
    cell = min(CELL, LONGEST / max(len(names_x), len(names_y)))
    return new_axes(
        max(cell * len(names_y), SHORTEST),
        max(cell * len(names_x), SHORTEST),
        beside=0.4 + 0.8 * colorbar + (text_width(names_x) if labels else 0.0),
        below=0.4 + 0.3 * bool(title) + (text_width(names_y) if labels else 0.0),
    )


def _draw_groups(
    ax: Axes, looks: Mapping[str, Group], names_x: Sequence[str], names_y: Sequence[str]
) -> list[tuple[Patch, str]]:
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
    return [
        (Patch(facecolor=look.colour, linewidth=0.0), plain(shown(look.name)))
        for look in dict.fromkeys(looks.values())
    ]


def _add_notes(ax: Axes, notes: list[tuple[Patch, str]]) -> Legend:
    """Explain at the lower right the cells that have no colour of the scale."""
    to_the_right = ScaledTranslation(PAD / 72, -PAD / 72, ax.figure.dpi_scale_trans)
    note = Legend(
        ax,
        [patch for patch, _ in notes],
        [text for _, text in notes],
        loc="upper left",
        bbox_to_anchor=(1.0, 0.0),
        bbox_transform=ax.transAxes + to_the_right,
        borderaxespad=0.0,
        borderpad=0.0,
        handlelength=1.3,
        handletextpad=0.5,
        frameon=False,
        fontsize=NAME_SIZE,
    )
    ax.add_artist(note).set_clip_on(False)
    return note
