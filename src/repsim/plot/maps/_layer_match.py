"""At which depth of one model each layer of the other finds its most similar layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.text import Text

from repsim.measures import layer_match as best_match
from repsim.plot.maps._drawing import BY_CHANCE
from repsim.plot.parts._beside import add_colour_bar, make_room
from repsim.plot.parts._colours import colour_scale, least_like
from repsim.plot.parts._figure import new_axes, require_axes, text_width
from repsim.plot.parts._layer_map import layer_map, layer_names, measure_label, model_names
from repsim.plot.parts._plain import plain
from repsim.plot.parts._ticks import NAME_SIZE, name_layers
from repsim.results import LOWER_HALF, above_chance, scale_of

__all__ = ["layer_match"]

SIDE = 4.2
"""Inches: the side of the square."""

FILLED = 0.95
"""The part of a side that the note may take."""

QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)
ACCENT = "#2166ac"


def layer_match(
    result: xr.Dataset | xr.DataArray,
    ax: Axes | None = None,
    *,
    variable: str | None = None,
) -> Axes:
    r"""Draw, for each layer of x, how deep in y its most similar layer lies.

    >>> import xarray as xr
    >>> from repsim.plot import layer_match
    >>> cka = xr.DataArray(
    ...     [[0.9, 0.3, 0.1], [0.8, 0.6, 0.2], [0.1, 0.4, 0.7]],
    ...     coords={"layer_x": ["stem", "block", "head"], "layer_y": ["embed", "mlp", "norm"]},
    ...     dims=("layer_x", "layer_y"),
    ...     attrs={"model_x": "ResNet-50", "model_y": "ViT-B/32"},
    ... )
    >>> ax = layer_match(cka)
    >>> ax.collections[0].get_offsets().tolist()
    [[0.0, 0.0], [0.5, 0.0], [1.0, 1.0]]

    The depth of the i-th of m layers is :math:`i / (m - 1)`, from 0 for the first to 1 for the
    last, in the order of `result` (0 for a single layer). For the layer i of x with similarities
    :math:`s_{ij}`, the point is :math:`(\mathrm{depth}(i), \mathrm{depth}(\arg\max_j s_{ij}))`,
    coloured by :math:`\max_j s_{ij}`. Two models that are alike layer by layer lie on the dashed
    diagonal.

    The shaded area summarises the lower half of x, its layers of depth at most 0.5. Its upper edge
    is the smallest depth of y such that at least 90 % of them find their match at or below it (a
    90th percentile because one stray layer would decide a maximum). The line inside is the median
    of their matched depths. The note states both if the picture has room for it.

    If `result` is a Dataset with a test against chance, matches that are not above chance are grey,
    as in `repsim.plot.heatmap`, and the note counts them. If none in the lower half of x is above
    chance, nothing is shaded.

    Parameters
    ----------
    result : xarray.Dataset or xarray.DataArray
        A result of `repsim.compare`, or a map with the dimensions `layer_x` and `layer_y` in either
        order. Larger values mean more similar, unless its ``attrs["kind"]`` is "dissimilarity".
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default the current Axes of pyplot if they are empty, or a new figure.
    variable : str, optional
        Which variable of a Dataset to draw, by default that of its measure.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`, or the new Axes; the numbers are those of :func:`repsim.layer_match`. Undefined
        similarities (NaN) are ignored. A layer of x that has only NaN is left out, and the note
        names it. If several layers of y are equally similar, the lowest is the match.

    Raises
    ------
    InputError
        `result` is not such a map.

    References
    ----------
    Raghu et al. (2021), "Do Vision Transformers See Like Convolutional Neural Networks?", Sec. 3:
    the lower half of a ResNet's layers resembles about the lowest quarter of a ViT's.
    """
    require_axes("layer_match", ax)
    array = layer_map(result, "layer_match", variable)
    matches = best_match(result, variable)
    low, high, similar = scale_of(array)
    scale = colour_scale(
        np.where(above_chance(matches), matches[array.name].values, np.nan),
        "layer_match",
        vmin=low,
        vmax=high,
        cmap="magma" if similar else "viridis_r",
    )
    names_x, names_y = layer_names(array, "layer_x"), layer_names(array, "layer_y")
    if ax is None:
        ax = new_axes(SIDE, SIDE, beside=1.5 + text_width(names_y), below=0.6 + text_width(names_x))

    models = model_names(array)
    _draw_frame(ax, *models)
    beside_x, beside_y = ax.secondary_xaxis("top"), ax.secondary_yaxis("right")
    name_layers(beside_x.xaxis, np.linspace(0.0, 1.0, len(names_x)), names_x)
    name_layers(beside_y.yaxis, np.linspace(0.0, 1.0, len(names_y)), names_y)
    for names in (beside_x, beside_y):
        names.tick_params(colors="0.35")
        names.spines[:].set_visible(False)
        names.set_zorder(2.6)

    points = ax.scatter(
        matches["depth_x"],
        matches["depth_y"],
        c=scale.values,
        s=26.0 if matches.sizes["layer_x"] <= 100 else 16.0,
        cmap=scale.cmap.with_extremes(bad=least_like(scale.colours, BY_CHANCE)),
        norm=scale.norm,
        plotnonfinite=True,  # those by chance
        edgecolors="0.2",
        linewidths=0.5,
        zorder=3.0,
        clip_on=False,
    )
    _sum_up(ax, matches, names_x, *models)
    bar = add_colour_bar(
        ax, points, f"{measure_label(array)} of the match", extend=scale.extend, after=[beside_y]
    )
    make_room(ax, [bar.ax, beside_x, beside_y])
    return ax


def _draw_frame(ax: Axes, model_x: str, model_y: str) -> None:
    """Draw the square of depths: quarters, diagonal, labels."""
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    ax.set_xticks(QUARTERS, [f"{quarter:g}" for quarter in QUARTERS])
    ax.set_yticks(QUARTERS, [f"{quarter:g}" for quarter in QUARTERS])
    ax.tick_params(labelsize=NAME_SIZE + 1, length=2.0, width=0.6)
    ax.grid(visible=True, color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[:].set_linewidth(0.6)
    ax.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle="--", zorder=1.5)
    ax.set_xlabel(plain(f"depth of the {model_x} layer"))
    ax.set_ylabel(plain(f"depth of its best match in {model_y}"))


def _sum_up(ax: Axes, matches: xr.Dataset, names_x: list[str], model_x: str, model_y: str) -> None:
    """Shade the matches of the lower half of x, and describe them in words if there is room."""
    lines = []
    above = above_chance(matches)
    lower = above[matches["depth_x"].values <= LOWER_HALF]
    top, median = matches.attrs["lower_half_reach"], matches.attrs["lower_half_median"]
    if lower.any():
        ax.add_patch(
            Rectangle(
                (0, 0), LOWER_HALF, top, facecolor=ACCENT, edgecolor="none", alpha=0.13, zorder=1.0
            )
        )
        ax.plot([0, LOWER_HALF], [median, median], color=ACCENT, linewidth=1.2, zorder=2.0)
        reach = f"lowest {top:.0%}" if top > 0 else "first layer"
        lines = [
            f"lower half of {model_x}",
            f"→ {reach} of {model_y}",
            f"median match at {median:.0%} (line)",
        ]
    if not above.all():
        lines.append(f"not above chance: {(~above).sum()} of {above.size} matches (grey)")
    left_out = [name for name in names_x if name not in set(matches["layer_x"].values)]
    if left_out:
        shown = ", ".join(left_out[:2]) + (", …" if len(left_out) > 2 else "")
        lines.append(f"left out, all NaN: {len(left_out)} ({shown})")
    if not lines:
        return
    # The corner with the fewest points; the diagonal runs through the other two.
    x, y = matches["depth_x"].values, matches["depth_y"].values
    upper_left = int(((x < 0.6) & (y > 0.75)).sum())
    lower_right = int(((x > 0.4) & (y < 0.25)).sum())
    at_left = upper_left <= lower_right
    note = _Note(
        0.03 if at_left else 0.97,
        0.97 if at_left else 0.03,
        plain("\n".join(lines)),
        transform=ax.transAxes,
        ha="left" if at_left else "right",
        va="top" if at_left else "bottom",
        fontsize=NAME_SIZE + 1,
        color=ACCENT,
        path_effects=[withStroke(linewidth=2.0, foreground="white")],
        zorder=2.5,  # hides no name and no point
    )
    note.set_in_layout(False)  # it takes no room
    ax.add_artist(note)


class _Note(Text):
    """Text that is drawn only inside its Axes: beside small ones it would cover names."""

    def draw(self, renderer: Any) -> None:
        """Draw it if there is room."""
        room: Any = self.axes and self.axes.bbox
        own = self.get_window_extent(renderer)
        if room and own.width <= FILLED * room.width and own.height <= FILLED * room.height:
            super().draw(renderer)
