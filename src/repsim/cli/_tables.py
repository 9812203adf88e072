"""Results as tables of text, and as JSON."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from repsim.cli._session import Session

__all__ = ["dataset_json", "show_matrix", "show_result"]

WIDEST = 10
"""The most columns of a matrix that is shown whole."""


def dataset_json(dataset: Any) -> dict[str, Any]:
    """Return a result with its labels in JSON types: dims, coords, variables, attributes."""
    return {
        "attrs": dict(dataset.attrs),
        "coords": {
            str(name): {"dims": list(each.dims), "data": each.values}
            for name, each in dataset.coords.items()
        },
        "variables": {
            str(name): {"dims": list(each.dims), "attrs": dict(each.attrs), "data": each.values}
            for name, each in dataset.data_vars.items()
        },
    }


def show_matrix(session: Session, title: str, values: Any) -> None:
    """Show a small map of layers whole, else the most similar layer of each layer of x."""
    if values.sizes["layer_y"] <= WIDEST:
        session.table(
            title,
            ["", *map(str, values.layer_y.values)],
            [
                [str(name), *map(float, row)]
                for name, row in zip(values.layer_x.values, values.values, strict=True)
            ],
        )
        return
    session.table(f"{title}: the most alike", *_matches(values, None))


def show_result(session: Session, name: str, dataset: Any) -> None:
    """Show the result of an analysis."""
    SHOWN[name](session, dataset)


def _matches(values: Any, errors: Any) -> tuple[list[str], list[list[object]]]:
    """Return, for each layer of x, its most similar layer of y."""
    rows: list[list[object]] = []
    similar = values.attrs.get("kind") != "dissimilarity"
    for at, name in enumerate(values.layer_x.values):
        row = np.asarray(values.values[at])
        if np.isnan(row).all():
            rows.append([str(name), "undefined", *[""] * (1 if errors is None else 2)])
            continue
        best = int(np.nanargmax(row) if similar else np.nanargmin(row))
        error = [] if errors is None else [float(errors.values[at, best])]
        rows.append([str(name), str(values.layer_y.values[best]), float(row[best]), *error])
    columns = ["layer of x", "layer of y", str(values.attrs.get("long_name", values.name))]
    return columns if errors is None else [*columns, "standard error"], rows


def _compare(session: Session, dataset: Any) -> None:
    attrs = dataset.attrs
    title = (
        f"CKA of {attrs['model_x']} with {attrs['model_y']}, unbiased, "
        f"{attrs['n_samples']} samples in {attrs['n_batches']} batches"
    )
    if len(dataset.layer_x) < 2 or (
        attrs["model_x"] == attrs["model_y"] and len(dataset.layer_y) <= WIDEST
    ):
        show_matrix(session, title, dataset.cka)
        return
    if attrs["model_x"] != attrs["model_y"]:
        session.table(f"{title}: the most alike", *_matches(dataset.cka, dataset.standard_error))
        return
    # In one model every layer is most similar to itself, so show the next layer.
    layers = [str(name) for name in dataset.layer_x.values]
    steps: list[list[object]] = [
        [a, b, float(dataset.cka.sel(layer_x=a, layer_y=b))]
        for a, b in pairwise(layers)
        if b in dataset.layer_y.values
    ]
    session.table(f"{title}: from layer to layer", ["layer", "next layer", "CKA"], steps)


def _attention(session: Session, dataset: Any) -> None:
    rows = [
        [
            str(each.layer.item()),
            *(float(value) for value in (each.distance.mean(), each.distance.min())),
            *(float(value) for value in (each.distance.max(), each.uniform_distance)),
            *(float(value) for value in (each.prefix_mass.mean(), each.entropy.mean())),
        ]
        for each in (dataset.isel(layer=at) for at in range(dataset.sizes["layer"]))
    ]
    columns = ["layer", "mean", "nearest head", "farthest head", "uniform", "prefix mass"]
    session.table(
        _title("Attention distance in pixels", dataset), [*columns, "entropy in nats"], rows
    )


def _columns(heading: str, along: str, shown: dict[str, str]) -> Callable[[Session, Any], None]:
    """Make a table of variables that have one value for each layer (site)."""

    def show(session: Session, dataset: Any) -> None:
        rows = [
            [str(name), *(float(dataset[variable].values[at]) for variable in shown)]
            for at, name in enumerate(dataset[along].values)
        ]
        session.table(_title(heading, dataset), [along, *shown.values()], rows)

    return show


def _probe(session: Session, dataset: Any) -> None:
    tokens = [str(token) for token in dataset.token.values]
    rows = [
        [str(name), *map(float, row)]
        for name, row in zip(dataset.layer.values, dataset.accuracy.values, strict=True)
    ]
    chance = float(dataset.attrs["chance"])
    title = f"Accuracy of a linear probe, {dataset.attrs['model']}, chance {chance:.3f}"
    session.table(title, ["layer", *tokens], rows)


def _title(heading: str, dataset: Any) -> str:
    return f"{heading}, {dataset.attrs['model']}, {dataset.attrs['n_samples']} samples"


SHOWN: dict[str, Callable[[Session, Any], None]] = {
    "compare": _compare,
    "layer_map": _compare,
    "attention_distance": _attention,
    "residual_ratios": _columns(
        "Norm of skip over norm of branch",
        "site",
        {"ratio_spatial": "spatial tokens", "ratio_prefix": "prefix tokens"},
    ),
    "receptive_field": _columns(
        "Effective receptive field in pixels",
        "layer",
        {"sigma": "sigma", "participation_area": "area", "side": "side"},
    ),
    "localization": _columns(
        "Token localisation",
        "layer",
        {"hit_rate": "hit rate", "chance": "chance", "argmax_distance": "distance in pixels"},
    ),
    "linear_probe": _probe,
}
"""How each analysis is shown, by the name of its saved result."""
