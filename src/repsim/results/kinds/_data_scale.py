"""CKA of models trained on less data with the one trained on all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from repsim.results._findings import Finding, Table, ends, table_along
from repsim.results._kind import Kind, Variable
from repsim.results._reading import names_of, values_of
from repsim.results._registry import register

if TYPE_CHECKING:
    import xarray

__all__ = ["DATA_SCALE", "part_label"]

MODELS, CONTROLS = ("fraction", "layer"), ("control", "layer")

SAME = "of a layer with the same layer of the model trained on all data"
JACKKNIFE = "delete-one-batch jackknife"

VARIABLES = {
    "cka": Variable(MODELS, "CKA with the full-data model", SAME),
    "standard_error": Variable(MODELS, "standard error of CKA", JACKKNIFE),
    "control_cka": Variable(CONTROLS, "CKA with the full-data model, control", SAME),
    "control_standard_error": Variable(CONTROLS, "standard error of control CKA", JACKKNIFE),
    "fraction": Variable(("fraction",), "fraction of the training data"),
}


def part_label(fraction: Any) -> str:
    """Return the label of a part of the data, "10 % of the data", or a name itself."""
    try:
        return f"{100 * float(fraction):.4g} % of the data"
    except ValueError:
        return str(fraction)


def _rows(result: xarray.Dataset) -> dict[str, Any]:
    """Return CKA (layer) of each part of the data, smallest first, and of each control."""
    by_part = result.sortby("fraction")
    fractions = by_part["fraction"].values
    labels = list(map(part_label, fractions))
    if len(set(labels)) < len(labels):  # they differ in late digits
        labels = [f"{each!s} of the data" for each in fractions]
    rows = dict(zip(labels, values_of(by_part, "cka", *MODELS), strict=True))
    if "control_cka" in result:
        controls = values_of(result, "control_cka", *CONTROLS)
        names = (f"control: {name}" for name in names_of(result, "control"))
        rows |= dict(zip(names, controls, strict=True))
    return rows


def findings(result: xarray.Dataset) -> list[Finding]:
    """Return CKA of the first and last layer, for each part of the data and each control."""
    layers, found = names_of(result, "layer"), []
    for label, values in _rows(result).items():
        found += ends(f"CKA, {label}", layers, values)
    return found


def table(result: xarray.Dataset) -> Table:
    """Return CKA of each layer with that of the model trained on all data."""
    return table_along("CKA with the full-data model", result, "layer", _rows(result))


DATA_SCALE = register(Kind("data_scale", "Less data", VARIABLES, ("cka",), findings, table))
