"""Colours for similarities, with separate colours outside the scale."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import matplotlib
import numpy as np
from matplotlib.colors import Colormap, ListedColormap, Normalize, to_rgba

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

FADE = 0.5
"""Part of the scale over which its lowest colour fades into the colour of lower values.

Unbiased estimates of 0 lie below 0 as often as above. A distinct colour that begins at 0 would draw
this noise as structure. Over half of the scale, the fade brightens about as magma does above 0, so
noise looks alike on both sides, and −0.3 does not look like −0.9. Above the upper end, values lie
by rounding, or because the caller chose the end; there the distinct colour begins at once.
"""

STEPS = 1000
"""Colours of the scale, if there is a fade below it."""

Extend = Literal["neither", "min", "max", "both"]


LARGEST = 1e100
"""An end of a scale, at most: matplotlib computes differences and products of them."""


class Scale(NamedTuple):
    """The mapping from values to colours."""

    values: Any
    """The values to draw; values beyond an end by rounding are set to that end."""
    cmap: Colormap
    """The colours of the scale, after those of the fade if any value lies there or lower."""
    norm: Normalize
    """From the lower end of what `cmap` covers to the upper end of the scale."""
    extend: Extend
    """The ends at which the colour bar has an arrow because values lie beyond `norm`."""
    ends: tuple[float, float]
    """The ends of the scale, without the fade."""
    least: float
    """Where the colours end: below the least value, but not below the fade."""

    @property
    def colours(self) -> Any:
        """64 colours, from the lower end of the scale to the upper one (64, 4)."""
        return self.cmap(self.norm(np.linspace(*self.ends, 64)))

    @property
    def fade(self) -> Any:
        """16 colours, from the lower end of the scale to the end of the fade (16, 4)."""
        return self.cmap(self.norm(np.linspace(self.ends[0], self.least, 16)))


def colour_scale(
    values: Any,
    operation: str,
    *,
    vmin: float,
    vmax: float,
    cmap: str | Colormap,
) -> Scale:
    """Return the colours for `values` on a scale from `vmin` to `vmax`.

    If a colormap sets no colour for values below (above) the scale, a distinct colour is set. Below
    the scale, the lowest colour fades into it; see `FADE`. A colour that the colormap sets itself
    is used for all values below. NaN stays transparent.
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

    colours = matplotlib.colormaps[cmap] if isinstance(cmap, str) else cmap
    least = vmin
    if np.array_equal(colours.get_over(), colours(1.0)):
        colours = colours.with_extremes(over=least_like(_sampled(colours, 64), OVER))
    if np.array_equal(colours.get_under(), colours(0.0)):
        colours = colours.with_extremes(under=least_like(_sampled(colours, 64), UNDER))
        lowest = float(values.min(where=values < vmin, initial=vmin))
        part = min((vmin - lowest) / (vmax - vmin), FADE)
        if part > 0:
            count = int(np.ceil(part * STEPS - ROUNDING))
            colours, least = _faded(colours, count), vmin - count / STEPS * (vmax - vmin)
    below, above = bool((values < least - slack).any()), bool((values > vmax).any())
    extend: Extend = "both" if above else "min"
    if not below:
        extend = "max" if above else "neither"
    return Scale(values, colours, Normalize(least, vmax), extend, (vmin, vmax), least)


def least_like(colours: Any, candidates: tuple[str, ...]) -> str:
    """Return the candidate that is farthest from all `colours` (m, 4)."""
    return max(candidates, key=lambda colour: np.abs(colours - to_rgba(colour)).sum(axis=1).min())


def _sampled(cmap: Colormap, count: int) -> Any:
    """Return `count` colours of a colormap, from its lowest to its highest (count, 4)."""
    return cmap(np.linspace(0.0, 1.0, count))


def _faded(cmap: Colormap, count: int) -> Colormap:
    """Return a colormap of `STEPS` colours, after the `count` highest colours of the fade."""
    scale = cmap((np.arange(STEPS) + 0.5) / STEPS)
    # With the square, colours change little just below the end, as those of magma just above it.
    share = ((np.arange(count)[::-1, None] + 0.5) / (FADE * STEPS)) ** 2
    under, over, bad = (
        tuple(of.tolist()) for of in (cmap.get_under(), cmap.get_over(), cmap.get_bad())
    )
    fade = share * under + (1 - share) * cmap(0.0)
    faded = ListedColormap(np.concatenate([fade, scale]), cmap.name)
    return faded.with_extremes(under=under, over=over, bad=bad)
