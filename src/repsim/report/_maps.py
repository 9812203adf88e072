"""A map of layers by layers as a section: the map, its largest values, the best matches."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from repsim.measures import layer_map, layer_match, layer_names, measure_label, model_name
from repsim.report._blocks import (
    Chart,
    Finding,
    LayerMap,
    Section,
    Series,
    Variable,
    number,
    plus_minus,
)
from repsim.report._order import axis_order, cluster_order

__all__ = ["DIMS", "map_section", "match_section"]

DIMS = ("layer_x", "layer_y")

LEAST_Z = 3.0
MOST_P = 0.05
MANY = 60
"""Curves of more layers are drawn without points."""

FEW_SAMPLES = 256
FEW_BATCHES = 8
"""Fewest batches without a caution about the standard error.

The relative error of a jackknife standard error over k batches is 1/√(2(k − 1)), 0.27 for 8.
"""


def map_section(name: str, result: xr.Dataset) -> Section:
    """Return the section of a result whose variables are layers by layers."""
    shown = [str(key) for key in result.data_vars if set(result[key].dims) == set(DIMS)]
    first = "cka" if "cka" in shown else shown[0]
    array = layer_map(result, "write_report", first)
    model_x, model_y = model_name(array, "x"), model_name(array, "y")
    label = measure_label(array)
    similar = array.attrs.get("kind") != "dissimilarity"
    itself = _with_itself(array)

    section = Section(name=name, kind="Layer map")
    of_x, of_y = (f" of {array.attrs[f'model_{s}']}" if _named(array, s) else "" for s in "xy")
    section.subtitle = f"{label}: every layer{of_x} with every " + (
        "other" if itself else f"layer{of_y}"
    )
    section.findings = _findings(result, array, similar=similar, itself=itself)
    section.cautions = _cautions(result, array)
    section.pictures = [_picture(result, array, shown, label)]
    if itself and len(array) > 2:
        section.pictures.append(_profiles(array, label))
    elif similar and not itself:
        section.pictures.append(_match_chart(layer_match(result, first), model_x, model_y))
    return section


def match_section(name: str, result: xr.Dataset) -> Section:
    """Return the section of a layer match."""
    model_x, model_y = str(result.attrs.get("model_x", "x")), str(result.attrs.get("model_y", "y"))
    section = Section(name=name, kind="Layer match")
    section.subtitle = f"for each layer of {model_x}, the most similar layer of {model_y}"
    section.findings = _reach(result, model_x, model_y)
    section.pictures = [_match_chart(result, model_x, model_y)]
    return section


def _with_itself(array: xr.DataArray) -> bool:
    """Whether a map compares one set of layers with itself, so it is symmetric."""
    if layer_names(array, "layer_x") != layer_names(array, "layer_y"):
        return False
    return array.attrs.get("model_x") == array.attrs.get("model_y") and bool(
        np.allclose(array.values, array.values.T, equal_nan=True)
    )


def _named(array: xr.DataArray, side: str) -> bool:
    return bool(array.attrs.get(f"model_{side}"))


def _picture(result: xr.Dataset, array: xr.DataArray, shown: list[str], label: str) -> LayerMap:
    names = layer_names(array, "layer_x"), layer_names(array, "layer_y")
    variables = []
    for key in [str(array.name), *(key for key in shown if key != array.name)]:
        values = result[key].transpose(*DIMS)
        if values.dtype.kind not in "fiub":
            continue
        own = str(values.attrs.get("long_name", "CKA" if key == "cka" else key))
        unit = array.name == key and array.attrs.get("kind") != "dissimilarity"
        variables.append(
            Variable(
                own.replace("_", " "),
                values.values.astype(np.float64),
                low=0.0 if unit or key.startswith("p_") or key == "standard_error" else None,
                high=1.0 if unit or key.startswith("p_") else None,
                colours="magma" if unit else "viridis",
            )
        )
    keys = [str(array.name), *(key for key in shown if key != array.name)]
    threshold = None
    if "p_adjusted" in keys:
        threshold = (keys.index("p_adjusted"), "most", MOST_P, f"not above chance (p > {MOST_P})")
    elif "z" in keys:
        threshold = (keys.index("z"), "least", LEAST_Z, f"not above chance (z < {LEAST_Z:g})")
    m, n = array.shape
    finite = array.values[np.isfinite(array.values)]
    spread = (
        f"values from {number(float(finite.min()))} to {number(float(finite.max()))}"
        if finite.size
        else "all values undefined"
    )
    own_order = ("execution order", range(m), range(n))
    model_x, model_y = model_name(array, "x"), model_name(array, "y")
    return LayerMap(
        title=label,
        alt=f"Map of {label}, {m} layers of {model_x} upwards by {n} layers of {model_y} to the "
        f"right: {spread}.",
        rows=names[0],
        columns=names[1],
        row_title=f"{model_x} layer",
        column_title=f"{model_y} layer",
        variables=variables,
        orders=[
            own_order,
            ("clusters of similar layers", *cluster_order(array.values)),
            ("first principal axis", *axis_order(array.values)),
        ],
        threshold=threshold,
    )


def _profiles(array: xr.DataArray, label: str) -> Chart:
    """Three rows of a map of one model with itself, as curves by layer."""
    names, m = layer_names(array, "layer_x"), len(array)
    places = [("first", 0), ("middle", m // 2), ("last", m - 1)]
    return Chart(
        title="Similarity to three of the layers",
        alt=f"{label} of each of {m} layers with the first, {names[0]}, the middle, "
        f"{names[m // 2]}, and the last, {names[-1]}.",
        x_label="layer",
        y_label=label,
        series=[
            Series(f"{which}: {names[i]}", np.arange(m), array.values[i], points=m <= MANY)
            for which, i in places
        ],
        categories=names,
    )


def _findings(
    result: xr.Dataset, array: xr.DataArray, *, similar: bool, itself: bool
) -> list[Finding]:
    values = array.values
    counted = np.isfinite(values)
    if itself:
        counted &= ~np.eye(len(values), dtype=bool)
    m, n = values.shape
    rows, columns = layer_names(array, "layer_x"), layer_names(array, "layer_y")
    pairs = "pairs of different layers" if itself else "pairs of layers"
    errors: Any = None
    if "standard_error" in result and set(result.standard_error.dims) == set(DIMS):
        errors = result.standard_error.transpose(*DIMS).values

    def at(index: Any, what: str) -> Finding:
        i, j = np.unravel_index(int(index), values.shape)
        error = None if errors is None else float(errors[i, j])
        value = number(float(values[i, j])) + plus_minus(error)
        return Finding(what, value, f"{rows[i]} · {columns[j]}")

    found = []
    if counted.any():
        found = [
            Finding(f"mean of all {pairs}", number(float(values[counted].mean())), f"{m} × {n}"),
            at(np.where(counted, values, -np.inf).argmax(), f"largest of all {pairs}"),
            at(np.where(counted, values, np.inf).argmin(), f"smallest of all {pairs}"),
        ]
    if similar and not itself:
        match = layer_match(result, str(array.name))
        found += _reach(match, model_name(array, "x"), model_name(array, "y"))
    found += _above_chance(result, counted)
    if errors is not None and np.isfinite(errors).any():
        found.append(Finding("largest standard error", number(float(np.nanmax(errors)))))
    return found


def _above_chance(result: xr.Dataset, counted: Any) -> list[Finding]:
    """The share of the map above chance, by the test that the result has."""
    if not counted.any():
        return []
    if "p_adjusted" in result and set(result.p_adjusted.dims) == set(DIMS):
        above = result.p_adjusted.transpose(*DIMS).values <= MOST_P
        what = f"pairs above chance, p ≤ {MOST_P} adjusted for all of them"
    elif "z" in result and set(result.z.dims) == set(DIMS):
        above = result.z.transpose(*DIMS).values >= LEAST_Z
        what = f"pairs above chance, z ≥ {LEAST_Z:g} each on its own"
    else:
        return []
    among = int(counted.sum())
    share = int((above & counted).sum())
    return [Finding(what, f"{share / among:.1%}", f"{share:,} of {among:,}")]


def _reach(match: xr.Dataset, model_x: str, model_y: str) -> list[Finding]:
    """How deep in y the lower half of x finds its matches."""
    found = []
    for key, what in (
        ("lower_half_reach", f"depth of {model_y} below which 90% of the lower half of {model_x} "
         "have their best match"),
        ("lower_half_median", f"median depth in {model_y} of the best matches of the lower half "
         f"of {model_x}"),
    ):  # fmt: skip
        depth = float(match.attrs.get(key, np.nan))
        if np.isfinite(depth):
            found.append(Finding(what, f"{depth:.0%}", "0% first layer, 100% last"))
    return found


def _match_chart(match: xr.Dataset, model_x: str, model_y: str) -> Chart:
    names = [str(name) for name in match["layer_x"].values]
    others = [str(name) for name in match["match"].values]
    key = next(
        (str(k) for k in match.data_vars if k not in ("match", "depth_x", "depth_y")),
        None,
    )
    values = None if key is None else [number(float(v)) for v in match[key].values]
    return Chart(
        title="Best match in depth",
        alt=f"For each of {len(names)} layers of {model_x}, by its depth, the depth of the most "
        f"similar layer of {model_y}. On the diagonal both are equally deep.",
        x_label=f"depth in {model_x}",
        y_label=f"depth of the most similar layer of {model_y}",
        series=[
            Series(
                "best match",
                match["depth_x"].values,
                match["depth_y"].values,
                line=False,
                names=[f"{a} → {b}" for a, b in zip(names, others, strict=True)],
                values=None if values is None else [f"{key}: {value}" for value in values],
            )
        ],
        percent=True,
        diagonal=True,
        note="0% is the first layer, 100% the last; dashed: equally deep. The best "
        "match may be poor; among layers of one residual stream small differences decide.",
    )


def _cautions(result: xr.Dataset, array: xr.DataArray) -> list[str]:
    """Cautions for reading the map."""
    attrs, out = array.attrs, []
    estimator = str(attrs.get("estimator", ""))
    if estimator == "biased":
        out.append(
            "The biased estimator has a floor: independent data score above 0, about p/(n + p) for "
            "white noise with p features and n samples. The unbiased estimator averages to 0."
        )
    undefined = np.isnan(array.values)
    if undefined.any():
        out.append(
            f"{int(undefined.sum()):,} of {undefined.size:,} values are undefined (NaN): a layer "
            "that is constant over the samples has no similarity."
        )
    n = attrs.get("n_samples")
    if isinstance(n, int | np.integer) and n < FEW_SAMPLES:
        out.append(f"Only {n} samples: small differences between cells may be due to them.")
    batches = attrs.get("n_batches")
    if "standard_error" in result and isinstance(batches, int | np.integer):
        if batches < 2:
            out.append("A single batch: there is no standard error.")
        elif batches < FEW_BATCHES:
            out.append(
                f"The standard error is a jackknife over {batches} batches only; its own error is "
                f"about ±{1 / np.sqrt(2 * (int(batches) - 1)):.0%}."
            )
    elif "standard_error" not in result:
        out.append("No standard error: the precision of the values is unknown.")
    if int(attrs.get("passes", 1) or 1) > 1 and "standard_error" in result:
        out.append(
            f"{attrs['passes']} passes over the same samples: the standard error is that of one "
            "pass, an upper bound."
        )
    return out
