"""CKA of subsets of heads with another model's layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.results._findings import Finding, Table
from repsim.results._kind import Kind, Variable
from repsim.results._reading import model_of, names_of, values_of
from repsim.results._registry import register
from repsim.results._text import number

if TYPE_CHECKING:
    import xarray

__all__ = ["ALONG_DISTANCE", "HEAD_SUBSET_CKA", "subset_order"]

SUBSETS = ("subset", "layer_y")
CKA = "unbiased minibatch CKA of the output of a subset of heads"

ALONG_DISTANCE = "mean attention distance of the heads"
"""The axis along which subsets are drawn."""

VARIABLES = {
    "cka": Variable(SUBSETS, "CKA", CKA),
    "standard_error": Variable(SUBSETS, "standard error of CKA", "delete-one-batch jackknife"),
    "head_cka": Variable(("head", "layer_y"), "CKA of a head", CKA),
    "head_distance": Variable(("head",), "mean attention distance", units="pixels"),
    "mean_distance": Variable(("subset",), "mean attention distance", units="pixels"),
    "size": Variable(("subset",), "heads"),
    "kind": Variable(("subset",), is_text=True),
    "heads": Variable(("subset",), is_text=True),
}


def subset_order(result: xarray.Dataset) -> Any:
    """Return the subsets from the most local heads to the most global."""
    return np.argsort(values_of(result, "mean_distance", "subset"), kind="stable")


def findings(result: xarray.Dataset) -> list[Finding]:
    """Return, for each layer, the correlation of CKA with the distance of the heads."""
    cka = values_of(result, "cka", *SUBSETS)
    along = values_of(result, "mean_distance", "subset")
    found = []
    for j, layer in enumerate(names_of(result, "layer_y")):
        known = np.isfinite(cka[:, j]) & np.isfinite(along)
        spread = known.sum() > 2 and np.ptp(along[known]) > 0 and np.ptp(cka[known, j]) > 0
        if spread:
            r = float(np.corrcoef(along[known], cka[known, j])[0, 1])
            what = "correlation of CKA with mean attention distance"
            found.append(Finding(what, number(r, 2), layer))
    return found


def table(result: xarray.Dataset) -> Table:
    """Return CKA of each subset, from local to global."""
    cka, along = values_of(result, "cka", *SUBSETS), values_of(result, "mean_distance", "subset")
    rows = [[float(along[i]), *map(float, cka[i])] for i in subset_order(result)]
    title = f"CKA of heads of {model_of(result, 'x')} with layers of {model_of(result, 'y')}"
    return Table(title, ["distance", *names_of(result, "layer_y")], [list(row) for row in rows])


HEAD_SUBSET_CKA = register(
    Kind("head_subset_cka", "Head subsets", VARIABLES, ("cka", "mean_distance"), findings, table)
)
