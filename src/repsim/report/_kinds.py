"""The kind of a result, found from its variables, and the section that shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import xarray as xr

from repsim.report._attention import attention_section
from repsim.report._blocks import Section, number
from repsim.report._fields import field_section
from repsim.report._maps import DIMS, map_section, match_section
from repsim.report._places import localization_section
from repsim.report._probes import probe_section
from repsim.report._ratios import ratio_section
from repsim.report._scales import data_scale_section
from repsim.report._subsets import subset_section

__all__ = ["KINDS", "section_of"]


class Kind(NamedTuple):
    """A kind of result: the variables that identify it, with their dimensions, and its section."""

    name: str
    variables: dict[str, tuple[str, ...]]
    section: Callable[[str, xr.Dataset], Section]

    def fits(self, result: xr.Dataset) -> bool:
        """Whether `result` has these variables, as numbers (or names), and none is empty."""
        return all(
            key in result.variables
            and set(result[key].dims) == set(dims)
            and result[key].size > 0
            and result[key].dtype.kind in ("OU" if key in TEXT else "fiu")
            for key, dims in self.variables.items()
        )


TEXT = ("match",)

KINDS = (
    Kind("attention_distance", {"distance": ("layer", "head")}, attention_section),
    Kind(
        "head_subset_cka",
        {"cka": ("subset", "layer_y"), "mean_distance": ("subset",)},
        subset_section,
    ),
    Kind("effective_receptive_field", {"field": ("layer", "row", "column")}, field_section),
    Kind("residual_ratios", {"ratio": ("site", "token")}, ratio_section),
    Kind("token_localization", {"cka": ("layer", "token", "patch")}, localization_section),
    Kind("linear_probe", {"accuracy": ("layer", "token")}, probe_section),
    Kind("data_scale", {"cka": ("fraction", "layer")}, data_scale_section),
    Kind(
        "layer_match",
        {"match": ("layer_x",), "depth_x": ("layer_x",), "depth_y": ("layer_x",)},
        match_section,
    ),
)
"""The kinds of results of repsim.

A map of layers by layers is found by its dimensions, because its variable has the name of its
measure. Any other Dataset is shown as a table.
"""

COUNTS = {
    "n_samples": "samples",
    "n_batches": "batches",
    "n_train": "training samples",
    "n_test": "test samples",
}

ROWS = 40
"""Rows in the table of an unknown kind; the other rows are counted."""


def section_of(name: str, result: xr.Dataset) -> Section:
    """Return the section of a result of any kind, with its provenance."""
    section = _section(name, result)
    section.provenance = [(str(key), _text(value)) for key, value in result.attrs.items()]
    own = {
        str(key): value
        for variable in result.data_vars.values()
        for key, value in variable.attrs.items()
        if key not in result.attrs and key not in ("long_name", "units", "description")
    }
    section.provenance += [(key, _text(value)) for key, value in own.items()]
    counts = [
        f"{value:,} {what}"
        for key, what in COUNTS.items()
        if isinstance(value := result.attrs.get(key, own.get(key)), int | np.integer)
    ]
    if counts:
        section.subtitle += f" · {', '.join(counts)}"
    skipped = result.attrs.get("n_skipped_batches", own.get("n_skipped_batches", 0))
    if isinstance(skipped, int | np.integer) and skipped > 0:
        section.cautions.append(f"{skipped} batches of fewer than 4 samples were left out.")
    if "interrupted" in result.attrs:
        section.cautions.append(f"Interrupted {result.attrs['interrupted']}: the result so far.")
    return section


def _section(name: str, result: xr.Dataset) -> Section:
    for kind in KINDS:
        if kind.fits(result):
            return kind.section(name, result)
    for key in result.data_vars:
        array = result[key]
        if set(array.dims) == set(DIMS) and array.size and array.dtype.kind in "fiu":
            return map_section(name, result)
    return _unknown(name, result)


def _unknown(name: str, result: xr.Dataset) -> Section:
    """A table of the variables and their contents."""
    section = Section(name, "Result", "of no kind that the report has a picture for")
    rows = []
    for key, variable in result.variables.items():
        values = np.asarray(variable.values)
        shape = (
            " × ".join(f"{dim} {size}" for dim, size in variable.sizes.items()) or "single value"
        )
        rows.append([str(key), shape, str(variable.dtype), _summary(values)])
    if len(rows) > ROWS:
        rows = [*rows[:ROWS], [f"{len(rows) - ROWS} more variables", "", "", ""]]
    section.table = (["variable", "dimensions", "type", "values"], rows)
    return section


def _summary(values: np.ndarray) -> str:
    if values.size == 0:
        return "none"
    if values.dtype.kind in "fiub" and values.size > 6:
        numbers = values.astype(np.float64)
        known = numbers[np.isfinite(numbers)]
        if not known.size:
            return "all undefined"
        text = f"{_shortly(known.min())} to {_shortly(known.max())}, mean {_shortly(known.mean())}"
        undefined = numbers.size - known.size
        return text + (f", {undefined} undefined" if undefined else "")
    shown = [
        _shortly(float(value)) if values.dtype.kind in "fiub" else str(value)
        for value in values.ravel()[:6]
    ]
    return ", ".join(shown) + (", …" if values.size > 6 else "")


def _shortly(value: float) -> str:
    if not np.isfinite(value) or value == round(value):
        return number(value, 0)
    return f"{value:.4g}".replace("-", "−")


def _text(value: object) -> str:
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(_text(each) for each in np.asarray(value, dtype=object).ravel()) or "none"
    if isinstance(value, float | np.floating):
        return f"{float(value):.6g}"
    return str(value)
