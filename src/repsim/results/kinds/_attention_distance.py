"""Mean attention distance of every head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.results._findings import Finding, Table, ends, extreme, table_along
from repsim.results._kind import Kind, Variable
from repsim.results._reading import has, mean_of, names_of, optional_values, unit_of, values_of
from repsim.results._registry import register

if TYPE_CHECKING:
    import xarray

__all__ = ["ATTENTION_DISTANCE", "uniform_distances"]

HEADS = ("layer", "head")

VARIABLES = {
    "distance": Variable(HEADS, "mean attention distance", units="pixels"),
    "renormalised": Variable(
        HEADS,
        "mean attention distance, renormalised",
        "attention to patches sums to 1",
        units="pixels",
    ),
    "prefix_mass": Variable(HEADS, "attention to prefix tokens"),
    "entropy": Variable(HEADS, "entropy of attention", units="nats"),
    "sink_mass": Variable(
        HEADS, "attention to sinks", "the first real token of a text, and learned sinks"
    ),
    "uniform_distance": Variable(
        ("layer",), "mean attention distance of uniform attention", units="pixels"
    ),
    "uniform_entropy": Variable(("layer",), "entropy of uniform attention", units="nats"),
    "time_distance": Variable(HEADS, "mean attention distance in time", units="frames"),
    "uniform_time_distance": Variable(
        ("layer",), "mean attention distance in time of uniform attention", units="frames"
    ),
    "kind": Variable(("layer",), "attention within one sequence or across"),
    "grid_frames": Variable(("layer",), "tokens along time"),
    "grid_height": Variable(("layer",), "rows of tokens"),
    "grid_width": Variable(("layer",), "columns of tokens"),
    "patch_frames": Variable(("layer",), "step from token to token in time", units="frames"),
    "patch_height": Variable(("layer",), "step from row to row", units="pixels"),
    "patch_width": Variable(("layer",), "step from column to column", units="pixels"),
    "prefix": Variable(("layer",), "tokens before the grid's"),
}


def uniform_distances(result: xarray.Dataset, variable: str) -> Any:
    """Return the distance of uniform attention in the convention of `variable`, for each layer."""
    if variable == "time_distance":
        return values_of(result, "uniform_time_distance", "layer")
    uniform = values_of(result, "uniform_distance", "layer")
    if variable == "renormalised" and {"grid_height", "grid_width", "prefix"} <= set(result.coords):
        patches = np.asarray(result["grid_height"] * result["grid_width"], dtype=np.float64)
        if "grid_frames" in result.coords:
            patches = patches * np.asarray(result["grid_frames"])
        total = patches + np.asarray(result["prefix"])
        # Cross-attention has no patches.
        uniform = uniform * np.divide(total, patches, out=np.ones_like(patches), where=patches > 0)
    return uniform


def findings(result: xarray.Dataset) -> list[Finding]:
    """Return how far the layers and the most extreme heads look."""
    if "kind" in result.coords:  # cross-attention has no distances
        result = result.isel(layer=np.flatnonzero(result["kind"].values == "self"))
    if not result.sizes["layer"]:
        return []
    layers = names_of(result, "layer")
    distance = values_of(result, "distance", *HEADS)
    unit = " " + unit_of(result["distance"], "pixels").replace("pixels", "px")
    found = ends("mean attention distance", layers, mean_of(distance, 1), 1, unit)
    flat = [f"{layer}, head {h}" for layer in layers for h in range(distance.shape[1])]
    found += extreme("most local head", flat, distance.ravel(), 1, unit, most=False)
    found += extreme("most global head", flat, distance.ravel(), 1, unit, most=True)
    if has(result, "uniform_distance", "layer"):
        found += _local_heads(layers, distance, uniform_distances(result, "distance"))
    mass = optional_values(result, "prefix_mass", *HEADS)
    if mass is not None:
        found += ends("attention to prefix tokens, mean of heads", layers, mean_of(mass, 1))
    entropy = optional_values(result, "entropy", *HEADS)
    if entropy is not None:
        mean = mean_of(entropy, 1)
        found += ends("entropy of attention, mean of heads", layers, mean, 2, " nats")
    return found


def _local_heads(layers: list[str], distance: Any, uniform: Any) -> list[Finding]:
    found = []
    places = {"first": 0, "last": len(layers) - 1} if len(layers) > 1 else {"only": 0}
    for which, i in places.items():
        heads = distance[i][np.isfinite(distance[i])]
        if heads.size and np.isfinite(uniform[i]):
            local = int((heads < uniform[i] / 2).sum())
            what = f"heads of the {which} layer with less than half the uniform distance"
            found.append(Finding(what, f"{local} of {heads.size}", layers[i]))
    return found


def table(result: xarray.Dataset) -> Table:
    """Return the distances of each layer."""

    def of_heads(key: str) -> Any:
        values = optional_values(result, key, *HEADS)
        return None if values is None else mean_of(values, 1)

    heads = result.distance
    columns = {
        "mean": heads.mean("head").values,
        "nearest head": heads.min("head").values,
        "farthest head": heads.max("head").values,
        "uniform": optional_values(result, "uniform_distance", "layer"),
        "prefix mass": of_heads("prefix_mass"),
        "entropy in nats": of_heads("entropy"),
        "uniform entropy": optional_values(result, "uniform_entropy", "layer"),
    }
    unit = unit_of(result["distance"], "pixels")
    return table_along(f"Attention distance in {unit}", result, "layer", columns)


ATTENTION_DISTANCE = register(
    Kind("attention_distance", "Attention distance", VARIABLES, ("distance",), findings, table)
)
