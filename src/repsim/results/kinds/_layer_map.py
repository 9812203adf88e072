"""Every layer of one model with every layer of another: CKA, or any measure of pairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from repsim.results._findings import Finding, Table
from repsim.results._kind import Kind, Variable
from repsim.results._maps import (
    DIMS,
    layer_map,
    layer_names,
    main_map,
    map_of_layers,
    measure_label,
    model_name,
)
from repsim.results._registry import register
from repsim.results._text import number, plus_minus

if TYPE_CHECKING:
    import xarray

__all__ = [
    "ADJUSTED",
    "LAYER_MAP",
    "MAX_T",
    "Threshold",
    "chance_table",
    "chance_threshold",
    "is_with_itself",
    "main_variable",
    "map_table",
    "map_variables",
    "measured_map",
    "model_names",
    "side_titles",
]

LEAST_Z = 3.0
MOST_P = 0.05
"""The threshold above chance."""

SELF = 1e-3
"""How far rounding takes a layer from itself, in float32 and as part of the largest value."""

OF_VALUES = ("measure", "kind", "least", "greatest", "value_if_equal")
"""Attributes of a measure that hold for each of its values, also for their mean by chance."""

WIDEST = 10
"""Columns up to which a table shows a map whole."""

BESIDE = ("standard_error", "z", "p_adjusted")
"""Maps whose values are shown beside the most similar layers."""

ADJUSTED = "p-values, adjusted for all pairs (max-T)"
"""The title of a table of p-values."""

CKA, STANDARD_ERROR, Z = "CKA", "standard error of CKA", "z-score of CKA under permutation"

VARIABLES = {
    "cka": Variable(DIMS, CKA, "centred kernel alignment: 1 = same, around 0 = independent"),
    "standard_error": Variable(
        DIMS, STANDARD_ERROR, "delete-one-batch jackknife, of a single pass", low=0.0
    ),
    "z": Variable(DIMS, Z, "standard deviations above chance, samples permuted in each batch"),
}

MAX_T_VARIABLES = {
    "cka": Variable(DIMS, CKA),
    "z": Variable(DIMS, Z),
    "p_value": Variable(DIMS, "p-value of the pair", low=0.0, high=1.0),
    "p_adjusted": Variable(DIMS, "p-value among all pairs, max-T", low=0.0, high=1.0),
    "max_z": Variable(("permutation",), "greatest z-score of a permuted map"),
}


def variables_of(name: str, units: str) -> dict[str, Variable]:
    """Return what the map of a measure may have beside its values, by variable."""
    return {
        "standard_error": Variable(
            DIMS, f"standard error of {name}", "random halves of the samples", units, low=0.0
        ),
        "chance": Variable(DIMS, f"mean {name} by chance", "samples of y permuted", units),
        "z": Variable(
            DIMS,
            f"z-score of {name} under permutation",
            "standard deviations by which a pair is more alike than by chance",
        ),
        "p_value": MAX_T_VARIABLES["p_value"],
        "p_adjusted": MAX_T_VARIABLES["p_adjusted"],
    }


def measured_map(
    values: Any,
    layers_x: Iterable[str],
    layers_y: Iterable[str],
    attrs: Mapping[str, Any],
    more: Mapping[str, Any],
) -> xarray.Dataset:
    """Return the map of a measure as a Dataset.

    Parameters
    ----------
    values : array, shape (layers of x, layers of y)
        The measure of each pair.
    layers_x, layers_y : iterable of str
        Names of the layers.
    attrs : mapping
        What the measure says about itself, with its name as "measure".
    more : mapping of str to array
        Further maps by variable: "standard_error", "chance", "z", "p_value", "p_adjusted".
    """
    name = str(attrs["measure"])
    result = map_of_layers(values, layers_x, layers_y, name, attrs).to_dataset()
    described = variables_of(str(attrs["long_name"]), str(attrs["units"]))
    for key, array in more.items():
        result[key] = (DIMS, array, described[key].attrs)
    if "chance" in result:  # a value of the measure, too
        result["chance"].attrs |= {key: attrs[key] for key in OF_VALUES if key in attrs}
    return result.assign_attrs(measure=name)


def map_variables(result: xarray.Dataset) -> list[str]:
    """Return the variables that are maps, that of the measure first."""
    maps = [
        str(key)
        for key, array in result.data_vars.items()
        if set(array.dims) == set(DIMS) and array.size and array.dtype.kind in "fiub"
    ]
    first = main_map(result)
    return sorted(maps, key=lambda key: key != first)  # stable


def main_variable(result: xarray.Dataset) -> str:
    """Return the variable that holds the measure itself."""
    return map_variables(result)[0]


def is_with_itself(array: xarray.DataArray) -> bool:
    """Whether a map compares one set of layers with itself, and not with those of another model.

    Two models of one class have one name, and the same layers. The values of a layer with itself
    tell them apart: they are those of equal representations. For a measure without such a value,
    the map of one model is symmetric.
    """
    if layer_names(array, "layer_x") != layer_names(array, "layer_y"):
        return False
    if array.attrs.get("model_x") != array.attrs.get("model_y"):
        return False
    values, own = array.values, np.diagonal(array.values)
    equal = array.attrs.get("value_if_equal", None if "measure" in array.attrs else 1.0)
    if equal is None or not np.isfinite(own).any():
        return bool(np.allclose(values, values.T, equal_nan=True))
    rounding = SELF * max(1.0, float(np.max(np.abs(values), where=np.isfinite(values), initial=0)))
    return bool(np.all(np.abs(own[np.isfinite(own)] - equal) <= rounding))


def model_names(array: xarray.DataArray) -> tuple[str, str]:
    """Return the names of both models; two models of one name are "(x)" and "(y)"."""
    names = model_name(array, "x"), model_name(array, "y")
    same_layers = layer_names(array, "layer_x") == layer_names(array, "layer_y")
    if names[0] != names[1] or not same_layers or is_with_itself(array):
        return names
    return f"{names[0]} (x)", f"{names[1]} (y)"


def side_titles(array: xarray.DataArray) -> tuple[str, str]:
    """Return what stands beside the names of layers; without models, x and y tell sides apart."""
    if is_with_itself(array) and not {"model_x", "model_y"} & set(array.attrs):
        return "layer", "layer"
    x, y = model_names(array)
    return f"{x} layer", f"{y} layer"


class Threshold(NamedTuple):
    """Which cells are above chance: those whose `variable` is at least, or at most, `level`."""

    variable: str
    side: str
    """"least" or "most"."""
    level: float
    sign: str
    """Its text for the cells above chance and for the others."""
    opposite: str
    scope: str
    """Whether it holds for all cells together or for each cell alone."""

    def above(self, result: xarray.Dataset) -> Any:
        """Return the mask of the cells above chance; NaN is not."""
        values = result[self.variable].transpose(*DIMS).values
        return values <= self.level if self.side == "most" else values >= self.level


def chance_threshold(result: xarray.Dataset) -> Threshold | None:
    """Return the test against chance that a result has, the stricter one if it has two."""
    maps = map_variables(result)
    if "p_adjusted" in maps:
        level, scope = MOST_P, "adjusted for all pairs"
        return Threshold("p_adjusted", "most", level, f"p ≤ {level}", f"p > {level}", scope)
    if "z" in maps:
        level, scope = LEAST_Z, "each tested alone"
        return Threshold("z", "least", level, f"z ≥ {level:g}", f"z < {level:g}", scope)
    return None


def findings(result: xarray.Dataset) -> list[Finding]:
    """Return mean and extremes of the map, the share above chance, the largest standard error."""
    array = layer_map(result, "findings", main_variable(result))
    values = array.values
    counted = np.isfinite(values)
    itself = is_with_itself(array)
    if itself:
        counted &= ~np.eye(len(values), dtype=bool)
    rows, columns = (layer_names(array, dim) for dim in DIMS)
    errors: Any = None
    if "standard_error" in map_variables(result):
        errors = result.standard_error.transpose(*DIMS).values

    def at(index: Any, what: str) -> Finding:
        i, j = np.unravel_index(int(index), values.shape)
        error = None if errors is None else float(errors[i, j])
        value = number(float(values[i, j])) + plus_minus(error)
        return Finding(what, value, f"{rows[i]} · {columns[j]}")

    found = []
    if counted.any():
        pairs = "pairs of different layers" if itself else "pairs of layers"
        mean = number(float(values[counted].mean()))
        found = [
            Finding(f"mean of all {pairs}", mean, f"{len(rows)} × {len(columns)}"),
            at(np.where(counted, values, -np.inf).argmax(), f"largest of all {pairs}"),
            at(np.where(counted, values, np.inf).argmin(), f"smallest of all {pairs}"),
            *_above_chance(result, counted),
        ]
    if errors is not None and np.isfinite(errors).any():
        found.append(Finding("largest standard error", number(float(np.nanmax(errors)))))
    return found


def _above_chance(result: xarray.Dataset, counted: Any) -> list[Finding]:
    test = chance_threshold(result)
    if test is None:
        return []
    among = int(counted.sum())
    share = int((test.above(result) & counted).sum())
    what = f"pairs above chance, {test.sign} {test.scope}"
    return [Finding(what, f"{share / among:.1%}", f"{share:,} of {among:,}")]


def table(result: xarray.Dataset) -> Table:
    """Return the map, the steps from layer to layer of one model, or the best matches."""
    attrs, key = result.attrs, main_variable(result)
    model_x, model_y = (attrs.get(f"model_{side}", side) for side in "xy")
    estimator = str(attrs.get("estimator", "")).removeprefix("minibatch ")
    array = layer_map(result, "table", key)
    name, how = "CKA", f", {estimator}" if estimator else ""
    if key != "cka":
        name, how = measure_label(array, direction=True), ""
    title = f"{name} of {model_x} with {model_y}{how}"
    if "n_samples" in attrs:
        title += f", {attrs['n_samples']} samples"
    if "n_batches" in attrs:
        title += f" in {attrs['n_batches']} batch{'' if attrs['n_batches'] == 1 else 'es'}"
    alone = is_with_itself(array)
    if len(array.layer_x) < 2 or (alone and len(array.layer_y) <= WIDEST):
        return map_table(title, array)
    beside = [name for name in BESIDE if name in map_variables(result)]
    if "p_adjusted" in beside and "z" in beside:
        beside.remove("z")  # the p-value says it
    more = {name.replace("_", " "): result[name] for name in beside}
    if not alone:
        return _matches(title, array, more)
    # In one model every layer is most similar to itself, so show the next layer.
    rows: list[list[object]] = [
        [a, b, *(float(each.sel(layer_x=a, layer_y=b)) for each in (array, *more.values()))]
        for a, b in pairwise(layer_names(array, "layer_x"))
        if b in array.layer_y.values
    ]
    columns = ["layer", "next layer", _short(array), *more]
    return Table(f"{title}: from layer to layer", columns, rows)


def chance_table(result: xarray.Dataset) -> Table | None:
    """Return the p-values or z-scores of a map that `table` shows whole; None if it shows them."""
    array = layer_map(result, "table", main_variable(result))
    if not (is_with_itself(array) and 1 < array.sizes["layer_y"] <= WIDEST):
        return None
    known = map_variables(result)
    if "p_adjusted" in known:
        return map_table(ADJUSTED, result["p_adjusted"].transpose(*DIMS))
    return map_table("z-scores", result["z"].transpose(*DIMS)) if "z" in known else None


def map_table(title: str, array: xarray.DataArray) -> Table:
    """Return a whole map if it is small, else the most similar layer of each layer of x."""
    if array.sizes["layer_y"] > WIDEST:
        return _matches(title, array, {})
    rows: list[list[object]] = [
        [name, *map(float, row)]
        for name, row in zip(layer_names(array, "layer_x"), array.values, strict=True)
    ]
    return Table(title, ["", *layer_names(array, "layer_y")], rows)


def _matches(title: str, array: xarray.DataArray, more: Mapping[str, Any]) -> Table:
    """Return the most similar layer of y for each layer of x, with further maps at that place."""
    rows: list[list[object]] = []
    similar = array.attrs.get("kind") != "dissimilarity"
    names_y = layer_names(array, "layer_y")
    others = [each.transpose(*DIMS).values for each in more.values()]
    for at, name in enumerate(layer_names(array, "layer_x")):
        row = np.asarray(array.values[at])
        if np.isnan(row).all():
            rows.append([name, "undefined", *[""] * (1 + len(others))])
            continue
        best = int(np.nanargmax(row) if similar else np.nanargmin(row))
        beside = [float(other[at, best]) for other in others]
        rows.append([name, names_y[best], float(row[best]), *beside])
    columns = ["layer of x", "layer of y", _short(array), *more]
    return Table(f"{title}: most similar layers", columns, rows)


def _short(array: xarray.DataArray) -> str:
    return "CKA" if array.name == "cka" else str(array.attrs.get("long_name", array.name))


class _LayerMap(Kind):
    """A map is recognised by its dimensions, because its variable has the name of its measure."""

    def fits(self, result: xarray.Dataset) -> bool:
        return any(result[key].dtype.kind != "b" for key in map_variables(result))


LAYER_MAP = register(_LayerMap("compare", "Layer map", VARIABLES, (), findings, table))
"""The result of `compare`; the map of another measure has the name of that measure."""

MAX_T = _LayerMap("max_t", "Layer map", MAX_T_VARIABLES, ("p_adjusted",), findings, table)
