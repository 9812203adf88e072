"""Training time as a section: layers over steps, or a map of steps for each layer."""

from __future__ import annotations

import numpy as np
import xarray as xr

from repsim.report._blocks import Chart, LayerMap, Section, Series, Variable
from repsim.results import (
    TRAJECTORY,
    against,
    is_between,
    measure_label,
    model_of,
    names_of,
    optional_values,
    step_label,
    trajectory_variable,
    values_of,
)

__all__ = ["trajectory_section"]


def trajectory_section(name: str, result: xr.Dataset) -> Section:
    """How the layers of a model change with the steps of training."""
    subtitle = f"{model_of(result)}, each layer with {against(result)}"
    section = Section(name, TRAJECTORY.title, subtitle)
    section.pictures = [_map(result) if is_between(result) else _chart(result.sortby("step"))]
    return section


def _chart(result: xr.Dataset) -> Chart:
    key, layers = trajectory_variable(result), names_of(result, "layer")
    label = measure_label(result[key])
    steps = result["step"].values.astype(np.float64)
    values = values_of(result, key, "layer", "step")
    errors = optional_values(result, "standard_error", "layer", "step")
    series = []
    for at, layer in enumerate(layers):
        low = high = None
        if errors is not None and np.isfinite(errors[at]).all():
            low, high = values[at] - errors[at], values[at] + errors[at]
        place = at / max(1, len(layers) - 1)
        series.append(Series(layer, steps, values[at], low, high, at=place))
    return Chart(
        f"Similarity to {against(result)}",
        f"{label} of each of {len(layers)} layers with {against(result)}, at {len(steps)} steps "
        f"from {step_label(steps[0])} to {step_label(steps[-1])}.",
        "training step",
        label,
        series,
        ordered="depth of the layer",
        note="Bands are one standard error." if errors is not None else "",
    )


def _map(result: xr.Dataset) -> LayerMap:
    key, layers = trajectory_variable(result), names_of(result, "layer")
    label = measure_label(result[key])
    rows, columns = (list(map(step_label, result[dim].values)) for dim in ("step_x", "step_y"))
    values = values_of(result, key, "layer", "step_x", "step_y")
    similar = result[key].attrs.get("kind", "similarity") == "similarity"
    return LayerMap(
        title="Steps with each other",
        alt=f"Map of {label} between {len(rows)} steps of training, for each of {len(layers)} "
        f"layers: {', '.join(layers)}.",
        rows=rows,
        columns=columns,
        row_title="step",
        column_title="step",
        variables=[
            Variable(f"{label}, {layer}", each, low=0.0, high=1.0 if similar else None)
            for layer, each in zip(layers, values, strict=True)
        ],
        orders=[("steps", range(len(rows)), range(len(columns)))],
        note="Choose the layer above the map.",
    )
