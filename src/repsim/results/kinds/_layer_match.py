"""At which depth of one model each layer of the other finds its most similar layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from repsim.results._findings import Finding, Table
from repsim.results._kind import Kind, Variable
from repsim.results._reading import model_of, names_of
from repsim.results._registry import register

if TYPE_CHECKING:
    import xarray

__all__ = ["LAYER_MATCH", "similarity_of"]

VARIABLES = {
    "match": Variable(("layer_x",), "most similar layer of y", is_text=True),
    "depth_x": Variable(("layer_x",), "depth of the layer in x"),
    "depth_y": Variable(("layer_x",), "depth of its best match in y"),
}


def similarity_of(result: xarray.Dataset) -> str | None:
    """Return the name of the variable that holds the similarities of the matches."""
    return next((str(key) for key in result.data_vars if key not in VARIABLES), None)


def findings(result: xarray.Dataset) -> list[Finding]:
    """Return how deep in y the lower half of x finds its matches."""
    model_x, model_y = model_of(result, "x"), model_of(result, "y")
    what = {
        "lower_half_reach": f"depth of {model_y} that contains the best matches of 90% of the "
        f"lower half of {model_x}",
        "lower_half_median": f"median depth in {model_y} of the best matches of the lower half of "
        f"{model_x}",
    }
    depths = {key: float(result.attrs.get(key, np.nan)) for key in what}
    return [
        Finding(what[key], f"{depth:.0%}", "0% first layer, 100% last")
        for key, depth in depths.items()
        if np.isfinite(depth)
    ]


def table(result: xarray.Dataset) -> Table:
    """Return the match of each layer."""
    key = similarity_of(result)
    columns = ["match", "depth_x", "depth_y", *([] if key is None else [key])]
    rows: list[list[object]] = [
        [name, str(result["match"].values[i]), *(float(result[c].values[i]) for c in columns[1:])]
        for i, name in enumerate(names_of(result, "layer_x"))
    ]
    title = f"Layers of {model_of(result, 'y')} most similar to those of {model_of(result, 'x')}"
    return Table(title, ["layer_x", *columns], rows)


LAYER_MATCH = register(
    Kind("layer_match", "Layer match", VARIABLES, tuple(VARIABLES), findings, table)
)
