"""CKA of subsets of heads against their attention distance."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from repsim.plot.parts._figure import new_axes, require_axes, text_width
from repsim.plot.parts._lines import (
    FEW,
    Colour,
    add_key,
    add_layer_key,
    frame_lines,
    in_order,
)
from repsim.plot.parts._plain import plain
from repsim.results import (
    ALONG_DISTANCE,
    HEAD_SUBSET_CKA,
    LEAST_HIGH,
    model_of,
    names_of,
    subset_order,
    unit_of,
)

__all__ = ["head_subsets"]

WIDTH, HEIGHT = 3.6, 2.8
"""Inches."""

STYLES: tuple[tuple[str, Any], ...] = (
    ("o", "-"),
    ("s", (0, (3, 1.5))),
    ("^", (0, (1, 1))),
)
"""Marker and line of each kind of subset."""


def head_subsets(result: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw the similarity of subsets of heads with layers of another model, by distance.

    >>> import xarray as xr
    >>> from repsim.plot import head_subsets
    >>> result = xr.Dataset(
    ...     {
    ...         "cka": (("subset", "layer_y"), [[0.5, 0.4], [0.3, 0.3]]),
    ...         "mean_distance": ("subset", [90.0, 40.0]),
    ...     },
    ...     coords={"layer_y": ["layer1", "layer2"]},
    ...     attrs={"model_x": "ViT-L/16", "model_y": "ResNet-50", "layer": "blocks.0.attn"},
    ... )
    >>> ax = head_subsets(result)
    >>> ax.containers[0].lines[0].get_xydata().tolist()  # from local to global
    [[40.0, 0.3], [90.0, 0.5]]

    One line per layer of y and kind of subset, over the mean attention distance of the heads in
    the subset. A falling line means that the local heads are the ones that resemble y. The axis of
    CKA begins at 0, or below the least value if it is negative, and reaches 0.2 or more, so small
    differences and noise look small.

    Parameters
    ----------
    result : xarray.Dataset
        A result of `repsim.head_subset_cka`: `cka` (subset, layer_y), and `mean_distance` in pixels
        along `subset`. A `standard_error` is drawn as bars of one standard error to each side. Each
        `kind` of subset gets its own line.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default the current Axes of pyplot if they are empty, or a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`, or the new Axes. Undefined values (NaN) are gaps; a point without a standard error has
        no bar.

    Raises
    ------
    InputError
        `result` is not such a Dataset.

    References
    ----------
    Raghu et al. (2021), "Do Vision Transformers See Like Convolutional Neural Networks?", Sec. 4.
    """
    require_axes("head_subsets", ax)
    if isinstance(result, xr.Dataset):  # along subset, as a coordinate or as a variable
        result = result.reset_coords(
            [name for name in ("mean_distance", "kind") if name in result.coords]
        )
    result = HEAD_SUBSET_CKA.require(
        result, "head_subsets", "cka", "mean_distance", optional=("standard_error",)
    )
    has_errors = "standard_error" in result
    names = names_of(result, "layer_y")
    distances = result["mean_distance"].values
    subsets = len(distances)
    kinds = result["kind"].values.astype(str) if "kind" in result else np.full(subsets, "subset")
    if ax is None:
        ax = new_axes(WIDTH, HEIGHT, beside=1.0 + text_width(names), below=0.5)

    frame_lines(ax)
    order = subset_order(result)
    colours = in_order(len(names))
    present = list(dict.fromkeys(kinds.tolist()))
    for kind, (marker, line) in zip(present, cycle(STYLES), strict=False):
        here = order[kinds[order] == kind]
        for j, (name, colour) in enumerate(zip(names, colours, strict=True)):
            ax.errorbar(
                distances[here],
                result["cka"].values[here, j],
                yerr=result["standard_error"].values[here, j] if has_errors else None,
                color=colour,
                marker=marker,
                markersize=3.5,
                linestyle=line,
                linewidth=1.1,
                elinewidth=0.8,
                capsize=1.5,
                label=name,
            )
    model_x, model_y = model_of(result, "x"), model_of(result, "y")
    layer = result.attrs.get("layer")
    unit = unit_of(result["mean_distance"], "pixels")
    ax.set_xlabel(
        f"{ALONG_DISTANCE} ({unit})\n" + plain(f"{layer} of {model_x}" if layer else model_x)
    )
    ax.set_ylabel(plain(f"CKA with {model_y}"))
    # All heads of an untrained model are equally far, so numbers are written in full.
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.ticklabel_format(useOffset=False)
    if np.isfinite(ax.dataLim.ymin):  # infinite if all values are NaN
        low = ax.get_ylim()[0] if ax.dataLim.ymin < 0 else 0.0
        ax.set_ylim(low, max(1.05 * ax.dataLim.ymax, LEAST_HIGH))
    _add_keys(ax, names, colours, present, model_y)
    return ax


def _add_keys(
    ax: Axes, names: list[str], colours: list[Colour], kinds: list[str], model_y: str
) -> None:
    """Name the layers of y, and the kinds of subset if there are several."""
    several: list[Artist] = []
    if len(kinds) > 1:
        several = [
            Line2D([], [], color="0.4", marker=marker, markersize=3.5, linestyle=line, label=kind)
            for kind, (marker, line) in zip(kinds, cycle(STYLES), strict=False)
        ]
    if len(names) <= FEW:
        lines = [
            Line2D([], [], color=colour, linewidth=1.4, label=name)
            for name, colour in zip(names, colours, strict=True)
        ]
        add_key(ax, [*lines, *several])
        return
    add_layer_key(ax, names, plain(f"{model_y} layer"))
    if several:
        ax.legend(handles=several, frameon=False, fontsize=7.0, loc="best")
