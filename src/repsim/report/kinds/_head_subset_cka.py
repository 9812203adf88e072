"""Subsets of heads as a section: CKA with layers of another model, by attention distance."""

from __future__ import annotations

import xarray as xr

from repsim.report._blocks import Chart, Section, Series, note_of_bands, with_band
from repsim.results import (
    ALONG_DISTANCE,
    HEAD_SUBSET_CKA,
    model_of,
    names_of,
    number,
    optional_values,
    subset_order,
    values_of,
)

__all__ = ["subset_section"]


def subset_section(name: str, result: xr.Dataset) -> Section:
    """CKA of subsets of heads with layers of another model, by attention distance."""
    cka = values_of(result, "cka", "subset", "layer_y")
    layers = names_of(result, "layer_y")
    along = values_of(result, "mean_distance", "subset")
    order = subset_order(result)
    model_x, model_y = model_of(result, "x"), model_of(result, "y")
    section = Section(
        name,
        HEAD_SUBSET_CKA.title,
        f"heads of {result.attrs.get('layer', 'a layer')} of {model_x}, with layers of {model_y}",
    )
    errors = optional_values(result, "standard_error", "subset", "layer_y")
    labels = [
        f"subset {i}"
        + "".join(f", {key} {result[key].values[i]}" for key in ("kind", "heads") if key in result)
        for i in order
    ]
    series = []
    for j, layer in enumerate(layers):
        at = j / max(1, len(layers) - 1)
        line = Series(layer, along[order], cka[order, j], at=at, names=labels)
        series.append(with_band(line, None if errors is None else errors[order, j]))
    section.cautions = [
        "Subsets share heads, so their points are not independent: the correlations have no "
        "p-value."
    ]
    section.pictures = [
        Chart(
            "CKA of subsets of heads",
            f"CKA of {len(order)} subsets of heads, whose mean attention distance goes from "
            f"{number(float(along.min()), 1)} to {number(float(along.max()), 1)} pixels. Each of "
            f"{len(layers)} layers of {model_y} has a line.",
            f"{ALONG_DISTANCE} (pixels)",
            f"CKA with layers of {model_y}",
            series,
            ordered="layer",
            note=note_of_bands(series),
        )
    ]
    return section
