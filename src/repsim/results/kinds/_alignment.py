"""Models by models: the most similar layers of every two, beside chance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.results._findings import Finding, Table
from repsim.results._kind import Kind, Variable
from repsim.results._maps import measure_label
from repsim.results._reading import names_of
from repsim.results._registry import register
from repsim.results._text import number

if TYPE_CHECKING:
    import xarray

__all__ = ["ALIGNMENT", "MODELS"]

MODELS = ("model_x", "model_y")
MAPS = (*MODELS, "place_x", "place_y")

VARIABLES = {
    "score": Variable(MODELS, "similarity of the most similar layers"),
    "layer_x": Variable(MODELS, "layer of x that is most similar", is_text=True),
    "layer_y": Variable(MODELS, "layer of y that is most similar", is_text=True),
    "chance": Variable(
        MODELS, "mean by chance of the most similar layers", "samples of y permuted"
    ),
    "p_value": Variable(MODELS, "p-value of the most similar layers", low=0.0, high=1.0),
    "threshold": Variable(MODELS, "what chance exceeds with probability at most alpha"),
    "calibrated": Variable(
        MODELS, "similarity above chance: 0 at the threshold, 1 for equal", low=0.0, high=1.0
    ),
    "layer_map": Variable(MAPS, "similarity of every two layers", "NaN beyond the last layer"),
    "layers_x": Variable(("model_x", "place_x"), "layers of x", is_text=True),
    "layers_y": Variable(("model_y", "place_y"), "layers of y", is_text=True),
}


def findings(result: xarray.Dataset) -> list[Finding]:
    """Return the two models that are most and least alike, and how many pairs are above chance."""
    rows, columns = (names_of(result, dim) for dim in MODELS)
    score = result["score"].transpose(*MODELS).values
    shown = _shown(rows, columns, score)
    others = _different(rows, columns) & np.isfinite(score)
    if not others.any():
        return []
    similar = result["score"].attrs.get("kind") != "dissimilarity"
    found = []
    for what, most in (("most", similar), ("least", not similar)):
        if what == "least" and shown.sum() < 2:
            continue  # one pair is both
        filled = np.where(others, score, -np.inf if most else np.inf)
        at = int(filled.argmax() if most else filled.argmin())
        i, j = (int(k) for k in np.unravel_index(at, score.shape))
        layers = (str(result[f"layer_{side}"].values[i, j]) for side in "xy")
        where = f"{rows[i]} · {columns[j]}: {' · '.join(layers)}"
        found.append(Finding(f"two models that are {what} alike", number(score[i, j]), where))
    if "p_value" in result:
        p = result["p_value"].transpose(*MODELS).values
        among = shown & others & np.isfinite(p)
        share, of = int((p[among] <= 0.05).sum()), int(among.sum())
        if of:
            what = "pairs of models above chance, p ≤ 0.05 over all layers"
            found.append(Finding(what, f"{share / of:.1%}", f"{share:,} of {of:,}"))
    return found


def _different(rows: list[str], columns: list[str]) -> Any:
    """Return the mask of pairs of different models."""
    return np.array(rows, dtype=object)[:, None] != np.array(columns, dtype=object)


def _shown(rows: list[str], columns: list[str], score: Any) -> Any:
    """Return the mask of pairs to count: different models, once if their order does not matter."""
    different = _different(rows, columns)
    symmetric = rows == columns and np.allclose(score, score.T, equal_nan=True)
    return np.triu(different) if symmetric else different


def table(result: xarray.Dataset) -> Table:
    """Return a row for every two models: score, layers, chance."""
    names_x, names_y = (names_of(result, dim) for dim in MODELS)
    shown = _shown(names_x, names_y, result["score"].transpose(*MODELS).values)
    numbers = [key for key in ("score", "chance", "p_value", "calibrated") if key in result]
    rows: list[list[object]] = []
    for i, a in enumerate(names_x):
        for j, b in enumerate(names_y):
            if not shown[i, j]:
                continue
            here = result.isel(model_x=i, model_y=j)
            texts = [str(here[key].item()) for key in ("layer_x", "layer_y")]
            rows.append([a, b, *texts, *(float(here[key]) for key in numbers)])
    label = measure_label(result["score"], direction=True)
    title = f"Most similar layers by {label}"
    if "n_samples" in result.attrs:
        title += f", {result.attrs['n_samples']} samples"
    return Table(title, ["model x", "model y", "layer x", "layer y", *numbers], rows)


ALIGNMENT = register(
    Kind("alignment", "Alignment of models", VARIABLES, ("score", "layer_x"), findings, table)
)
