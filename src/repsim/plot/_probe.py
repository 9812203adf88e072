"""Accuracy of a linear classifier on each layer, by tokens."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from repsim.plot.parts._figure import new_axes, text_width
from repsim.plot.parts._lines import DISTINCT, REFERENCE, add_key, frame_lines, width_for
from repsim.plot.parts._result import choose, names_along, require
from repsim.plot.parts._ticks import name_layers

__all__ = ["probe"]

HEIGHT = 2.8
"""Inches."""

VARIABLES = ("accuracy", "holdout_accuracy")
LABELS = {"cls": "CLS", "mean": "mean", "mean_without_cls": "mean without CLS"}
SINGLE = "0.45"
"""Colour of the single tokens."""


def probe(result: xr.Dataset, ax: Axes | None = None, *, variable: str = "accuracy") -> Axes:
    r"""Draw the accuracy of linear probes by layer, one line per choice of tokens.

    >>> import xarray as xr
    >>> from repsim.plot import probe
    >>> result = xr.Dataset(
    ...     {"accuracy": (("layer", "token"), [[0.2, 0.3, 0.1, 0.3], [0.9, 0.7, 0.2, 0.6]])},
    ...     coords={"layer": ["blocks.0", "blocks.1"], "token": ["cls", "mean", "1", "2"]},
    ...     attrs={"chance": 0.1},
    ... )
    >>> ax = probe(result)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['CLS', 'mean', 'single tokens\n(median, range)', 'chance']

    Probes of single tokens are summarised: the line is their median, and the band spans their least
    and greatest accuracy. The dashed line is chance.

    Parameters
    ----------
    result : xarray.Dataset
        A result of `repsim.linear_probe`: `accuracy` (layer, token), from 0 to 1. Tokens whose name
        is a number are single tokens, including CLS if each token was probed. For the other
        choices, a `standard_error` is drawn as a band of one to each side. ``attrs["chance"]`` is
        drawn if present.
    ax : matplotlib.axes.Axes, optional
        Where to draw. Without it, a new figure is made, ``ax.figure``, which pyplot does not know.
    variable : {"accuracy", "holdout_accuracy"}
        Accuracy on the test data, or on the held-out part of the training data that chose the
        ridge.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`, or the new Axes. Tokens that a layer lacks (NaN) are gaps.

    Raises
    ------
    InputError
        `result` is not such a Dataset, or `variable` is unknown.

    References
    ----------
    Raghu et al. (2021), "Do Vision Transformers See Like Convolutional Neural Networks?", Sec. 6.
    """
    choose("probe", "variable", variable, VARIABLES)
    needed: dict[str, tuple[str, ...]] = {variable: ("layer", "token")}
    has_errors = isinstance(result, xr.Dataset) and "standard_error" in result
    if has_errors and variable == "accuracy":  # the standard error belongs to this variable only
        needed["standard_error"] = ("layer", "token")
    result = require(result, "probe", "linear_probe", needed)
    names, tokens = names_along(result, "layer"), names_along(result, "token")
    values = result[variable].values
    single = [i for i, token in enumerate(tokens) if token.isdigit()]
    at = np.arange(len(names))
    if ax is None:
        ax = new_axes(width_for(len(names)), HEIGHT, beside=1.9, below=0.4 + text_width(names))

    frame_lines(ax)
    handles: list[Artist] = []
    choices = [i for i in range(len(tokens)) if i not in single]
    for i, colour in zip(choices, np.resize(DISTINCT, len(choices)), strict=True):
        if "standard_error" in needed:
            errors = result["standard_error"].values[:, i]
            low, high = values[:, i] - errors, values[:, i] + errors
            ax.fill_between(at, low, high, color=str(colour), alpha=0.2, linewidth=0.0, zorder=1.0)
        handles += ax.plot(
            at,
            values[:, i],
            color=str(colour),
            marker="o",
            markersize=3.0,
            linewidth=1.2,
            label=LABELS.get(tokens[i], tokens[i].replace("_", " ")),
        )
    if single:
        low, middle, high = _range(values[:, single])
        ax.fill_between(at, low, high, color=SINGLE, alpha=0.22, linewidth=0.0, zorder=1.0)
        # Drawn behind the others, which are fewer.
        handles += ax.plot(
            at,
            middle,
            color=SINGLE,
            linewidth=1.2,
            marker=".",
            zorder=1.5,
            label="single tokens\n(median, range)"
            if len(single) > 1
            else f"token {tokens[single[0]]}",
        )
    if "chance" in result.attrs:
        chance = float(result.attrs["chance"])
        handles.append(ax.axhline(chance, **REFERENCE, label="chance"))
    ax.set_xlim(-0.5, len(names) - 0.5)
    ax.set_ylim(bottom=0.0)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    held_out = " on held-out training data" if variable == "holdout_accuracy" else ""
    ax.set_ylabel(f"accuracy of the linear probe{held_out}")
    ax.set_xlabel("layer")
    name_layers(ax.xaxis, at, names)
    add_key(ax, handles)
    return ax


def _range(values: np.ndarray) -> np.ndarray:
    """Least, median and greatest value of each row (3, layers); NaN for an empty row."""
    out = np.full((3, len(values)), np.nan)
    for i, row in enumerate(values):
        known = row[~np.isnan(row)]
        if len(known):
            out[:, i] = known.min(), np.median(known), known.max()
    return out
