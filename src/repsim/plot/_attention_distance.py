"""How far the heads of each layer look, from the most local head to the most global."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from repsim._errors import InputError
from repsim._options import require_choice
from repsim.plot.parts._figure import new_axes, require_axes, text_width
from repsim.plot.parts._lines import (
    FEW,
    REFERENCE,
    add_key,
    add_layer_key,
    frame_lines,
    in_order,
    width_for,
)
from repsim.plot.parts._result import select_layers
from repsim.plot.parts._ticks import name_layers
from repsim.results import ATTENTION_DISTANCE, names_of, uniform_distances

__all__ = ["attention_distance"]

WIDTH, HEIGHT = 3.6, 2.8
"""Inches."""

VARIABLES = ("distance", "renormalised", "time_distance")
KINDS = ("heads", "layers")


def attention_distance(
    result: xr.Dataset,
    ax: Axes | None = None,
    layers: Sequence[str] | None = None,
    *,
    kind: Literal["heads", "layers"] = "heads",
    variable: str = "distance",
) -> Axes:
    """Draw the mean attention distance of all heads, sorted within each layer.

    >>> import xarray as xr
    >>> from repsim.plot import attention_distance
    >>> result = xr.Dataset(
    ...     {
    ...         "distance": (("layer", "head"), [[60.0, 20.0, 110.0], [115.0, 112.0, 114.0]]),
    ...         "uniform_distance": ("layer", [115.9, 115.9]),
    ...     },
    ...     coords={"layer": ["blocks.0.attn", "blocks.11.attn"]},
    ... )
    >>> ax = attention_distance(result)
    >>> ax.lines[0].get_ydata().tolist()  # sorted
    [20.0, 60.0, 110.0]
    >>> ax.get_ylabel()
    'mean attention distance (pixels)'

    The dashed line is the distance of a head that attends equally to all tokens; heads below it are
    local. Layers of different grids (in windows, or after merging) each have a line.

    Parameters
    ----------
    result : xarray.Dataset
        A result of `repsim.attention_distance`: `distance` (layer, head), in pixels.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default the current Axes of pyplot if they are empty, or a new figure.
    layers : sequence of str, optional
        The layers to draw, by name; by default all. They are drawn in the order of `result`.
    kind : {"heads", "layers"}
        ``"heads"``: one curve per layer over its sorted heads, as in the reference, from dark for
        the first layer to light for the last. ``"layers"``: one column of points per layer, for
        networks with too many layers to distinguish curves.
    variable : {"distance", "renormalised", "time_distance"}
        The convention: ``"distance"`` counts attention to prefix tokens (CLS) as distance 0 and is
        therefore smaller for heads that attend there; ``"renormalised"`` leaves them out.
        ``"time_distance"`` is the distance in frames, of videos.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`, or the new Axes. Heads that a layer lacks (NaN) are left out.

    Raises
    ------
    InputError
        `result` is not such a Dataset, a layer is not in it, or `kind` or `variable` is unknown.

    References
    ----------
    Raghu et al. (2021), "Do Vision Transformers See Like Convolutional Neural Networks?", Fig. 3.
    """
    require_axes("attention_distance", ax)
    require_choice("attention_distance", "kind", kind, KINDS)
    require_choice("attention_distance", "variable", variable, VARIABLES)
    in_time = variable == "time_distance"
    uniform_name = "uniform_time_distance" if in_time else "uniform_distance"
    has_distances = isinstance(result, xr.Dataset) and "distance" in result
    if in_time and has_distances and variable not in result:
        raise InputError(
            "attention_distance: this result is not of videos, so it has no distance in time.\n"
            f"  got variable={variable!r}\n  Leave variable out for the distance in space."
        )
    result = ATTENTION_DISTANCE.require(result, "attention_distance", variable, uniform_name)
    result = select_layers(result, "attention_distance", layers)
    names = names_of(result, "layer")
    heads = [np.sort(row[~np.isnan(row)]) for row in result[variable].values]
    uniform = uniform_distances(result, variable)
    if ax is None:
        wide = width_for(len(names)) if kind == "layers" else WIDTH
        ax = new_axes(
            wide,
            HEIGHT,
            beside=0.6 + (0.4 + text_width(names) if kind == "heads" else 1.0),
            below=0.4 + (text_width(names) if kind == "layers" else 0.0),
        )

    frame_lines(ax)
    ax.set_ylabel(ATTENTION_DISTANCE.label(result, variable))
    if kind == "heads":
        _draw_curves(ax, names, heads, uniform)
    else:
        _draw_columns(ax, names, heads, uniform)
    highest = max([*(values.max(initial=0.0) for values in heads), np.nanmax(uniform, initial=0.0)])
    ax.set_ylim(0.0, 1.06 * highest if highest > 0 else 1.0)
    return ax


def _draw_curves(ax: Axes, names: list[str], heads: list[np.ndarray], uniform: np.ndarray) -> None:
    """One curve per layer over its sorted heads."""
    colours = in_order(len(names))
    handles: list[Artist] = []
    for name, values, colour in zip(names, heads, colours, strict=True):
        handles += ax.plot(
            np.arange(1, len(values) + 1),
            values,
            color=colour,
            marker="o",
            markersize=3.0,
            linewidth=1.1,
            label=name,
        )
    # Up to rounding, layers of one grid share a line.
    levels = np.unique(uniform[np.isfinite(uniform)].round(9))
    for level in levels:
        ax.axhline(float(level), **REFERENCE, label="uniform attention")
    most = max(1, *(len(values) for values in heads))
    ax.set_xlim(0.5, most + 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(9, integer=True, min_n_ticks=1))
    ax.set_xlabel("head, sorted by distance")
    if len(names) <= FEW:
        add_key(ax, [*handles, Line2D([], [], **REFERENCE, label="uniform attention")])
    else:
        add_layer_key(ax, names, "layer (dashed: uniform attention)")


def _draw_columns(ax: Axes, names: list[str], heads: list[np.ndarray], uniform: np.ndarray) -> None:
    """One column of points per layer, with its mean and the uniform distance."""
    at = np.arange(len(names))
    points = ax.scatter(
        np.repeat(at, [len(values) for values in heads]),
        np.concatenate(heads),
        s=12.0,
        facecolors="#0072B2",
        edgecolors="white",
        linewidths=0.3,
        zorder=3.0,
        label="head",
    )
    means = np.asarray([values.mean() if len(values) else np.nan for values in heads])
    handles: list[Artist] = [points]
    handles += ax.plot(at, means, color="#D55E00", linewidth=1.1, label="mean of the heads")
    edges = np.column_stack([at - 0.5, at + 0.5]).ravel()
    handles += ax.plot(edges, np.repeat(uniform, 2), **REFERENCE, label="uniform\nattention")
    ax.set_xlim(-0.5, len(names) - 0.5)
    ax.set_xlabel("layer")
    name_layers(ax.xaxis, at, names)
    add_key(ax, handles)
