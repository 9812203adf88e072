"""How the layers of a model change in training: curves over steps, or a map for each layer."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.ticker import FixedLocator, FuncFormatter

from repsim._errors import InputError
from repsim._options import got, require_choice
from repsim.plot.parts._beside import add_colour_bar, make_room
from repsim.plot.parts._colours import colour_scale
from repsim.plot.parts._figure import new_axes, require_axes, text_width
from repsim.plot.parts._lines import FEW, add_key, add_layer_key, frame_lines, in_order
from repsim.plot.parts._result import select_layers
from repsim.plot.parts._ticks import NAME_SIZE
from repsim.plot.parts._tiles import TileName, add_tile, columns_for, frame_tiles
from repsim.results import (
    TRAJECTORY,
    against,
    is_between,
    log_from,
    names_of,
    step_label,
    trajectory_label,
    trajectory_scale,
    trajectory_variable,
)

__all__ = ["trajectory"]

WIDTH, HEIGHT = 3.6, 2.8
TILE, SMALLEST, LONGEST = 1.3, 0.7, 9.0
"""Inches."""

GAP, NAME = 0.12, 0.18
"""Parts of a tile: between two tiles, and above a tile for its name."""

SCALES = ("auto", "linear", "log")


def trajectory(
    result: xr.Dataset,
    ax: Axes | None = None,
    *,
    layers: Sequence[str] | str | None = None,
    scale: str = "auto",
    cmap: str | Colormap | None = None,
) -> Axes:
    """Draw how alike each layer is to that of the reference, over the steps of training.

    >>> import xarray as xr
    >>> from repsim.plot import trajectory
    >>> result = xr.Dataset(
    ...     {"cka": (("step", "layer"), [[0.5, 0.2], [0.9, 0.6], [1.0, 1.0]])},
    ...     coords={"step": [0, 500, 1000], "layer": ["blocks.0", "blocks.1"]},
    ...     attrs={"compared_with": "step 1000"},
    ... )
    >>> ax = trajectory(result)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['blocks.0', 'blocks.1']
    >>> ax.get_xlabel()
    'training step'

    One line per layer, from dark to light in the order of execution. Bands are one standard error
    to each side. The result of ``against="each other"`` is a map for each layer: steps run to the
    right and, downwards, in the same order.

    Parameters
    ----------
    result : xarray.Dataset
        A result of `repsim.trajectory`.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default the current Axes of pyplot if they are empty, or a new figure.
    layers : sequence of str, optional
        The layers to draw, by name; by default all.
    scale : {"auto", "linear", "log"}, default "auto"
        The scale of the steps. "log" is linear up to the first step above 0, so that step 0 is
        shown. "auto" is "log" if the longest gap between steps is 30 times the shortest or more.
        Maps are not scaled: each step has one row.
    cmap : str or matplotlib.colors.Colormap, optional
        The colours of the maps, by default "magma"; "viridis_r" for a dissimilarity, so that bright
        is alike in both.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`, or the new Axes. Undefined values (NaN) are gaps, or hatched in maps.

    Raises
    ------
    InputError
        `result` is not such a Dataset, a layer is not in it, `scale` is unknown, or the steps are
        negative and `scale` is "log".

    References
    ----------
    Raghu et al. 2017, arXiv:1706.05806, Fig. 3.
    """
    require_axes("trajectory", ax)
    require_choice("trajectory", "scale", scale, SCALES)
    if not isinstance(result, xr.Dataset) or not TRAJECTORY.fits(result):
        what = list(result.data_vars) if isinstance(result, xr.Dataset) else got(result)
        raise InputError(
            f"trajectory: result must be an xarray.Dataset, as repsim.trajectory returns it.\n"
            f"  got {what}\n"
            f"  Select with a list, as in result.sel(layer=[name]), to keep a dimension."
        )
    result = select_layers(result, "trajectory", layers)
    if is_between(result):
        return _draw_maps(result, ax, cmap)
    return _draw_lines(result.sortby("step"), ax, scale)


def _draw_lines(result: xr.Dataset, ax: Axes | None, scale: str) -> Axes:
    name = trajectory_variable(result)
    names, steps = names_of(result, "layer"), result["step"].values.astype(np.float64)
    values = result[name].transpose("layer", "step").values
    errors = None
    if "standard_error" in result:
        errors = result["standard_error"].transpose("layer", "step").values
    if ax is None:
        ax = new_axes(WIDTH, HEIGHT, beside=1.6, below=0.5)
    frame_lines(ax)
    handles: list[Artist] = []
    for at, colour in enumerate(in_order(len(names))):
        line: dict[str, Any] = {"color": colour, "label": names[at]}
        handles += ax.plot(steps, values[at], marker="o", markersize=3.0, linewidth=1.2, **line)
        if errors is not None and np.isfinite(errors[at]).any():
            low, high = values[at] - errors[at], values[at] + errors[at]
            ax.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0.0, zorder=1.0)
    _scale_steps(ax, steps, scale)
    ax.set_ylim(*_limits(result, values))
    ax.set_xlabel("training step")
    ax.set_ylabel(f"{trajectory_label(result)}\nwith {against(result)}")
    if len(names) <= FEW:
        add_key(ax, handles, "layer")
    else:
        add_layer_key(ax, names, "layer")
    return ax


def _limits(result: xr.Dataset, values: Any) -> tuple[float, float]:
    """Return the ends of y: 0 or the least value, and "the same" or the greatest value."""
    low, high, similar = trajectory_scale(result)
    known = values[np.isfinite(values)]
    least, most = (float(end(initial=low)) for end in (known.min, known.max))
    return 1.02 * least, 1.02 * (max(most, high) if similar else most or high)


def _scale_steps(ax: Axes, steps: Any, scale: str) -> None:
    if scale == "linear" or (scale == "auto" and log_from(steps) is None):
        return
    positive = steps[steps > 0]
    if steps.min() < 0 or not positive.size:
        raise InputError(
            f"trajectory: scale='log' needs steps of 0 or more, and one above 0.\n"
            f"  got steps from {step_label(steps.min())} to {step_label(steps.max())}"
        )
    ax.set_xscale("symlog", linthresh=float(positive.min()))
    ax.xaxis.set_major_locator(FixedLocator(_few(np.unique(steps))))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda step, _: step_label(step)))


def _few(steps: Any, most: int = 7) -> Any:
    """Return at most `most` of the steps, among them the first and the last."""
    return steps[np.unique(np.linspace(0, len(steps) - 1, most).round().astype(int))]


def _draw_maps(result: xr.Dataset, ax: Axes | None, cmap: str | Colormap | None) -> Axes:
    name = trajectory_variable(result)
    names, steps = names_of(result, "layer"), result["step_x"].values
    maps = result[name].transpose("layer", "step_x", "step_y").values
    low, high, similar = trajectory_scale(result)
    if cmap is None:
        cmap = "magma" if similar else "viridis_r"
    scale = colour_scale(maps, "trajectory", vmin=low, vmax=high, cmap=cmap)
    size, count = len(steps), len(names)
    across, down = size * (1 + GAP), size * (1 + GAP + NAME)
    columns = min(columns_for(count, across, down, ax), count)
    lines = -(-count // columns)
    ends = f"{step_label(steps[0])} to {step_label(steps[-1])}"
    label = f"training step, {ends}: to the right and downwards"
    if ax is None:
        inch = max(SMALLEST, min(TILE, LONGEST / columns)) / size
        wide = columns * across * inch
        label = _broken(label, wide)
        below = 0.3 + 0.13 * len(label.splitlines())
        ax = new_axes(wide, lines * down * inch, beside=0.9, below=below)
    else:
        label = _broken(label, ax.get_window_extent().width / ax.figure.dpi)
    for index, (layer, values) in enumerate(zip(names, scale.values, strict=True)):
        left, above = (index % columns) * across, (index // columns) * down + NAME * size
        add_tile(ax, values, left, above, norm=scale.norm, cmap=scale.cmap)
        ax.add_artist(TileName(left, above - 0.03 * size, size, (NAME - 0.04) * size, [layer]))
    frame_tiles(ax, columns * across - GAP * size, lines * down - GAP * size)
    ax.set_xlabel(label, fontsize=NAME_SIZE + 1)
    bar = add_colour_bar(ax, ax.images[-count], trajectory_label(result), extend=scale.extend)
    make_room(ax, [bar.ax])
    return ax


def _broken(label: str, inches: float) -> str:
    """Return a label in lines that are not longer than its picture."""
    length = text_width([label]) * (NAME_SIZE + 1) / NAME_SIZE
    return fill(label, max(10, int(len(label) * inches / length)))
