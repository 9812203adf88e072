"""A map of layers by layers as a section: the map, its largest values, the best matches."""

from __future__ import annotations

import numpy as np
import xarray as xr

from repsim.measures import layer_match
from repsim.report._blocks import Chart, LayerMap, Section, Series, Variable
from repsim.report.kinds._layer_match import match_cautions, match_chart
from repsim.report.kinds._order import axis_order, cluster_order
from repsim.results import (
    ALIGNMENT,
    DIMS,
    LAYER_MAP,
    LAYER_MATCH,
    MAX_T,
    chance_threshold,
    is_with_itself,
    layer_map,
    layer_names,
    main_variable,
    map_variables,
    measure_label,
    model_names,
    names_of,
    number,
    scale_of,
    side_titles,
)

__all__ = ["alignment_section", "map_section"]

MOST_P = 0.05
FEW_SAMPLES = 256
FEW_BATCHES = 8
"""Fewest batches without a caution about the standard error.

The relative error of a jackknife standard error over k batches is 1/√(2(k − 1)), 0.27 for 8.
"""


def map_section(name: str, result: xr.Dataset) -> Section:
    """Return the section of a result whose variables are layers by layers."""
    first = main_variable(result)
    array = layer_map(result, "write_report", first)
    label = measure_label(array, direction=True)
    similar = array.attrs.get("kind") != "dissimilarity"
    itself = is_with_itself(array)

    section = Section(name=name, kind=LAYER_MAP.title)
    of_x, of_y = (f" of {array.attrs[f'model_{s}']}" if _named(array, s) else "" for s in "xy")
    section.subtitle = f"{label}: every layer{of_x} with every " + (
        "other" if itself else f"layer{of_y}"
    )
    section.cautions = _cautions(result, array)
    section.pictures = [_picture(result, array, label)]
    if itself and len(array) > 2:
        section.pictures.append(_profiles(array, label))
    elif similar and not itself:
        match = layer_match(result.assign_attrs(array.attrs), first)
        section.findings = LAYER_MATCH.findings(match)
        section.cautions += match_cautions(match)
        section.pictures.append(match_chart(match))
    return section


def alignment_section(name: str, result: xr.Dataset) -> Section:
    """Return the section of models by models, the best layers of every two."""
    score = result["score"].assign_attrs({**result.attrs, **result["score"].attrs})
    label = measure_label(score, direction=True)
    rows, columns = (names_of(result, dim) for dim in ("model_x", "model_y"))
    of = f"{len(rows)} models with " + ("each other" if rows == columns else f"{len(columns)}")
    section = Section(name, ALIGNMENT.title, f"{label} of {of}")
    keys = [key for key in ("score", "calibrated", "p_value") if key in result]
    variables = []
    for key in keys:
        array = (
            result[key]
            .transpose("model_x", "model_y")
            .assign_attrs(score.attrs if key == "score" else {})
        )
        low, high, similar = scale_of(array)
        shown = label if key == "score" else ALIGNMENT.variables[key].long_name
        colours = "magma" if similar else "viridis_r"
        colours = "viridis" if key == "p_value" else colours
        variables.append(Variable(shown, array.values.astype(np.float64), low, high, colours))
    threshold = None
    if "p_value" in result:
        threshold = (keys.index("p_value"), "most", MOST_P, f"not above chance (p > {MOST_P})")
    section.pictures = [
        LayerMap(
            title=label,
            alt=f"Map of {label} of {of}, the best layers of every two.",
            rows=rows,
            columns=columns,
            row_title="model",
            column_title="model",
            variables=variables,
            orders=[
                ("as given", range(len(rows)), range(len(columns))),
                ("clusters of similar models", *cluster_order(variables[0].values)),
            ],
            threshold=threshold,
            note=_what_is_alike(score),
        )
    ]
    _, heads, lines = ALIGNMENT.table(result)
    cells = [[number(each) if isinstance(each, float) else str(each) for each in r] for r in lines]
    section.table = (heads, cells)
    return section


def _named(array: xr.DataArray, side: str) -> bool:
    return bool(array.attrs.get(f"model_{side}"))


def _picture(result: xr.Dataset, array: xr.DataArray, label: str) -> LayerMap:
    names = layer_names(array, "layer_x"), layer_names(array, "layer_y")
    keys = map_variables(result)
    test = chance_threshold(result)
    threshold = None
    if test is not None:
        place = keys.index(test.variable)
        threshold = (place, test.side, test.level, f"not above chance ({test.opposite})")
    m, n = array.shape
    finite = array.values[np.isfinite(array.values)]
    spread = (
        f"values from {number(float(finite.min()))} to {number(float(finite.max()))}"
        if finite.size
        else "all values undefined"
    )
    own_order = ("execution order", range(m), range(n))
    model_x, model_y = model_names(array)
    title_x, title_y = side_titles(array)
    return LayerMap(
        title=label,
        alt=f"Map of {label}. Upwards: {m} layers of {model_x}. To the right: {n} layers of "
        f"{model_y}. Here: {spread}.",
        rows=names[0],
        columns=names[1],
        row_title=title_x,
        column_title=title_y,
        variables=[_variable(result[key], key == array.name) for key in keys],
        orders=[
            own_order,
            ("clusters of similar layers", *cluster_order(array.values)),
            ("first principal axis", *axis_order(array.values)),
        ],
        threshold=threshold,
        note=_what_is_alike(array),
    )


def _what_is_alike(array: xr.DataArray) -> str:
    """Say which values mean alike, for a measure that says it."""
    attrs = array.attrs
    if "measure" not in attrs or array.name == "cka":
        return ""
    dissimilar = attrs.get("kind") == "dissimilarity"
    ends = [attrs.get(key) for key in ("least", "greatest")]
    said = [f"{'Smaller' if dissimilar else 'Larger'} is more alike"]
    if attrs.get("value_if_equal") is not None:
        said.append(f"{attrs['value_if_equal']:g} for equal representations")
    if None not in ends:
        said.append(f"range {ends[0]:.4g} to {ends[1]:.4g}".replace("-", "−"))
    return "; ".join(said) + "."


def _variable(array: xr.DataArray, is_main: bool) -> Variable:
    """Return a map with its name and the ends of its colour scale."""
    key = str(array.name)
    described = MAX_T.variables.get(key) or LAYER_MAP.variables.get(key)
    low, high = (None, None) if described is None else (described.low, described.high)
    colours = "viridis"
    if is_main or key in ("z", "chance"):
        low, high, similar = scale_of(array)
        colours = "magma" if similar else "viridis_r"
    own = str(array.attrs.get("long_name", "CKA" if key == "cka" else key))
    return Variable(
        own.replace("_", " "),
        array.transpose(*DIMS).values.astype(np.float64),
        low=low,
        high=high,
        colours=colours,
    )


def _profiles(array: xr.DataArray, label: str) -> Chart:
    """Three rows of a map of one model with itself, as curves by layer."""
    names, m = layer_names(array, "layer_x"), len(array)
    places = [("first", 0), ("middle", m // 2), ("last", m - 1)]
    return Chart(
        title="Similarity to three of the layers"
        if array.attrs.get("kind") != "dissimilarity"
        else "Dissimilarity to three of the layers",
        alt=f"{label} of each of {m} layers with the first layer ({names[0]}), the middle one "
        f"({names[m // 2]}) and the last ({names[-1]}).",
        x_label="layer",
        y_label=label,
        series=[
            Series(f"{which}: {names[i]}", np.arange(m), array.values[i]) for which, i in places
        ],
        categories=names,
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
            f"{int(undefined.sum()):,} of {undefined.size:,} values are undefined (NaN), for "
            "example because a layer is constant over the samples."
        )
    n = attrs.get("n_samples")
    if isinstance(n, int | np.integer) and n < FEW_SAMPLES:
        out.append(f"Only {n} samples: small differences between cells may be sampling errors.")
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
            "pass, which is an upper bound."
        )
    return out
