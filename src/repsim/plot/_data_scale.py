"""Which layers need much data: similarity with the layers of the model trained on all data."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from repsim.plot.parts._figure import new_axes, require_axes, text_width
from repsim.plot.parts._lines import (
    CONTROLS,
    MARKERS,
    add_key,
    frame_lines,
    in_order,
    width_for,
)
from repsim.plot.parts._ticks import name_layers
from repsim.results import DATA_SCALE, names_of, part_label

__all__ = ["data_scale"]

HEIGHT = 2.8
"""Inches."""


def data_scale(result: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw the similarity of each layer with the same layer of the model trained on all data.

    >>> import xarray as xr
    >>> from repsim.plot import data_scale
    >>> result = xr.Dataset(
    ...     {
    ...         "cka": (("fraction", "layer"), [[0.9, 0.4], [0.95, 0.7]]),
    ...         "control_cka": (("control", "layer"), [[0.96, 0.8]]),
    ...     },
    ...     coords={"fraction": [0.1, 0.3], "layer": ["blocks.0", "blocks.1"],
    ...             "control": ["other seed"]},
    ... )
    >>> ax = data_scale(result)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['10 % of the data', '30 % of the data', 'other seed']

    One line per part of the data, from dark to light in the order of `result`; controls (another
    seed with all data, an untrained model) are dashed. A layer whose line falls below the other
    seed needs the data; a layer above it differs no more than another seed would. Bands are one
    standard error to each side.

    Parameters
    ----------
    result : xarray.Dataset
        A result of `repsim.data_scale`: `cka` (fraction, layer), and optionally `standard_error`,
        `control_cka` (control, layer) and `control_standard_error`.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default the current Axes of pyplot if they are empty, or a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`, or the new Axes. Undefined values (NaN) are gaps; without a standard error there is no
        band.

    Raises
    ------
    InputError
        `result` is not such a Dataset.

    References
    ----------
    Raghu et al. (2021), "Do Vision Transformers See Like Convolutional Neural Networks?", Sec. 7.
    """
    require_axes("data_scale", ax)
    optional = ("standard_error", "control_cka", "control_standard_error")
    result = DATA_SCALE.require(result, "data_scale", "cka", optional=optional)
    names = names_of(result, "layer")
    if ax is None:
        ax = new_axes(width_for(len(names)), HEIGHT, beside=1.9, below=0.4 + text_width(names))

    frame_lines(ax)
    handles: list[Artist] = []
    for i, colour in enumerate(in_order(result.sizes["fraction"])):
        label = part_label(result["fraction"].values[i])
        errors = result["standard_error"].values[i] if "standard_error" in result else None
        handles += _draw(ax, result["cka"].values[i], errors, color=colour, label=label)
    if "control_cka" in result:
        controls = names_of(result, "control")
        has_errors = "control_standard_error" in result
        colours, markers = (np.resize(each, len(controls)) for each in (CONTROLS, MARKERS[1:]))
        for i, name in enumerate(controls):
            handles += _draw(
                ax,
                result["control_cka"].values[i],
                result["control_standard_error"].values[i] if has_errors else None,
                color=str(colours[i]),
                label=name,
                marker=str(markers[i]),
                linestyle=(0, (4, 2)),
            )
    ax.set_xlim(-0.5, len(names) - 0.5)
    drawn = [result[name] for name in ("cka", "control_cka") if name in result]
    lowest = min(0.0, *(float(array.min()) for array in drawn))
    ax.set_ylim(lowest - 0.02 * (lowest < 0), 1.02)
    ax.set_ylabel("CKA with the same layer\nof the model trained on all data")
    ax.set_xlabel("layer")
    name_layers(ax.xaxis, np.arange(len(names)), names)
    add_key(ax, handles)
    return ax


def _draw(ax: Axes, values: np.ndarray, errors: np.ndarray | None, **style: Any) -> list[Artist]:
    at = np.arange(len(values))
    if errors is not None and np.isfinite(errors).any():
        ax.fill_between(
            at,
            values - errors,
            values + errors,
            color=style["color"],
            alpha=0.2,
            linewidth=0.0,
            zorder=1.0,
        )
    look = {"marker": "o", "markersize": 3.0, "linewidth": 1.2, **style}
    return [*ax.plot(at, values, **look)]
