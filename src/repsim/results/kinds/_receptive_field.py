"""Effective receptive fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

from repsim.results._findings import Finding, Table, ends, extreme, table_along
from repsim.results._kind import Kind, Variable
from repsim.results._reading import names_of, optional_values
from repsim.results._registry import register

if TYPE_CHECKING:
    import xarray

__all__ = ["DECADES", "RECEPTIVE_FIELD"]

DECADES = 4
"""Powers of ten on the logarithmic scale of a field; below it, a field is noise."""

VARIABLES = {
    "field": Variable(("layer", "row", "column"), "effective receptive field"),
    "participation_area": Variable(("layer",), "participation area", units="pixels"),
    "sigma": Variable(("layer",), "root mean square radius", units="pixels"),
    "side": Variable(("layer",), "side of the receptive field", units="pixels"),
    "mass": Variable(("layer",), "sum of absolute gradients", units="output per input"),
    "centre_row": Variable(("layer",), "row of the centre of mass", units="pixels"),
    "centre_column": Variable(("layer",), "column of the centre of mass", units="pixels"),
    "time_field": Variable(("layer", "frame"), "effective receptive field in time"),
    "time_sigma": Variable(("layer",), "root mean square distance in time", units="frames"),
    "centre_frame": Variable(("layer",), "frame of the centre of mass", units="frames"),
    "frame": Variable(("frame",), "frame of the input", units="frames"),
    "row": Variable(("row",), "row of the input", units="pixels"),
    "column": Variable(("column",), "column of the input", units="pixels"),
    "grid_frames": Variable(("layer",)),
    "grid_height": Variable(("layer",)),
    "grid_width": Variable(("layer",)),
    "unit_frame": Variable(("layer",)),
    "unit_row": Variable(("layer",)),
    "unit_column": Variable(("layer",)),
}


def findings(result: xarray.Dataset) -> list[Finding]:
    """Return radius and area of the first and last field, and the largest radius."""
    layers, found = names_of(result, "layer"), []
    sigma = optional_values(result, "sigma", "layer")
    if sigma is not None:
        found += ends("σ, root mean square radius", layers, sigma, 1, " px")
        found += extreme("largest σ", layers, sigma, 1, " px", most=True)
    area = optional_values(result, "participation_area", "layer")
    if area is not None:
        found += ends("pixels that share the field", layers, area, 0, " px")
    return found


def table(result: xarray.Dataset) -> Table:
    """Return radius, area and side of each layer's field."""
    shown = {"sigma": "sigma", "area": "participation_area", "side": "side"}
    columns = {column: optional_values(result, key, "layer") for column, key in shown.items()}
    return table_along("Effective receptive field in pixels", result, "layer", columns)


RECEPTIVE_FIELD = register(
    Kind(
        "effective_receptive_field",
        "Effective receptive field",
        VARIABLES,
        ("field",),
        findings,
        table,
    )
)
