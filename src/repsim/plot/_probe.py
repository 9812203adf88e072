"""Accuracy of a linear classifier on each layer, by tokens."""

from __future__ import annotations

from typing import Literal

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from repsim._options import require_choice
from repsim.plot.parts._figure import new_axes, require_axes, text_width
from repsim.plot.parts._lines import (
    DISTINCT,
    MARKERS,
    REFERENCE,
    add_key,
    frame_lines,
    width_for,
)
from repsim.plot.parts._ticks import name_layers
from repsim.results import LINEAR_PROBE, chosen_tokens, names_of, single_tokens

__all__ = ["probe"]

HEIGHT = 2.8
"""Inches."""

VARIABLES = ("accuracy", "holdout_accuracy")
SINGLE = "0.45"
"""Colour of the single tokens."""


def probe(
    result: xr.Dataset,
    ax: Axes | None = None,
    *,
    variable: Literal["accuracy", "holdout_accuracy"] = "accuracy",
) -> Axes:
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
        Where to draw; by default the current Axes of pyplot if they are empty, or a new figure.
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
    require_axes("probe", ax)
    require_choice("probe", "variable", variable, VARIABLES)
    # The standard error is that of the accuracy only.
    optional = ("standard_error",) if variable == "accuracy" else ()
    result = LINEAR_PROBE.require(result, "probe", variable, optional=optional)
    names, values = names_of(result, "layer"), result[variable].values
    chosen = chosen_tokens(result)
    at = np.arange(len(names))
    if ax is None:
        ax = new_axes(width_for(len(names)), HEIGHT, beside=1.9, below=0.4 + text_width(names))

    frame_lines(ax)
    handles: list[Artist] = []
    colours, markers = (np.resize(each, len(chosen)) for each in (DISTINCT, MARKERS))
    for (i, label), colour, marker in zip(chosen.items(), colours, markers, strict=True):
        if optional and "standard_error" in result:
            errors = result["standard_error"].values[:, i]
            low, high = values[:, i] - errors, values[:, i] + errors
            ax.fill_between(at, low, high, color=str(colour), alpha=0.2, linewidth=0.0, zorder=1.0)
        handles += ax.plot(
            at,
            values[:, i],
            color=str(colour),
            marker=str(marker),
            markersize=3.0,
            linewidth=1.2,
            label=label,
        )
    single = single_tokens(result, variable)
    if single is not None:
        ax.fill_between(
            at, single.low, single.high, color=SINGLE, alpha=0.22, linewidth=0.0, zorder=1.0
        )
        # Drawn behind the others, which are fewer.
        handles += ax.plot(
            at,
            single.median,
            color=SINGLE,
            linewidth=1.2,
            marker=".",
            zorder=1.5,
            label="single tokens\n(median, range)"
            if len(single.names) > 1
            else f"token {single.names[0]}",
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
