"""Whether the skip connection or the branch carries the representation, site by site."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from repsim._options import require_choice
from repsim.plot.parts._beside import add_colour_bar, make_room
from repsim.plot.parts._colours import UNDEFINED, Extend
from repsim.plot.parts._figure import new_axes, require_axes, text_width
from repsim.plot.parts._lines import DISTINCT, REFERENCE, add_key, frame_lines, width_for
from repsim.plot.parts._ticks import NAME_SIZE, name_layers
from repsim.results import GROUPS, RATIO, RESIDUAL_RATIOS, group_ratios, names_of

__all__ = ["residual_ratios"]

HEIGHT = 2.8
MAP_WIDTH, PER_SITE, LOWEST, HIGHEST = 4.2, 0.16, 1.6, 9.0
"""Inches: size of the lines; of the map, its rows, and the limits of its height."""

KINDS = ("lines", "map")
STYLES: tuple[dict[str, Any], ...] = tuple(
    {"marker": marker, "markersize": 3.0, "linestyle": line, "linewidth": 1.1}
    for marker, line in (("o", "-"), ("s", (0, (3, 1.5))), ("^", (0, (1, 1))), ("D", "-."))
)
"""Line style of each kind of branch."""
FILLED = ("", "white")
"""The inside of the markers of each group of tokens, "" for its colour: in print both are grey."""
PREFIX_PART, GAP_PART = 0.05, 0.02
"""As parts of the width of the map: its prefix tokens, and the gap beside them."""


STEPS: tuple[tuple[float, tuple[float, ...]], ...] = (
    (1.0, (1.0, 1.2, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)),
    (3.0, (1.0, 2.0, 5.0)),
    (np.inf, (1.0,)),
)
"""Multiples of a power of ten that are labelled on an axis of fewer than this number of them."""


def residual_ratios(
    result: xr.Dataset,
    ax: Axes | None = None,
    *,
    kind: Literal["lines", "map"] = "lines",
) -> Axes:
    """Draw the ratio of the norms of skip and branch, ‖z‖/‖f(z)‖, of every residual connection.

    >>> import xarray as xr
    >>> from repsim.plot import residual_ratios
    >>> result = xr.Dataset(
    ...     {"ratio_prefix": ("site", [6.0, 1.5]), "ratio_spatial": ("site", [1.75, 3.0])},
    ...     coords={"site": ["blocks.0.attn", "blocks.0.mlp"]},
    ... )
    >>> ax = residual_ratios(result)
    >>> [line.get_ydata().tolist() for line in ax.lines[:2]]
    [[6.0, 1.5], [1.75, 3.0]]

    The scale is logarithmic. Above 1 (dashed) the skip connection has the larger norm, below 1 the
    branch has.

    Parameters
    ----------
    result : xarray.Dataset
        A result of `repsim.residual_ratios`: `ratio_prefix` and `ratio_spatial` (site) for the
        lines, `ratio` (site, token) and the coordinate `n_prefix` (site) for the map.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default the current Axes of pyplot if they are empty, or a new figure.
    kind : {"lines", "map"}
        ``"lines"``: the means over prefix tokens (CLS) and over spatial tokens by site; over all
        tokens if there is no prefix, as in a text. If the sites have at most four recurring kinds
        of branch (attention, MLP), each kind gets its own line. ``"map"``: every token at every
        site, with prefix tokens separate at the left.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`, or the new Axes. Undefined ratios (NaN) are gaps in a line and hatched in the map;
        tokens that a site lacks are blank. Values that are not positive cannot be drawn on this
        scale: they are gaps in a line and have the lowest colour in the map.

    Raises
    ------
    InputError
        `result` is not such a Dataset, or `kind` is unknown.

    References
    ----------
    Raghu et al. (2021), "Do Vision Transformers See Like Convolutional Neural Networks?", Sec. 5.
    """
    require_axes("residual_ratios", ax)
    require_choice("residual_ratios", "kind", kind, KINDS)
    if kind == "lines":
        return _draw_lines(RESIDUAL_RATIOS.require(result, "residual_ratios", *GROUPS), ax)
    return _draw_map(RESIDUAL_RATIOS.require(result, "residual_ratios", "ratio"), ax)


def _draw_lines(result: xr.Dataset, ax: Axes | None) -> Axes:
    names = names_of(result, "site")
    at = np.arange(len(names))
    if ax is None:
        ax = new_axes(width_for(len(names)), HEIGHT, beside=2.0, below=0.4 + text_width(names))

    frame_lines(ax)
    ax.set_yscale("log")
    handles: list[Artist] = []
    branches = _recurring(result) or {"": at}
    groups = group_ratios(result).items()
    for (label, values), colour, inside in zip(groups, DISTINCT, FILLED, strict=False):
        values = np.where(values > 0, values, np.nan)
        group: dict[str, Any] = {"color": colour, "markerfacecolor": inside or colour}
        handles.append(Line2D([], [], marker="o", markersize=3.5, label=label, **group))
        for (branch, sites), style in zip(branches.items(), STYLES, strict=False):
            # Attention and MLP have different ratios, so one line would zigzag.
            ax.plot(at[sites], values[sites], label=f"{label} {branch}", **group, **style)
    if len(branches) > 1:
        handles += [
            Line2D([], [], color="0.4", label=f"branch {branch}", **style)
            for branch, style in zip(branches, STYLES, strict=False)
        ]
    handles.append(ax.axhline(1.0, **REFERENCE, label="skip = branch"))
    _number(ax.yaxis, *ax.get_ylim())
    ax.set_xlim(-0.5, len(names) - 0.5)
    ax.set_ylabel(RATIO)
    ax.set_xlabel("residual connection")
    name_layers(ax.xaxis, at, names)
    add_key(ax, handles)
    return ax


def _recurring(result: xr.Dataset) -> dict[str, Any]:
    """Return the sites of each kind of branch, if the kinds are few and each recurs."""
    if "branch" not in result.coords:
        return {}
    branches = result["branch"].values.astype(str)
    found = {name: np.flatnonzero(branches == name) for name in dict.fromkeys(branches.tolist())}
    few = 1 < len(found) <= len(STYLES)
    return found if few and all(len(sites) > 1 for sites in found.values()) else {}


def _draw_map(result: xr.Dataset, ax: Axes | None) -> Axes:
    names = names_of(result, "site")
    prefix, spatial = _split(result)
    ratios = result["ratio"].values
    norm, extend = _norm(ratios)
    if ax is None:
        height = float(np.clip(PER_SITE * len(names), LOWEST, HIGHEST))
        ax = new_axes(MAP_WIDTH, height, beside=1.2 + text_width(names), below=0.5)

    tokens = max(spatial.shape[1], 1)
    bottom, top = -0.5, len(names) - 0.5
    image = None
    right = left = -0.5
    if prefix.shape[1]:
        right -= GAP_PART * tokens
        left = right - max(PREFIX_PART * tokens, prefix.shape[1])
    for values, extent in (
        (spatial, (-0.5, spatial.shape[1] - 0.5, bottom, top)),
        (prefix, (left, right, bottom, top)),
    ):
        if not values.shape[1]:
            continue
        image = ax.imshow(
            values,
            norm=norm,
            cmap="PuOr",
            origin="lower",
            interpolation="nearest",
            aspect="auto",
            extent=extent,
        )
        cell = (extent[1] - extent[0]) / values.shape[1]
        _hatch(ax, values, extent[0], cell, _lacking(result, values is prefix, values.shape[1]))
    assert image is not None  # there is a token
    ax.set_xlim(left, spatial.shape[1] - 0.5 if spatial.shape[1] else right)
    ax.set_ylim(bottom, top)
    ax.grid(visible=False)
    ax.spines[:].set_linewidth(0.6)
    ax.set_ylabel("residual connection")
    ax.set_xlabel("token" + (" (prefix tokens at the left)" if prefix.shape[1] else ""))
    name_layers(ax.yaxis, np.arange(len(names)), names)
    ax.tick_params(axis="x", labelsize=NAME_SIZE, length=2.0, width=0.6)
    steps = MaxNLocator(8, integer=True).tick_values(0, max(spatial.shape[1] - 1, 1))
    ax.set_xticks([tick for tick in steps if 0 <= tick < spatial.shape[1]])
    bar = add_colour_bar(ax, image, RATIO, extend=extend)
    _number(bar.ax.yaxis, *bar.ax.get_ylim())
    make_room(ax, [bar.ax])
    return ax


def _split(result: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the ratios of prefix and of spatial tokens, each site starting at column 0."""
    ratios = result["ratio"].values
    counts = _prefixes(result)
    most = int(counts.max())
    prefix = np.full((len(ratios), most), np.nan)
    spatial = np.full((len(ratios), ratios.shape[1] - int(counts.min())), np.nan)
    for site, count in enumerate(counts):
        prefix[site, :count] = ratios[site, :count]
        spatial[site, : ratios.shape[1] - count] = ratios[site, count:]
    return prefix, spatial


def _prefixes(result: xr.Dataset) -> np.ndarray[Any, np.dtype[np.int64]]:
    if "n_prefix" not in result.coords:
        return np.zeros(result.sizes["site"], dtype=np.int64)
    return np.asarray(result["n_prefix"].values, dtype=np.int64)


def _lacking(result: xr.Dataset, of_prefix: bool, width: int) -> np.ndarray:
    """Where a site has no such token: after its prefix, or after its last token."""
    counts = _prefixes(result)
    if of_prefix:
        return np.arange(width) >= counts[:, None]
    if "n_tokens" in result.coords:
        last = np.asarray(result["n_tokens"].values)
    else:
        known = ~np.isnan(result["ratio"].values)
        last = np.where(known.any(axis=1), known.shape[1] - known[:, ::-1].argmax(axis=1), 0)
    lacking: np.ndarray = np.arange(width) >= (last - counts)[:, None]
    return lacking


def _hatch(ax: Axes, values: np.ndarray, left: float, cell: float, lacking: np.ndarray) -> None:
    """Hatch undefined values of existing tokens."""
    for site, token in np.argwhere(np.isnan(values) & ~lacking):
        ax.add_patch(
            Rectangle((left + token * cell, site - 0.5), cell, 1.0, zorder=-1.0, **UNDEFINED)
        )


def _norm(ratios: np.ndarray) -> tuple[LogNorm, Extend]:
    """Return a scale that is centred on 1 and covers the values."""
    usable = ratios[np.isfinite(ratios) & (ratios > 0)]
    most = float(np.exp(np.abs(np.log(usable)).max(initial=0.0)))
    most = max(most, 1.1)
    below, above = bool((ratios <= 0).any()), bool(np.isposinf(ratios).any())
    extend: Extend = "both" if above else "min"
    if not below:
        extend = "max" if above else "neither"
    return LogNorm(1 / most, most, clip=True), extend


def _number(axis: Axis, low: float, high: float) -> None:
    """Label a logarithmic axis with plain numbers, not only powers of ten."""
    decades = np.log10(high / low)
    if decades < 0.25:
        axis.set_major_locator(MaxNLocator(5))
    else:
        axis.set_major_locator(LogLocator(subs=next(s for most, s in STEPS if decades < most)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
