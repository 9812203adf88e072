"""Subsets of heads as a section: CKA with layers of another model, by attention distance."""

from __future__ import annotations

import numpy as np
import xarray as xr

from repsim.report._blocks import Chart, Section, Series, note_of_bands, with_band
from repsim.results import (
    ALONG_DISTANCE,
    HEAD_SUBSET_CKA,
    LEAST_HIGH,
    model_of,
    names_of,
    number,
    optional_values,
    subset_order,
    unit_of,
    values_of,
)

__all__ = ["subset_section"]


def subset_section(name: str, result: xr.Dataset) -> Section:
    """CKA of subsets of heads with layers of another model, by attention distance."""
    cka = values_of(result, "cka", "subset", "layer_y")
    layers = names_of(result, "layer_y")
    along = values_of(result, "mean_distance", "subset")
    order, unit = subset_order(result), unit_of(result["mean_distance"], "pixels")
    model_x, model_y = model_of(result, "x"), model_of(result, "y")
    section = Section(
        name,
        HEAD_SUBSET_CKA.title,
        f"heads of {result.attrs.get('layer', 'a layer')} of {model_x}, with layers of {model_y}",
    )
    errors = optional_values(result, "standard_error", "subset", "layer_y")
    kinds = result["kind"].values.astype(str) if "kind" in result else np.full(len(along), "")
    found = list(dict.fromkeys(kinds.tolist()))
    dashes = [f"Dashed: {kind}." for kind in found[1:]]
    series = []
    for j, layer in enumerate(layers):
        for dashed, kind in enumerate(found):
            here = order[kinds[order] == kind]
            line = Series(
                f"{layer}, {kind}" if kind else layer,
                along[here],
                cka[here, j],
                at=j / max(1, len(layers) - 1),
                dashed=bool(dashed),
                names=[_subset(result, i) for i in here],
            )
            series.append(with_band(line, None if errors is None else errors[here, j]))
    section.cautions = [
        "Subsets share heads, so their points are not independent: the correlations have no "
        "p-value."
    ]
    section.pictures = [
        Chart(
            "CKA of subsets of heads",
            f"CKA of {len(order)} subsets of heads, whose mean attention distance goes from "
            f"{number(float(along.min()), 1)} to {number(float(along.max()), 1)} {unit}. Each of "
            f"{len(layers)} layers of {model_y} has a line for each kind of subset.",
            f"{ALONG_DISTANCE} ({unit})",
            f"CKA with layers of {model_y}",
            series,
            reach=LEAST_HIGH,
            ordered="layer",
            note=" ".join(filter(None, [note_of_bands(series), *dashes])),
        )
    ]
    return section


def _subset(result: xr.Dataset, i: int) -> str:
    """Return the number, the kind and the heads of a subset."""
    said = (f", {key} {result[key].values[i]}" for key in ("kind", "heads") if key in result)
    return f"subset {i}" + "".join(said)
