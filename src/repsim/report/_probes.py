"""Linear probes as a section: accuracy by layer."""

from __future__ import annotations

import numpy as np
import xarray as xr

from repsim.report._blocks import Chart, Finding, Section, Series, percent
from repsim.report._read import has, model_of, names_of, values_of

__all__ = ["probe_section"]

FEW_TESTED = 400
"""With fewer samples, the standard error of an accuracy of one half is above 2.5%."""


def probe_section(name: str, result: xr.Dataset) -> Section:
    """Accuracy of linear probes by layer."""
    layers, tokens = names_of(result, "layer"), names_of(result, "token")
    accuracy = values_of(result, "accuracy", "layer", "token")
    section = Section(name, "Linear probe", f"classes read from the layers of {model_of(result)}")
    errors = (
        values_of(result, "standard_error", "layer", "token")
        if has(result, "standard_error", "layer", "token")
        else None
    )
    at = np.arange(len(layers))
    single = [j for j, token in enumerate(tokens) if token.isdigit()]
    series = []
    for j, token in enumerate(tokens):
        if j in single:
            continue
        label = token.replace("_", " ").replace("cls", "CLS")
        low = high = None
        if errors is not None and np.isfinite(errors[:, j]).all():
            low, high = accuracy[:, j] - errors[:, j], accuracy[:, j] + errors[:, j]
        series.append(Series(label, at, accuracy[:, j], low, high))
        if np.isfinite(accuracy[:, j]).any():
            best = int(np.nanargmax(accuracy[:, j]))
            text = f"{accuracy[best, j]:.1%}"
            if errors is not None and np.isfinite(errors[best, j]):
                text += f" ± {errors[best, j]:.1%}"
            section.findings.append(Finding(f"best accuracy, {label}", text, layers[best]))
    if single:
        alone = accuracy[:, single]
        known = np.isfinite(alone)
        middle, low, high = (
            np.array(
                [f(row[k]) if k.any() else np.nan for row, k in zip(alone, known, strict=True)]
            )
            for f in (np.median, np.min, np.max)
        )
        series.append(Series("single tokens: median, range", at, middle, low, high))
        if np.isfinite(middle[-1]):
            section.findings.append(
                Finding(
                    "accuracy of single tokens, median, last layer",
                    percent(middle[-1]),
                    f"{percent(low[-1])} to {percent(high[-1])}",
                )
            )
    n_test = result.attrs.get("n_test")
    if isinstance(n_test, int | np.integer) and n_test < FEW_TESTED:
        section.cautions.append(
            f"Only {n_test} test samples: the standard error of an accuracy of a half is "
            f"{0.5 / n_test**0.5:.1%}."
        )
    references = []
    if "chance" in result.attrs:
        references = [(float(result.attrs["chance"]), "chance")]
        section.findings.append(Finding("most frequent class", f"{references[0][0]:.1%}"))
    section.pictures = [
        Chart(
            "Accuracy by layer",
            f"Test accuracy of linear probes on {len(layers)} layers, one line for each of: "
            f"{', '.join(each.name for each in series)}.",
            "layer",
            "test accuracy",
            series,
            categories=layers,
            references=references,
            percent=True,
            note="Bands are one binomial standard error." if errors is not None else "",
        )
    ]
    return section
