"""Training time as a section: layers over steps, or a map of steps for each layer."""

from __future__ import annotations

import numpy as np
import xarray as xr

from repsim.report._blocks import (
    Chart,
    LayerMap,
    Section,
    Series,
    Variable,
    note_of_bands,
    with_band,
)
from repsim.results import (
    TRAJECTORY,
    against,
    is_between,
    log_from,
    model_of,
    names_of,
    optional_values,
    step_label,
    trajectory_label,
    trajectory_scale,
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
    label = trajectory_label(result)
    similar = result[key].attrs.get("kind", "similarity") == "similarity"
    steps = result["step"].values.astype(np.float64)
    values = values_of(result, key, "layer", "step")
    errors = optional_values(result, "standard_error", "layer", "step")
    series = []
    for at, layer in enumerate(layers):
        place = at / max(1, len(layers) - 1)
        line = Series(layer, steps, values[at], at=place)
        series.append(with_band(line, None if errors is None else errors[at]))
    return Chart(
        f"{'Similarity' if similar else 'Dissimilarity'} to {against(result)}",
        f"{label} of each of {len(layers)} layers with {against(result)}, at {len(steps)} steps "
        f"from {step_label(steps[0])} to {step_label(steps[-1])}.",
        "training step",
        label,
        series,
        log_from=log_from(steps),
        ordered="depth of the layer",
        note=note_of_bands(series),
    )


def _map(result: xr.Dataset) -> LayerMap:
    key, layers = trajectory_variable(result), names_of(result, "layer")
    label = trajectory_label(result)
    rows, columns = (list(map(step_label, result[dim].values)) for dim in ("step_x", "step_y"))
    values = values_of(result, key, "layer", "step_x", "step_y")
    low, high, similar = trajectory_scale(result)
    colours = "magma" if similar else "viridis_r"
    return LayerMap(
        title="Steps with each other",
        alt=f"Map of {label} between {len(rows)} steps of training, for each of {len(layers)} "
        f"layers: {', '.join(layers)}.",
        rows=rows,
        columns=columns,
        row_title="step",
        column_title="step",
        variables=[
            Variable(f"{label}, {layer}", each, low, high, colours)
            for layer, each in zip(layers, values, strict=True)
        ],
        orders=[("steps", range(len(rows)), range(len(columns)))],
        note="Choose the layer above the map.",
    )
