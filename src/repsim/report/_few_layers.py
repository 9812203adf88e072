"""Charts over no more layers than one can tell apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from repsim.report._blocks import Chart, Series

__all__ = ["with_few_layers"]

MOST = 60
"""Layers along a chart: with more, the space between two is a few pixels."""

LEAST = 8
"""An outline of fewer layers says too little."""


def with_few_layers(chart: Chart) -> Chart:
    """Return the chart over its outline if it has too many layers, with a note that says so."""
    layers = chart.categories
    if layers is None or len(layers) <= MOST:
        return chart
    kept, which = _outline(layers)
    drawn = f"Drawn: {len(kept)} of {len(layers)} layers, {which}."
    return replace(
        chart,
        categories=[layers[at] for at in kept],
        series=[_of_layers(each, kept) for each in chart.series],
        note=f"{chart.note} {drawn}".strip(),
        alt=f"{chart.alt} {drawn}",
    )


def _outline(layers: list[str]) -> tuple[list[int], str]:
    """Return the layers to draw, and which they are: whole blocks, or evenly spaced layers."""
    depths = [name.count(".") for name in layers]
    for depth in range(max(depths), -1, -1):
        kept = [at for at, own in enumerate(depths) if own <= depth]
        if LEAST <= len(kept) <= MOST:
            named = "one part" if depth == 0 else f"at most {depth + 1} parts"
            return kept, f"those whose names have {named}"
    evenly = np.linspace(0, len(layers) - 1, MOST).round().astype(int)
    return evenly.tolist(), "evenly spaced"


def _of_layers(series: Series, kept: list[int]) -> Series:
    """Return the points of a series that belong to these layers, at their new places."""
    place = {at: new for new, at in enumerate(kept)}
    points = [k for k, x in enumerate(np.asarray(series.x)) if int(x) in place]

    def chosen(values: Any) -> Any:
        return None if values is None else np.asarray(values)[points]

    def listed(values: list[str] | None) -> list[str] | None:
        return None if values is None else [values[k] for k in points]

    return replace(
        series,
        x=[place[int(series.x[k])] for k in points],
        y=chosen(series.y),
        low=chosen(series.low),
        high=chosen(series.high),
        names=listed(series.names),
        values=listed(series.values),
    )
