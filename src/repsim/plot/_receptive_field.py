"""What each layer's centre sees of the image: the effective receptive fields side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize

from repsim._errors import InputError
from repsim.plot.parts._beside import add_colour_bar, make_room
from repsim.plot.parts._colours import Extend
from repsim.plot.parts._figure import new_axes
from repsim.plot.parts._result import choose, names_along, require, select_layers, unit_of
from repsim.plot.parts._tiles import TileName, add_tile, columns_for, frame_tiles

__all__ = ["receptive_field"]

DECADES = 4
"""Powers of ten on the logarithmic scale: below, a field is noise."""

TILE, SMALLEST, LONGEST = 1.15, 0.8, 9.0
"""Inches: the side of a tile, its least, and the largest width of a picture."""

GAP, NAME = 0.06, 0.34
"""Parts of a tile: the space between two, and the height of the name above one."""

SCALES = ("log", "linear")


def receptive_field(
    result: xr.Dataset,
    ax: Axes | None = None,
    layers: Sequence[str] | None = None,
    *,
    scale: str = "log",
    columns: int | None = None,
) -> Axes:
    """Draw the effective receptive field of each layer as a map of the input, layer by layer.

    All maps are on one colour scale, so that they can be compared; each sums to 1. Below the name
    stands σ, the root mean square distance of a field's mass, where the result has it.

    Parameters
    ----------
    result : xarray.Dataset
        What `repsim.effective_receptive_field` returns: `field` (layer, row, column), and `sigma`
        (layer) in pixels.
    ax : matplotlib.axes.Axes, optional
        Where to draw; without it, a figure is made, ``ax.figure``, unknown to pyplot.
    layers : sequence of str, optional
        The layers to draw, by name; without it, all. Drawn in the order of `result`.
    scale : {"log", "linear"}
        The colour scale up to the greatest value of all maps, from 0 or over four powers of ten.
        A field with a sharp peak leaves nothing to see of a wide one on a linear scale. What lies
        below the logarithmic scale has its lowest colour.
    columns : int, optional
        Maps in a row; without it, as fills the Axes best.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`, or the new one. ``ax.images`` are the maps, in order; ``ax.images[0].colorbar`` the
        colour bar. Undefined fields (NaN) are hatched. Names are cut at their beginning where a
        map is too narrow for them.

    Raises
    ------
    InputError
        `result` is not such a Dataset or has no positive value, a layer is not in it, `scale` is
        unknown, or `columns` is not positive.

    References
    ----------
    Raghu et al. (2021), "Do Vision Transformers See Like Convolutional Neural Networks?", Fig. 6.
    Luo et al. (2016), "Understanding the effective receptive field in deep convolutional neural
    networks".

    Examples
    --------
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
    """
    choose("receptive_field", "scale", scale, SCALES)
    needed: dict[str, tuple[str, ...]] = {"field": ("layer", "row", "column")}
    if isinstance(result, xr.Dataset) and "sigma" in result:
        needed["sigma"] = ("layer",)
    result = require(result, "receptive_field", "effective_receptive_field", needed)
    result = select_layers(result, "receptive_field", layers)
    fields, names = result["field"].values, names_along(result, "layer")
    norm, extend = _norm(fields, scale)

    count, rows, wide = fields.shape
    step_x, step_y = wide * (1 + GAP), rows * (1 + GAP) + max(rows, wide) * NAME
    if columns is None:
        columns = columns_for(count, step_x, step_y, ax)
    elif columns < 1:
        raise InputError(
            f"receptive_field: columns must be at least 1.\n"
            f"  columns: {columns}\n"
            f"  Leave it out to fill the Axes."
        )
    columns = min(columns, count)
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
        if "sigma" in needed:
            text.append(_sigma(float(result["sigma"].values[index]), result["sigma"]))
        ax.add_artist(
            TileName(left, top - 0.03 * rows, wide, max(rows, wide) * (NAME - 0.04), text)
        )
    frame_tiles(ax, columns * step_x - wide * GAP, lines * step_y - rows * GAP)
    unit = unit_of(result["sigma"], "pixels") if "sigma" in needed else "pixels"
    label = f"part of the field per {unit.removesuffix('s')}"
    bar = add_colour_bar(ax, ax.images[-count], label, extend=extend)
    make_room(ax, [bar.ax])
    return ax


def _sigma(sigma: float, array: xr.DataArray) -> str:
    unit = unit_of(array, "pixels").replace("pixels", "px")
    return f"σ = {sigma:.3g} {unit}" if np.isfinite(sigma) else "σ undefined"


def _norm(fields: np.ndarray, scale: str) -> tuple[Normalize, Extend]:
    """Return the scale of all maps together, and whether something lies below it."""
    finite = fields[np.isfinite(fields)]
    greatest = float(finite.max(initial=0.0))
    if greatest <= 0:
        raise InputError(
            f"receptive_field: field must have positive values.\n"
            f"  field: greatest value {greatest:g}\n"
            f"  A layer that does not depend on the input has no receptive field."
        )
    if scale == "linear":
        return Normalize(0.0, greatest), "neither"
    least = greatest * 10.0**-DECADES
    below: Extend = "min" if float(finite.min()) < least else "neither"
    return LogNorm(least, greatest, clip=True), below
