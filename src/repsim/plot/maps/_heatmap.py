"""A map: every layer of one model against every layer of the other, or models by models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.legend import Legend
from matplotlib.transforms import ScaledTranslation

from repsim._errors import InputError
from repsim._options import as_number, require_bool, require_choice, require_text
from repsim.plot.maps._drawing import (
    LABELS,
    SIDE_BY_SIDE,
    LayerMap,
    Notes,
    beyond,
    draw_map,
    name_sides,
    read_map,
)
from repsim.plot.maps._panels import NARROWEST, WIDEST, panels
from repsim.plot.parts._beside import PAD, add_colour_bar, make_room
from repsim.plot.parts._between import groups_of
from repsim.plot.parts._colours import colour_scale
from repsim.plot.parts._figure import new_axes, require_axes, text_width
from repsim.plot.parts._layer_map import measure_label
from repsim.plot.parts._ticks import NAME_SIZE

__all__ = ["heatmap"]

CELL = 0.2
SHORTEST, LONGEST = 2.2, 9.0
"""Inches: the side of a cell in a small map, and the limits of a side of the map."""


def heatmap(
    result: xr.Dataset | xr.DataArray,
    ax: Axes | None = None,
    *,
    above_chance: float | xr.DataArray | None = None,
    groups: Mapping[str, str] | Sequence[str] | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
    cmap: str | Colormap | None = None,
    labels: str = "names",
    colorbar: bool = True,
    title: str | None = None,
    width: float | None = None,
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
    >>> ax.images[0].get_clim()  # the least value lies below 0, so the colour bar begins there
    (-0.01, 1.0)

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
        A new figure grows with the number of layers, up to 9 inches a side. Beside other Axes use
        ``plt.subplots(..., layout="constrained")``, so that no label lies over them.
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
        1 for CKA, or the largest of the map if there is none, but at least 10 for z-scores. Below
        `vmin`, the colour fades within half of the scale into a colour that is not on the scale.
        It brightens about as it does above `vmin`: noise around 0, such as that of unbiased CKA, is
        dark on both sides, and clearly negative values are not. If a value lies there, the colour
        bar reaches down to the least one, and gets an arrow if that lies beyond the fade. The rule
        is the same for a `vmin` that you give, so two values with `vmin` between them look alike if
        they are close. Values above `vmax` have one colour, and an arrow. A value that is beyond by
        less than 1e-5 of the scale is rounding and is drawn as the end. Pass the ends here, because
        ``ax.images[-1].set_clim`` would stretch the colours of lower values with the scale.
    cmap : str or matplotlib.colors.Colormap, optional
        The colours of the scale, by default "magma"; "viridis_r" for a dissimilarity, so that
        bright is alike in both. If the colormap sets colours for values below or above, they are
        kept, and there is no fade: ``matplotlib.colormaps["magma"].with_extremes(under="white")``
        draws all values below `vmin` in white.
    labels : {"names", "index", "none"}
        What stands along the sides. Names of layers are written in full, and as many as fit, always
        including the first and the last. Indices are round numbers, counted from 0.
    colorbar : bool
        Whether to add a colour bar, ``ax.images[-1].colorbar``. It takes room only from `ax`.
        Without it, a note explains colours that are not on the scale.
    title : str, optional
        A title for the Axes.
    width : float, optional
        Width of a new figure for print, in inches, such as 3.3 for a column and 7 for a page; see
        `repsim.plot.panels`, which draws it.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`, or the new Axes. Undefined similarities (NaN) are hatched in grey, with a note.

    Raises
    ------
    InputError
        `result` is not such a map; `vmin` is not less than `vmax`; a threshold without z-scores; a
        mask of other layers; a name without a group; both `ax` and `width`.

    Notes
    -----
    Cells are squares unless one side has more than twice as many layers as the other. A figure that
    repsim makes is saved as PDF with TrueType fonts, so its text can be searched and edited.

    References
    ----------
    Raghu et al. (2021), "Do Vision Transformers See Like Convolutional Neural Networks?", Fig. 1.
    """
    require_axes("heatmap", ax)
    require_choice("heatmap", "labels", labels, LABELS)
    require_bool("heatmap", "colorbar", colorbar)
    require_text("heatmap", title=title)
    of = read_map(result, above_chance, "heatmap")
    scale = colour_scale(
        of.visible,
        "heatmap",
        vmin=of.low if vmin is None else vmin,
        vmax=of.high if vmax is None else vmax,
        cmap=cmap if cmap is not None else of.cmap,
    )
    everyone = list(dict.fromkeys([*of.names_x, *of.names_y]))
    looks = dict(zip(everyone, groups_of(groups, everyone, "heatmap"), strict=True))
    if width is not None:
        width = as_number("heatmap", "width", width, least=NARROWEST, most=WIDEST)
        if ax is not None:
            raise InputError(
                "heatmap: width is that of a new figure, so it cannot be given with ax.\n"
                f"  width: {width:g}\n"
                "  Leave out one of the two."
            )
        (ax,) = panels(
            [result],
            titles=None if title is None else [title],
            width=width,
            above_chance=[above_chance],
            groups=None if groups is None else {name: looks[name].name for name in everyone},
            vmin=vmin,
            vmax=vmax,
            cmap=cmap,
            labels=labels,
            colorbar=colorbar,
        )
        return ax
    if ax is None:
        ax = _axes_for(of, named=labels == "names", colorbar=colorbar, title=title)
    drawn = draw_map(ax, of, scale, None if groups is None else looks)
    name_sides(ax, of, labels)
    if title is not None:
        ax.set_title(title)
    beside: list[Artist] = []
    if colorbar:
        label = measure_label(of.array, direction=True)
        beside.append(add_colour_bar(ax, drawn.image, label, extend=scale.extend).ax)
    else:
        drawn.notes |= beyond(scale)
    if drawn.notes:
        beside.append(_add_notes(ax, drawn.notes))
    make_room(ax, beside)
    return ax


def _axes_for(of: LayerMap, *, named: bool, colorbar: bool, title: str | None) -> Axes:
    """Axes whose cells are `CELL` wide and high if the limits allow it."""
    counts = len(of.names_y), len(of.names_x)
    cells = [min(CELL, LONGEST / count) for count in counts]
    if of.squares:
        cells = [min(cells)] * 2
    width, height = (max(c * n, SHORTEST) for c, n in zip(cells, counts, strict=True))
    return new_axes(
        width,
        height,
        beside=0.4 + 0.8 * colorbar + (text_width(of.names_x) if named else 0.0),
        below=0.4 + 0.3 * bool(title) + (text_width(of.names_y) if named else 0.0),
    )


def _add_notes(ax: Axes, notes: Notes) -> Legend:
    """Explain at the lower right the cells that have no colour of the scale."""
    to_the_right = ScaledTranslation(PAD / 72, -PAD / 72, ax.figure.dpi_scale_trans)
    note = Legend(
        ax,
        list(notes.values()),
        list(notes),
        handler_map=SIDE_BY_SIDE,
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
