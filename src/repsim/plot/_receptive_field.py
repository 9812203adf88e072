"""Effective receptive fields side by side: which pixels the centre of each layer depends on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import MaxNLocator

from repsim._errors import InputError
from repsim._options import as_count, got, require_choice
from repsim.plot.parts._beside import add_colour_bar, make_room
from repsim.plot.parts._colours import Extend
from repsim.plot.parts._figure import new_axes, require_axes, text_width
from repsim.plot.parts._lines import FEW, add_key, add_layer_key, frame_lines, in_order
from repsim.plot.parts._result import select_layers
from repsim.plot.parts._tiles import TileName, add_tile, columns_for, frame_tiles
from repsim.results import DECADES, RECEPTIVE_FIELD, names_of, unit_of

__all__ = ["receptive_field"]

TILE, SMALLEST, LONGEST = 1.15, 0.8, 9.0
"""Inches: the side of a tile, its least side, and the largest width of a picture."""

GAP, NAME = 0.06, 0.34
"""As parts of a tile: the space between two tiles, and the height of a name above one."""

WIDTH, HEIGHT = 3.6, 2.6
"""Inches: the Axes of the field in time."""

SCALES = ("log", "linear")
VARIABLES = ("field", "time_field")


def receptive_field(
    result: xr.Dataset,
    ax: Axes | None = None,
    layers: Sequence[str] | None = None,
    *,
    variable: Literal["field", "time_field"] = "field",
    scale: Literal["log", "linear"] = "log",
    columns: int | None = None,
) -> Axes:
    """Draw the effective receptive field of each layer as a map of the input, or over its frames.

    >>> import xarray as xr
    >>> from repsim.plot import receptive_field
    >>> point, wide = [[0.0, 0.0], [0.0, 1.0]], [[0.25, 0.25], [0.25, 0.25]]
    >>> result = xr.Dataset(
    ...     {"field": (("layer", "row", "column"), [point, wide]), "sigma": ("layer", [0.0, 1.0])},
    ...     coords={"layer": ["stem", "head"]},
    ... )
    >>> ax = receptive_field(result)
    >>> [image.get_array().max().item() for image in ax.images]
    [1.0, 0.25]

    All maps share one colour scale and can be compared; each sums to 1. Below the name is σ, the
    root mean square distance of the field's mass, if the result has it. The maps of a video are
    sums over its frames; ``variable="time_field"`` draws the sums over its pixels instead, one line
    per layer from dark to light in the order of execution.

    Parameters
    ----------
    result : xarray.Dataset
        A result of `repsim.effective_receptive_field`: `field` (layer, row, column), and `sigma`
        (layer) in pixels.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default the current Axes of pyplot if they are empty, or a new figure.
    layers : sequence of str, optional
        The layers to draw, by name; by default all. They are drawn in the order of `result`.
    variable : {"field", "time_field"}
        Which variable of the result: the field in space, or that of a video in time.
    scale : {"log", "linear"}
        A linear scale starts at 0; a logarithmic one covers four powers of ten. Both end at the
        greatest value of all maps. On a linear scale, a field with a sharp peak makes a wide field
        invisible. Values below the logarithmic scale get its lowest colour.
    columns : int, optional
        Maps per row; by default the number that fills the Axes best. Not for ``"time_field"``.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`, or the new Axes. ``ax.images`` are the maps, in order; ``ax.images[0].colorbar`` is
        the colour bar. Undefined fields (NaN) are hatched. If a map is too narrow for its name, the
        beginning of the name is cut. ``ax.lines`` are the lines of ``"time_field"``.

    Raises
    ------
    InputError
        `result` is not such a Dataset, is not of videos, or has no positive value; a layer is not
        in it; `variable` or `scale` is unknown; or `columns` is not positive, or is given with
        ``"time_field"``.

    References
    ----------
    Raghu et al. (2021), "Do Vision Transformers See Like Convolutional Neural Networks?", Fig. 6.
    Luo et al. (2016), "Understanding the effective receptive field in deep convolutional neural
    networks".
    """
    require_axes("receptive_field", ax)
    require_choice("receptive_field", "variable", variable, VARIABLES)
    require_choice("receptive_field", "scale", scale, SCALES)
    if variable == "time_field":
        return _draw_over_frames(result, ax, layers, scale, columns)
    result = RECEPTIVE_FIELD.require(result, "receptive_field", "field", optional=("sigma",))
    result = select_layers(result, "receptive_field", layers)
    fields, names = result["field"].values, names_of(result, "layer")
    norm, extend = _norm("field", fields, scale)

    count, rows, wide = fields.shape
    step_x, step_y = wide * (1 + GAP), rows * (1 + GAP) + max(rows, wide) * NAME
    if columns is None:
        columns = columns_for(count, step_x, step_y, ax)
    columns = min(as_count("receptive_field", "columns", columns), count)
    lines = -(-count // columns)
    if ax is None:
        side = max(SMALLEST, min(TILE, LONGEST / columns))
        inch = side / max(rows, wide)
        ax = new_axes(columns * step_x * inch, lines * step_y * inch, beside=0.9, below=0.1)

    for index, (name, field) in enumerate(zip(names, fields, strict=True)):
        left = (index % columns) * step_x
        top = (index // columns) * step_y + max(rows, wide) * NAME
        add_tile(ax, field, left, top, norm=norm, cmap="magma", interpolation="auto")
        text = [name]
        if "sigma" in result:
            text.append(_sigma(float(result["sigma"].values[index]), result["sigma"]))
        ax.add_artist(
            TileName(left, top - 0.03 * rows, wide, max(rows, wide) * (NAME - 0.04), text)
        )
    frame_tiles(ax, columns * step_x - wide * GAP, lines * step_y - rows * GAP)
    unit = unit_of(result["sigma"], "pixels") if "sigma" in result else "pixels"
    label = f"part of the field per {unit.removesuffix('s')}"
    bar = add_colour_bar(ax, ax.images[-count], label, extend=extend)
    make_room(ax, [bar.ax])
    return ax


def _draw_over_frames(
    result: xr.Dataset,
    ax: Axes | None,
    layers: Sequence[str] | None,
    scale: str,
    columns: int | None,
) -> Axes:
    name = "time_field"
    if columns is not None:
        raise InputError(
            f"receptive_field: {name!r} is one set of axes, without columns.\n"
            f"  got columns={got(columns)}\n  Leave columns out."
        )
    if isinstance(result, xr.Dataset) and "field" in result and name not in result:
        raise InputError(
            "receptive_field: this result is not of videos, so it has no field in time.\n"
            f"  got variable={name!r}\n  Leave variable out for the field in space."
        )
    result = RECEPTIVE_FIELD.require(result, "receptive_field", name, optional=("time_sigma",))
    result = select_layers(result, "receptive_field", layers)
    names, fields = names_of(result, "layer"), result[name].values
    _norm(name, fields, scale)  # raises if no value is positive
    few, labels = len(names) <= FEW, names
    if few and "time_sigma" in result:
        spreads = map(_spread, result["time_sigma"].values.tolist())
        labels = [f"{layer}, {spread}" for layer, spread in zip(names, spreads, strict=True)]
    if ax is None:
        ax = new_axes(WIDTH, HEIGHT, beside=1.1 + text_width(labels), below=0.5)
    frame_lines(ax)
    frames = result["frame"].values if "frame" in result.coords else np.arange(fields.shape[1])
    lines = []
    for label, field, colour in zip(labels, fields, in_order(len(names)), strict=True):
        marker = "o" if few else None
        lines += ax.plot(
            frames, field, color=colour, marker=marker, markersize=3.0, linewidth=1.2, label=label
        )
    if scale == "log":
        ax.set_yscale("log", nonpositive="mask")
    greatest = float(np.nanmax(fields))
    low, room = (10.0**-DECADES, 1.2) if scale == "log" else (0.0, 1.02)
    ax.set_ylim(greatest * low, greatest * room)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("frame of the input")
    ax.set_ylabel("part of the field per frame")
    if few:
        add_key(ax, lines, "layer")
    else:
        add_layer_key(ax, names, "layer")
    return ax


def _sigma(sigma: float, array: xr.DataArray) -> str:
    return _spread(sigma, unit_of(array, "pixels").replace("pixels", "px"))


def _spread(sigma: float, unit: str = "frames") -> str:
    return f"σ = {sigma:.3g} {unit}" if np.isfinite(sigma) else "σ undefined"


def _norm(name: str, fields: np.ndarray, scale: str) -> tuple[Normalize, Extend]:
    """Return the common scale of all layers, and whether any value lies below it."""
    finite = fields[np.isfinite(fields)]
    greatest = float(finite.max(initial=0.0))
    if greatest <= 0:
        raise InputError(
            f"receptive_field: {name} must have positive values.\n"
            f"  {name}: greatest value {greatest:g}\n"
            f"  A layer that does not depend on the input has no receptive field."
        )
    if scale == "linear":
        return Normalize(0.0, greatest), "neither"
    least = greatest * 10.0**-DECADES
    below: Extend = "min" if float(finite.min()) < least else "neither"
    return LogNorm(least, greatest, clip=True), below
