"""Headline numbers of a result, and its table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from repsim.results._reading import model_of
from repsim.results._text import number

if TYPE_CHECKING:
    import xarray

__all__ = ["Finding", "Table", "ends", "extreme", "table_along"]


@dataclass(frozen=True)
class Finding:
    """A headline number: its meaning, its value as text, and its place in the result."""

    what: str
    value: str
    where: str = ""


class Table(NamedTuple):
    """The numbers of a result for a terminal: a title, names of columns, and rows."""

    title: str
    columns: list[str]
    rows: list[list[object]]


def ends(
    what: str,
    names: Sequence[str],
    values: Any,
    digits: int = 3,
    unit: str = "",
    *,
    of: str = "layer",
) -> list[Finding]:
    """Return the first and the last defined value by layer."""
    known = np.flatnonzero(np.isfinite(values))
    if not known.size:
        return []
    places = {"only": int(known[0])}
    if known.size > 1:
        places = {"first": int(known[0]), "last": int(known[-1])}
    at_end = {
        "only": len(values) == 1,
        "first": known[0] == 0,
        "last": known[-1] + 1 == len(values),
    }
    return [
        Finding(
            f"{what}, {which} {of}{'' if at_end[which] else ' with a value'}",
            number(float(values[i]), digits) + unit,
            names[i],
        )
        for which, i in places.items()
    ]


def extreme(
    what: str, names: Sequence[str], values: Any, digits: int = 3, unit: str = "", *, most: bool
) -> list[Finding]:
    """Return the largest or the smallest of the values, if any is defined."""
    if not np.isfinite(values).any():
        return []
    i = int(np.nanargmax(values) if most else np.nanargmin(values))
    return [Finding(what, number(float(values[i]), digits) + unit, names[i])]


def table_along(heading: str, result: xarray.Dataset, dim: str, columns: dict[str, Any]) -> Table:
    """Return a table with a row for each name along `dim`.

    Columns are arrays with one value a row; a column that is None is left out.
    """
    shown = {column: values for column, values in columns.items() if values is not None}
    samples = f", {result.attrs['n_samples']} samples" if "n_samples" in result.attrs else ""
    title = f"{heading}, {model_of(result)}{samples}"
    rows: list[list[object]] = [
        [str(name), *(float(values[at]) for values in shown.values())]
        for at, name in enumerate(result[dim].values)
    ]
    return Table(title, [dim, *shown], rows)
