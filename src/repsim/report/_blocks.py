"""The data of a page: sections of findings, cautions and pictures, without markup.

Pictures are data. The script of the page draws them and makes a table of each.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from repsim.results import Finding

__all__ = [
    "Chart",
    "LayerMap",
    "Section",
    "Series",
    "Tile",
    "Tiles",
    "Variable",
    "note_of_bands",
    "with_band",
]

Floats = np.ndarray[Any, np.dtype[Any]]

DIGITS = 6
"""Significant digits of the numbers of a chart; maps keep float32."""


@dataclass(frozen=True)
class Variable:
    """One matrix of a map."""

    label: str
    values: Floats
    low: float | None = None
    """The ends of its colour scale; None: those of the data."""
    high: float | None = None
    colours: str = "magma"


@dataclass(frozen=True)
class LayerMap:
    """Layers by layers; rows run upwards, columns to the right."""

    title: str
    alt: str
    rows: list[str]
    columns: list[str]
    row_title: str
    column_title: str
    variables: list[Variable]
    orders: list[tuple[str, Any, Any]]
    """The name of an order, and its rows and columns; the first order is that of the map."""
    threshold: tuple[int, str, float, str] | None = None
    """A variable, "least" or "most", a threshold, and the name of the cells beyond it."""
    note: str = ""

    def data(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "type": "map",
            "rows": self.rows,
            "columns": self.columns,
            "rowTitle": self.row_title,
            "columnTitle": self.column_title,
            "variables": [
                {
                    "label": each.label,
                    "values": _packed(each.values),
                    "low": each.low,
                    "high": each.high,
                    "colours": each.colours,
                }
                for each in self.variables
            ],
            "orders": [
                {"label": label, "rows": _integers(rows), "columns": _integers(columns)}
                for label, rows, columns in self.orders
            ],
            "threshold": self.threshold,
        }


@dataclass(frozen=True)
class Series:
    """Points of a chart, in order; `low` and `high` are a band around them."""

    name: str
    x: Any
    y: Any
    low: Any = None
    high: Any = None
    line: bool = True
    points: bool = True
    dashed: bool = False
    reference: bool = False
    """Whether it is a reference for the others; it is then grey."""
    at: float | None = None
    """Its place from 0 to 1 among ordered series, for its colour; None: a separate colour."""
    names: list[str] | None = None
    """The name of each point, if x does not give it."""
    values: list[str] | None = None
    """Additional text for each point."""


@dataclass(frozen=True)
class Chart:
    """Curves or points."""

    title: str
    alt: str
    x_label: str
    y_label: str
    series: list[Series]
    categories: list[str] | None = None
    """Names along x, whose positions are then 0, 1, …."""
    references: list[tuple[float, str]] = field(default_factory=list)
    """Reference levels of the curves."""
    zero: bool = True
    """Whether the axis of y begins at zero, unless there are negative values."""
    reach: float | None = None
    """A value that the axis of y reaches at least, so that noise does not fill it."""
    percent: bool = False
    diagonal: bool = False
    log: bool = False
    log_from: float | None = None
    """Where the axis of x begins to be logarithmic; it is linear below. None: nowhere."""
    ordered: str = ""
    """The quantity that orders the series, if their colours are a scale."""
    note: str = ""

    def data(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "type": "chart",
            "xLabel": self.x_label,
            "yLabel": self.y_label,
            "categories": self.categories,
            "references": [[_short(y), label] for y, label in self.references],
            "zero": self.zero,
            "reach": self.reach,
            "percent": self.percent,
            "diagonal": self.diagonal,
            "log": self.log,
            "logFrom": self.log_from,
            "ordered": self.ordered,
            "series": [
                {
                    "name": each.name,
                    "x": _numbers(each.x),
                    "y": _numbers(each.y),
                    "low": None if each.low is None else _numbers(each.low),
                    "high": None if each.high is None else _numbers(each.high),
                    "line": each.line,
                    "points": each.points,
                    "dashed": each.dashed,
                    "reference": each.reference,
                    "at": each.at,
                    "names": each.names,
                    "values": each.values,
                }
                for each in self.series
            ],
        }


@dataclass(frozen=True)
class Tile:
    """One small map, and the text above it."""

    name: str
    values: Floats
    text: str = ""


@dataclass(frozen=True)
class Tiles:
    """Small maps on one colour scale, at 8 bits per cell because they show no exact values."""

    title: str
    alt: str
    tiles: list[Tile]
    label: str
    low: float
    high: float
    log: bool = False
    cell: tuple[int, int] | None = None
    """For a tile that is a grid of maps: rows and columns of each map, and the names of both."""
    words: tuple[str, str] = ("row", "column")
    note: str = ""

    def data(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "type": "tiles",
            "label": self.label,
            "low": self.low,
            "high": self.high,
            "least": self._least,
            "log": self.log,
            "cell": self.cell,
            "words": self.words,
            "tiles": [
                {
                    "name": each.name,
                    "text": each.text,
                    "rows": each.values.shape[0],
                    "columns": each.values.shape[1],
                    "values": self._bytes(each.values),
                }
                for each in self.tiles
            ],
        }

    @property
    def _least(self) -> float:
        """The least value that the bytes can hold."""
        if self.log:
            return self.low
        return float(min(np.nanmin(tile.values, initial=self.low) for tile in self.tiles))

    def _bytes(self, values: Floats) -> str:
        """From 1 for `_least` (and below) to 255 for `high`, linear or logarithmic; 0 is NaN."""
        low, high, shown = self._least, self.high, np.asarray(values, dtype=np.float64)
        if self.log:
            with np.errstate(divide="ignore"):
                low, high, shown = np.log(low), np.log(high), np.log(shown)
        level = 1 + np.rint(254 * (np.clip(shown, low, high) - low) / (high - low))
        packed = np.where(np.isnan(shown), 0, level).astype(np.uint8)
        return base64.b64encode(packed.tobytes()).decode()


@dataclass
class Section:
    """One result on the page."""

    name: str
    kind: str
    subtitle: str = ""
    findings: list[Finding] = field(default_factory=list)
    cautions: list[str] = field(default_factory=list)
    pictures: list[LayerMap | Chart | Tiles] = field(default_factory=list)
    table: tuple[list[str], list[list[str]]] | None = None
    provenance: list[tuple[str, str]] = field(default_factory=list)
    untrained: list[str] = field(default_factory=list)
    """Its models that were not trained; each picture says so."""


def with_band(series: Series, errors: Any) -> Series:
    """Return a series with a band of one standard error where the errors are known."""
    if errors is None or not np.isfinite(errors).any():
        return series
    return replace(series, low=series.y - errors, high=series.y + errors)


def note_of_bands(series: Sequence[Series]) -> str:
    """Say what the bands of series are, if any has one."""
    shown = any(each.low is not None for each in series)
    return "Bands are one standard error." if shown else ""


def _packed(values: Floats) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode()


def _integers(values: Any) -> list[int]:
    return [int(value) for value in values]


def _short(value: float) -> float | None:
    """The number to `DIGITS` digits, or all of an integer; None for NaN and infinities."""
    if not np.isfinite(value):  # JSON lacks it
        return None
    return float(value) if float(value).is_integer() else float(f"{value:.{DIGITS}g}")


def _numbers(values: Any) -> list[float | None]:
    return [_short(float(value)) for value in np.asarray(values, dtype=np.float64)]
