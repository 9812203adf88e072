"""One model at several steps of training, layer by layer: with one model, or with each other."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.results._findings import Finding, Table
from repsim.results._kind import Kind, Variable
from repsim.results._maps import measure_label, scale_of
from repsim.results._reading import model_of, names_of, values_of
from repsim.results._registry import register
from repsim.results._text import number, plus_minus

if TYPE_CHECKING:
    import xarray

__all__ = [
    "BETWEEN_STEPS",
    "EACH_OTHER",
    "TRAJECTORY",
    "against",
    "is_between",
    "log_from",
    "step_label",
    "trajectory_label",
    "trajectory_scale",
    "trajectory_variable",
]

STEPS, PAIRS = ("step", "layer"), ("step_x", "step_y", "layer")
EACH_OTHER = "each other"

SAME = "of a layer with the same layer"

WIDE = 30.0
"""If the longest gap between steps is this many times the shortest, their axis is logarithmic."""


def _variables(dims: tuple[str, ...], with_what: str) -> dict[str, Variable]:
    steps = {dim: Variable((dim,), "training step") for dim in dims if dim != "layer"}
    return {
        "cka": Variable(dims, "CKA", f"{SAME} {with_what}"),
        "standard_error": Variable(
            dims, "standard error of CKA", "delete-one-batch jackknife", low=0.0
        ),
        **steps,
    }


def step_label(step: Any) -> str:
    """Return a step as text, with all digits, because different steps need different names."""
    return repr(float(step)) if float(step) != int(step) else f"{int(step)}"


def log_from(steps: Any) -> float | None:
    """Return the first step above 0 if the steps need a logarithmic axis; None if not.

    The axis is linear up to that step, so that step 0 is shown.
    """
    gaps = np.diff(np.unique(steps))
    uneven = gaps.size > 1 and gaps.max() >= WIDE * gaps.min() and steps.min() >= 0
    return float(steps[steps > 0].min()) if uneven else None


def trajectory_variable(result: xarray.Dataset) -> str:
    """Return the variable that is the similarity, or dissimilarity, itself."""
    dims = {frozenset(STEPS), frozenset(PAIRS)}
    names = [str(name) for name, each in result.data_vars.items() if frozenset(each.dims) in dims]
    names = [
        name for name in names if name != "standard_error" and result[name].dtype.kind in "fiu"
    ]
    return min(names, key=lambda name: name != "cka", default="")


class _Trajectory(Kind):
    """Recognised by its dimensions, because its variable has the name of its measure."""

    def fits(self, result: xarray.Dataset) -> bool:
        name = trajectory_variable(result)
        return bool(name) and result[name].size > 0


def is_between(result: xarray.Dataset) -> bool:
    """Whether every step was compared with every step."""
    return "step_x" in result.dims


def trajectory_label(result: xarray.Dataset) -> str:
    """Return which measure it is, with the kernel and estimator of the result."""
    return measure_label(_measured(result))


def trajectory_scale(result: xarray.Dataset) -> tuple[float, float, bool]:
    """Return the ends of the scale of all layers, and whether larger is more alike."""
    return scale_of(_measured(result))


def _measured(result: xarray.Dataset) -> xarray.DataArray:
    name = trajectory_variable(result)
    return result[name].assign_attrs({**result.attrs, **result[name].attrs})


def against(result: xarray.Dataset) -> str:
    """Return what each step is compared with, as a phrase."""
    return str(result.attrs.get("compared_with") or "the reference")


def findings(result: xarray.Dataset) -> list[Finding]:
    """Return the values of the first and of the last step, or the largest change."""
    return _findings_between(result) if is_between(result) else _findings(result)


def _findings(result: xarray.Dataset) -> list[Finding]:
    name = trajectory_variable(result)
    result = result.sortby("step")
    steps, values = result["step"].values, values_of(result, name, *STEPS)
    label = trajectory_label(result)
    found = []
    places = {"first": 0, "last": len(steps) - 1} if len(steps) > 1 else {"only": 0}
    for which, at in places.items():
        known = values[at][np.isfinite(values[at])]
        if known.size:
            found.append(
                Finding(
                    f"mean {label} of all layers, {which} step",
                    number(float(known.mean())),
                    step_label(steps[at]),
                )
            )
    slowest = _slowest(result, values)
    return [*found, *slowest]


def _slowest(result: xarray.Dataset, values: Any) -> list[Finding]:
    """Return the layer that is least like the reference halfway."""
    at = len(values) // 2
    known = np.isfinite(values[at])
    if len(values) < 3 or not known.any():
        return []
    name = trajectory_variable(result)
    similar = result[name].attrs.get("kind", "similarity") == "similarity"
    far = np.where(known, values[at] if similar else -values[at], np.inf)
    layer = int(far.argmin())
    error = None
    if "standard_error" in result:
        error = float(values_of(result, "standard_error", *STEPS)[at, layer])
    step = step_label(result["step"].values[at])
    return [
        Finding(
            f"farthest layer at step {step}",
            number(float(values[at, layer])) + plus_minus(error),
            names_of(result, "layer")[layer],
        )
    ]


def table(result: xarray.Dataset) -> Table:
    """Return the values of each layer: a column for each step, or for two steps in a row."""
    if is_between(result):
        return _table_between(result)
    name, ordered = trajectory_variable(result), result.sortby("step")
    values = values_of(ordered, name, *STEPS)
    rows: list[list[object]] = [
        [layer, *map(float, column)]
        for layer, column in zip(names_of(result, "layer"), values.T, strict=True)
    ]
    title = f"{trajectory_label(result)} with {against(result)}, {model_of(result)}"
    return Table(title, ["layer", *map(step_label, ordered["step"].values)], rows)


def _findings_between(result: xarray.Dataset) -> list[Finding]:
    """Return the two steps in a row that are least alike, averaged over layers."""
    name, result = trajectory_variable(result), _in_a_row(result)
    values, steps = values_of(result, name, *PAIRS), result["step_x"].values
    similar = result[name].attrs.get("kind", "similarity") == "similarity"
    if len(steps) < 2:
        return []
    after = np.stack([values[i, i + 1] for i in range(len(steps) - 1)])
    known = np.isfinite(after)
    means = np.where(known, after, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    means[~known.any(axis=1)] = np.nan
    if np.isnan(means).all():
        return []
    at = int(np.nanargmin(means) if similar else np.nanargmax(means))
    where = f"{step_label(steps[at])} → {step_label(steps[at + 1])}"
    label = trajectory_label(result)
    return [
        Finding(
            f"largest change from one step to the next, mean {label}",
            number(float(means[at])),
            where,
        )
    ]


def _in_a_row(result: xarray.Dataset) -> xarray.Dataset:
    """Return the steps that both dimensions have, in increasing order."""
    steps = np.intersect1d(result["step_x"].values, result["step_y"].values)
    return result.sel(step_x=steps, step_y=steps)


def _table_between(result: xarray.Dataset) -> Table:
    name, result = trajectory_variable(result), _in_a_row(result)
    steps = list(map(step_label, result["step_x"].values))
    values = values_of(result, name, *PAIRS)
    columns = [f"{a} → {b}" for a, b in pairwise(steps)]
    rows: list[list[object]] = [
        [layer, *(float(values[i, i + 1, at]) for i in range(len(columns)))]
        for at, layer in enumerate(names_of(result, "layer"))
    ]
    title = f"{trajectory_label(result)} from one step to the next, {model_of(result)}"
    return Table(title, ["layer", *columns], rows)


TRAJECTORY = register(
    _Trajectory(
        "trajectory",
        "Training time",
        _variables(STEPS, "of one model, the reference"),
        ("cka",),
        findings,
        table,
    )
)

BETWEEN_STEPS = _Trajectory(
    "trajectory",
    "Training time",
    _variables(PAIRS, "at another step"),
    ("cka",),
    findings,
    table,
)
"""The result of ``against="each other"``; `TRAJECTORY` recognises both."""
