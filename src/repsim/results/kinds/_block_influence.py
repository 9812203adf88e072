"""How far blocks turn the residual stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from repsim.results._findings import Finding, Table, extreme, table_along
from repsim.results._kind import Kind, Variable
from repsim.results._reading import names_of, optional_values, values_of
from repsim.results._registry import register
from repsim.results._text import number

if TYPE_CHECKING:
    import xarray

__all__ = ["BLOCK_INFLUENCE", "closest_spans"]

BLOCKS, SPANS = ("block",), ("start", "span")
BY_SEQUENCE = "by sequence"

VARIABLES = {
    "influence": Variable(BLOCKS, "block influence", "1 − cosine of input and output", low=0.0),
    "influence_standard_error": Variable(BLOCKS, "standard error of influence", BY_SEQUENCE),
    "norm_ratio": Variable(BLOCKS, "norm of the output over norm of the input"),
    "norm_ratio_standard_error": Variable(BLOCKS, "standard error of norm ratio", BY_SEQUENCE),
    "angular": Variable(
        SPANS,
        "angular distance",
        "arccos/π, of the input of a block and that of the block `span` later",
        low=0.0,
    ),
    "angular_standard_error": Variable(SPANS, "standard error of angular distance", BY_SEQUENCE),
    "span": Variable(("span",), "blocks from start to end"),
}


def closest_spans(result: xarray.Dataset) -> dict[int, tuple[str, float]]:
    """Return by span the block where the angular distance is smallest, and that distance."""
    starts, values = names_of(result, "start"), values_of(result, "angular", *SPANS)
    found = {}
    for j, span in enumerate(result["span"].values.tolist()):
        if np.isfinite(values[:, j]).any():
            i = int(np.nanargmin(values[:, j]))
            found[int(span)] = (starts[i], float(values[i, j]))
    return found


def findings(result: xarray.Dataset) -> list[Finding]:
    """Return the least and most influential blocks, and the closest ends of short spans."""
    names, values = names_of(result, "block"), values_of(result, "influence", *BLOCKS)
    found = extreme("least influence", names, values, most=False)
    found += extreme("largest influence", names, values, most=True)
    for span, (start, distance) in sorted(closest_spans(result).items())[:4]:
        what = f"least angular distance over {span} block{('s' if span > 1 else '')}"
        found.append(Finding(what, number(distance, 3), f"from {start}"))
    return found


def table(result: xarray.Dataset) -> Table:
    """Return the influence of each block, and the angular distance of the shortest span."""
    columns = {
        "influence": values_of(result, "influence", *BLOCKS),
        "standard error": optional_values(result, "influence_standard_error", *BLOCKS),
        "norm ratio": optional_values(result, "norm_ratio", *BLOCKS),
    }
    if result.sizes["span"]:
        # By name, because the starts may have been selected apart from the blocks.
        angular = result.reindex(start=result["block"].values)
        shortest = angular.isel(span=int(result["span"].values.argmin()))
        name = f"angular, span {int(shortest['span'])}"
        columns[name] = values_of(shortest, "angular", "start")
    return table_along("Influence of blocks", result, "block", columns)


BLOCK_INFLUENCE = register(
    Kind("block_influence", "Block influence", VARIABLES, ("influence", "angular"), findings, table)
)
