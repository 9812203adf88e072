"""At which depth of one model each layer of the other finds its most similar layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.results._findings import Finding, Table
from repsim.results._kind import Kind, Variable
from repsim.results._reading import model_of, names_of
from repsim.results._registry import register

if TYPE_CHECKING:
    import xarray

__all__ = ["LAYER_MATCH", "LOWER_HALF", "above_chance", "similarity_of"]

LOWER_HALF = 0.5
"""The greatest depth, from 0 to 1, of the layers in the lower half of a network."""

VARIABLES = {
    "match": Variable(("layer_x",), "most similar layer of y", is_text=True),
    "depth_x": Variable(("layer_x",), "depth of the layer in x"),
    "depth_y": Variable(("layer_x",), "depth of its best match in y"),
    "above_chance": Variable(("layer_x",), "whether the match is above chance"),
}


REQUIRED = ("match", "depth_x", "depth_y")


def similarity_of(result: xarray.Dataset) -> str | None:
    """Return the name of the variable that holds the similarities of the matches."""
    return next((str(key) for key in result.data_vars if key not in VARIABLES), None)


def above_chance(result: xarray.Dataset) -> Any:
    """Return the mask of the matches above chance; all count as such if there was no test."""
    if "above_chance" in result:
        return result["above_chance"].values.astype(bool)
    return np.ones(result.sizes["layer_x"], dtype=np.bool_)


def findings(result: xarray.Dataset) -> list[Finding]:
    """Return how many matches are above chance, and how deep in y those of the lower half lie.

    The depths of the lower half are left out if none of its matches is above chance.
    """
    above, found = above_chance(result), []
    if "above_chance" in result:
        test = result["above_chance"].attrs.get("description", "")
        counted = "best matches above chance" + (f", {test}" if test else "")
        share = f"{above.mean():.1%}" if above.size else "none"
        found.append(Finding(counted, share, f"{above.sum():,} of {above.size:,}"))
    if not above[result["depth_x"].values <= LOWER_HALF].any():
        return found
    model_x, model_y = model_of(result, "x"), model_of(result, "y")
    what = {
        "lower_half_reach": f"depth of {model_y} that contains the best matches of 90% of the "
        f"lower half of {model_x}",
        "lower_half_median": f"median depth in {model_y} of the best matches of the lower half of "
        f"{model_x}",
    }
    depths = {key: float(result.attrs.get(key, np.nan)) for key in what}
    return found + [
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
    if "above_chance" in result:
        columns.append("above chance")
        for row, above in zip(rows, above_chance(result), strict=True):
            row.append("yes" if above else "no")
    title = f"Layers of {model_of(result, 'y')} most similar to those of {model_of(result, 'x')}"
    return Table(title, ["layer_x", *columns], rows)


LAYER_MATCH = register(Kind("layer_match", "Layer match", VARIABLES, REQUIRED, findings, table))
