"""Stitched models: a layer of one network in the place of a layer of another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from repsim.results._findings import Finding, Table
from repsim.results._kind import Kind, Variable
from repsim.results._reading import has, model_of, names_of, values_of
from repsim.results._registry import register
from repsim.results._text import number, plus_minus
from repsim.results.kinds._layer_map import map_table

if TYPE_CHECKING:
    import xarray

__all__ = ["STITCHING"]

STITCHES = ("stitch", "layer_x", "layer_y")

VARIABLES = {
    "kl": Variable(STITCHES, "KL divergence", "of model_y from the stitched model", "nats", low=0),
    "disagreement": Variable(
        STITCHES, "disagreement", "share of answers unlike those of model_y", low=0, high=1
    ),
    "loss": Variable(STITCHES, "cross entropy", "of the stitched model", "nats", low=0.0),
    "accuracy": Variable(STITCHES, "accuracy", "of the stitched model", low=0.0, high=1.0),
    **{
        f"{name}_standard_error": Variable(
            STITCHES, f"standard error of {name}", "by sample", unit, low=0.0
        )
        for name, unit in (
            ("kl", "nats"), ("disagreement", "1"), ("loss", "nats"), ("accuracy", "1"),
        )
    },
    "own_loss": Variable((), "cross entropy of model_y", units="nats"),
    "own_accuracy": Variable((), "accuracy of model_y"),
}  # fmt: skip


def findings(result: xarray.Dataset) -> list[Finding]:
    """Return, for each stitch, the pair of layers whose answers differ least from those of y."""
    values, errors = (
        values_of(result, name, *STITCHES)
        for name in ("disagreement", "disagreement_standard_error")
    )
    rows, columns = (names_of(result, dim) for dim in STITCHES[1:])
    found = []
    for at, stitch in enumerate(names_of(result, "stitch")):
        if not np.isfinite(values[at]).any():
            continue
        i, j = np.unravel_index(np.nanargmin(values[at]), values[at].shape)
        error = float(errors[at, i, j])
        # Where all answers agree the estimate of the error is zero, which bounds nothing.
        text = number(float(values[at, i, j])) + plus_minus(error if error > 0 else None)
        found.append(Finding(f"least disagreement, {stitch}", text, f"{rows[i]} · {columns[j]}"))
    if has(result, "own_accuracy"):
        what = f"accuracy of {model_of(result, 'y')} without a stitch"
        found.append(Finding(what, number(float(result.own_accuracy))))
    return found


def table(result: xarray.Dataset) -> Table:
    """Return the scores of each stitch of one pair, or the disagreement of all fitted pairs."""
    title = f"{model_of(result, 'x')} stitched into {model_of(result, 'y')}"
    stitches = names_of(result, "stitch")
    rows, columns = (names_of(result, dim) for dim in STITCHES[1:])
    if len(rows) * len(columns) > 1:
        array = result["disagreement"].transpose(*STITCHES)[0].assign_attrs(kind="dissimilarity")
        return map_table(f"{title}, {stitches[0]}: disagreement", array)
    names = [
        name for name in ("kl", "disagreement", "loss", "accuracy") if has(result, name, *STITCHES)
    ]
    cells: list[list[object]] = [
        [stitch, *(float(values_of(result, name, *STITCHES)[at, 0, 0]) for name in names)]
        for at, stitch in enumerate(stitches)
    ]
    return Table(f"{title}, {rows[0]} → {columns[0]}", ["stitch", *names], cells)


STITCHING = register(
    Kind("stitch", "Stitching", VARIABLES, ("kl", "disagreement"), findings, table)
)
