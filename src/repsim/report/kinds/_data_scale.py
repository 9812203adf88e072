"""Data scale as a section: models trained on parts of the data, layer by layer."""

from __future__ import annotations

import numpy as np
import xarray as xr

from repsim.report._blocks import Chart, Section, Series, note_of_bands, with_band
from repsim.results import (
    DATA_SCALE,
    has,
    model_of,
    names_of,
    optional_values,
    part_label,
    values_of,
)

__all__ = ["data_scale_section"]


def data_scale_section(name: str, result: xr.Dataset) -> Section:
    """CKA of models trained on less data with the model trained on all data, layer by layer."""
    layers = names_of(result, "layer")
    fractions = np.asarray(result["fraction"].values, dtype=np.float64)
    cka = values_of(result, "cka", "fraction", "layer")
    errors = optional_values(result, "standard_error", "fraction", "layer")
    section = Section(
        name,
        DATA_SCALE.title,
        f"models trained on less data, with {model_of(result)} trained on all",
    )
    at, series = np.arange(len(layers)), []
    order = np.argsort(fractions)
    for k, i in enumerate(order):
        label = part_label(fractions[i])
        place = k / max(1, len(order) - 1)
        line = Series(label, at, cka[i], at=place)
        series.append(with_band(line, None if errors is None else errors[i]))
    if has(result, "control_cka", "control", "layer"):
        for control, row in zip(
            names_of(result, "control"),
            values_of(result, "control_cka", "control", "layer"),
            strict=True,
        ):
            series.append(Series(f"control: {control}", at, row, dashed=True))
    else:
        section.cautions.append(
            "No control: a second seed on all data would show which score counts as “the same”."
        )
    section.pictures = [
        Chart(
            "Similarity to the model trained on all data",
            f"CKA of each of {len(layers)} layers with the same layer of the model trained on "
            f"all data. Lines: {', '.join(each.name for each in series)}.",
            "layer",
            "CKA with the full-data model",
            series,
            categories=layers,
            ordered="fraction of the data",
            note=note_of_bands(series),
        )
    ]
    return section
