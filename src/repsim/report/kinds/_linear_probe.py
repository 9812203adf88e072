"""Linear probes as a section: accuracy by layer."""

from __future__ import annotations

import numpy as np
import xarray as xr

from repsim.report._blocks import Chart, Section, Series, note_of_bands, with_band
from repsim.results import (
    LINEAR_PROBE,
    chosen_tokens,
    model_of,
    names_of,
    optional_values,
    single_tokens,
    values_of,
)

__all__ = ["probe_section"]

FEW_TESTED = 400
"""With fewer samples, the standard error of an accuracy of one half is above 2.5%."""


def probe_section(name: str, result: xr.Dataset) -> Section:
    """Accuracy of linear probes by layer."""
    layers = names_of(result, "layer")
    accuracy = values_of(result, "accuracy", "layer", "token")
    section = Section(
        name, LINEAR_PROBE.title, f"classes read from the layers of {model_of(result)}"
    )
    errors = optional_values(result, "standard_error", "layer", "token")
    at = np.arange(len(layers))
    series = []
    for j, label in chosen_tokens(result).items():
        line = Series(label, at, accuracy[:, j])
        series.append(with_band(line, None if errors is None else errors[:, j]))
    note = note_of_bands(series)
    single = single_tokens(result)
    if single is not None:
        name_of_all = "single tokens: median, range"
        series.append(Series(name_of_all, at, single.median, single.low, single.high))
    n_test = result.attrs.get("n_test")
    if isinstance(n_test, int | np.integer) and n_test < FEW_TESTED:
        section.cautions.append(
            f"Only {n_test} test samples: an accuracy of one half has a standard error of "
            f"{0.5 / n_test**0.5:.1%}."
        )
    references = []
    if "chance" in result.attrs:
        references = [(float(result.attrs["chance"]), "chance")]
    section.pictures = [
        Chart(
            "Accuracy by layer",
            f"Test accuracy of linear probes on {len(layers)} layers. Lines: "
            f"{', '.join(each.name for each in series)}.",
            "layer",
            "test accuracy",
            series,
            categories=layers,
            references=references,
            percent=True,
            note=note,
        )
    ]
    return section
