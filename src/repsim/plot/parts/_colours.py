"""Colours for similarities, with separate colours outside the scale."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import matplotlib
import numpy as np
from matplotlib.colors import Colormap, Normalize, to_rgba

from repsim._errors import InputError
from repsim._options import as_number, got, require_choice

__all__ = ["UNDEFINED", "Scale", "colour_scale", "least_like"]

UNDER = ("#4f9dac", "#e08b7d", "#b39ddb")
OVER = ("#5aae61", "#f4a6c0", "#8d6e63")
"""Candidate colours below and above the scale; the one least like the scale is chosen."""

UNDEFINED: dict[str, Any] = {
    "facecolor": "0.88",
    "edgecolor": "0.55",
    "hatch": "//////",
    "linewidth": 0.0,
}
"""How an undefined cell (NaN) looks."""

ROUNDING = 1e-5
"""Part of the scale by which a value may exceed an end and still count as the end.

Without it, a diagonal of CKA = 1 + 1e-7 would be drawn as out of range.
"""

Extend = Literal["neither", "min", "max", "both"]


LARGEST = 1e100
"""An end of a scale, at most: matplotlib computes differences and products of them."""


class Scale(NamedTuple):
    """The mapping from values to colours."""

    values: Any
    """The values to draw; values beyond an end by rounding are set to that end."""
    cmap: Colormap
    norm: Normalize
    extend: Extend
    """The ends at which the colour bar has an arrow because values lie beyond."""


def colour_scale(
    values: Any, operation: str, *, vmin: float, vmax: float, cmap: str | Colormap
) -> Scale:
    """Return the colours for `values` on a scale from `vmin` to `vmax`.

    If a colormap sets no colour for values below (above) the scale, a distinct colour is set. NaN
    stays transparent.
    """
    vmin = as_number(operation, "vmin", vmin, least=-LARGEST, most=LARGEST)
    vmax = as_number(operation, "vmax", vmax, least=-LARGEST, most=LARGEST)
    if isinstance(cmap, str):
        require_choice(operation, "cmap", cmap, matplotlib.colormaps)
    elif not isinstance(cmap, Colormap):
        raise InputError(
            f"{operation}: cmap must be a name or a matplotlib Colormap.\n  got {got(cmap)}"
        )
    if not vmin < vmax:
        raise InputError(
            f"{operation}: vmin must be less than vmax.\n"
            f"  vmin: {vmin}    vmax: {vmax}\n"
            "  Similarities such as CKA are drawn on 0 to 1."
        )
    slack = ROUNDING * (vmax - vmin)
    values = np.where((values < vmin) & (values >= vmin - slack), vmin, values)
    values = np.where((values > vmax) & (values <= vmax + slack), vmax, values)
    below, above = bool((values < vmin).any()), bool((values > vmax).any())
    extend: Extend = "both" if above else "min"
    if not below:
        extend = "max" if above else "neither"

    colours = matplotlib.colormaps[cmap] if isinstance(cmap, str) else cmap
    extremes = {}
    if np.array_equal(colours.get_under(), colours(0.0)):
        extremes["under"] = least_like(colours, UNDER)
    if np.array_equal(colours.get_over(), colours(1.0)):
        extremes["over"] = least_like(colours, OVER)
    return Scale(values, colours.with_extremes(**extremes), Normalize(vmin, vmax), extend)


def least_like(cmap: Colormap, candidates: tuple[str, ...]) -> str:
    """Return the candidate that is farthest from every colour on the scale."""
    scale = cmap(np.linspace(0.0, 1.0, 64))
    return max(candidates, key=lambda colour: np.abs(scale - to_rgba(colour)).sum(axis=1).min())
