"""Effective receptive fields as a section: a small map and a radius for each layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from repsim.report._blocks import Chart, Section, Series, Tile, Tiles
from repsim.results import (
    DECADES,
    RECEPTIVE_FIELD,
    model_of,
    names_of,
    number,
    optional_values,
    values_of,
)

__all__ = ["field_section"]

FIELD_SIDE = 64
"""Cells along the longer side of a receptive field; larger fields are averaged down."""


def field_section(name: str, result: xr.Dataset) -> Section:
    """Effective receptive fields, layer by layer."""
    layers = names_of(result, "layer")
    fields = values_of(result, "field", "layer", "row", "column")
    section = Section(
        name, RECEPTIVE_FIELD.title, f"pixels that the units of {model_of(result)} depend on"
    )
    texts, ends = [""] * len(layers), ""
    sigma = optional_values(result, "sigma", "layer")
    if sigma is not None:
        sizes = [number(float(s), 1) + " px" * bool(np.isfinite(s)) for s in sigma]
        texts = [f"σ = {size}".replace("= undefined", "undefined") for size in sizes]
        ends = f"from {sizes[0]} to {sizes[-1]}"
    small = [_averaged(field) for field in fields]
    greatest = max((float(np.nanmax(each, initial=0.0)) for each in small), default=0.0)
    if greatest > 0:
        section.pictures.append(
            Tiles(
                "Effective receptive fields",
                f"One map of the input for each of {len(layers)} layers, on one logarithmic "
                f"scale of {DECADES} decades" + (f"; σ {ends}." if ends else "."),
                [Tile(n, v, t) for n, v, t in zip(layers, small, texts, strict=True)],
                "part of the field per pixel",
                greatest * 10.0**-DECADES,
                greatest,
                log=True,
                note=""
                if small[0].shape == fields[0].shape
                else f"Averaged from {fields.shape[1]} × {fields.shape[2]} to "
                f"{small[0].shape[0]} × {small[0].shape[1]} cells.",
            )
        )
    if sigma is not None:
        section.pictures.append(
            Chart(
                "Radius by layer",
                f"Root mean square radius σ of the field of each of {len(layers)} layers, {ends}.",
                "layer",
                "σ (pixels)",
                [Series("σ", np.arange(len(layers)), sigma)],
                categories=layers,
            )
        )
    return section


def _averaged(field: Any) -> Any:
    """`field` averaged over blocks, so no side is longer than `FIELD_SIDE`."""
    step = -(-max(field.shape) // FIELD_SIDE)
    if step == 1:
        return field
    for axis in (0, 1):
        edges = np.arange(0, field.shape[axis], step)
        widths = np.diff(np.append(edges, field.shape[axis]))
        sums = np.add.reduceat(field, edges, axis=axis)
        field = sums / (widths[:, None] if axis == 0 else widths)
    return field
