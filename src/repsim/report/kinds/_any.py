"""A result without pictures as a section: the table of its kind, or its variables."""

from __future__ import annotations

import numpy as np
import xarray as xr

from repsim.report._blocks import Section
from repsim.results import Kind, number

__all__ = ["kind_section", "unknown_section"]

ROWS = 40
"""Rows in the table of an unknown kind; the other rows are counted."""


def kind_section(kind: Kind, name: str, result: xr.Dataset) -> Section:
    """Return the table of a result of a known kind."""
    title, columns, rows = kind.table(result)
    section = Section(name, kind.title, title)
    cells = [[_cell(value) for value in row] for row in rows]
    section.table = (columns, _at_most(cells, "rows"))
    return section


def unknown_section(name: str, result: xr.Dataset) -> Section:
    """A table of the variables and their contents."""
    section = Section(name, "Result", "of no kind that the report has a picture for")
    rows = []
    for key, variable in result.variables.items():
        values = np.asarray(variable.values)
        shape = (
            " × ".join(f"{dim} {size}" for dim, size in variable.sizes.items()) or "single value"
        )
        rows.append([str(key), shape, str(variable.dtype), _summary(values)])
    section.table = (["variable", "dimensions", "type", "values"], _at_most(rows, "variables"))
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


def _at_most(rows: list[list[str]], what: str) -> list[list[str]]:
    if len(rows) <= ROWS:
        return rows
    return [*rows[:ROWS], [f"{len(rows) - ROWS} more {what}", *[""] * (len(rows[0]) - 1)]]


def _cell(value: object) -> str:
    return number(value) if isinstance(value, float) else str(value)
