"""Attention distance as a section: every head, and the attention to prefix tokens."""

from __future__ import annotations

import numpy as np
import xarray as xr

from repsim.report._blocks import Chart, Section, Series
from repsim.results import (
    ATTENTION_DISTANCE,
    has,
    mean_of,
    model_of,
    names_of,
    number,
    optional_values,
    uniform_distances,
    unit_of,
    values_of,
)

__all__ = ["attention_section"]


def attention_section(name: str, result: xr.Dataset) -> Section:
    """Mean attention distance, layer by layer and head by head."""
    section = Section(
        name,
        ATTENTION_DISTANCE.title,
        f"mean attention distance of the heads of {model_of(result)}",
    )
    section.pictures = [_distances(result)]
    mass = optional_values(result, "prefix_mass", "layer", "head")
    if mass is not None and np.nanmax(mean_of(mass, 1), initial=0.0) > 0:
        section.pictures.append(_prefix_mass(names_of(result, "layer"), mean_of(mass, 1)))
    return section


def _distances(result: xr.Dataset) -> Chart:
    layers = names_of(result, "layer")
    distance = values_of(result, "distance", "layer", "head")
    mean = mean_of(distance, 1)
    references: list[Series] = []
    if has(result, "uniform_distance", "layer"):
        references = [
            Series(
                "uniform attention",
                np.arange(len(layers)),
                uniform_distances(result, "distance"),
                points=False,
                dashed=True,
                reference=True,
            )
        ]
    head_at = np.argsort(np.argsort(distance, axis=1), axis=1)  # NaN last
    known = np.isfinite(distance)
    at, which_head = np.nonzero(known)
    return Chart(
        "Mean attention distance of every head",
        f"Mean attention distance of {int(known.sum())} heads in {len(layers)} layers. The mean "
        f"over the heads of a layer goes from {number(float(mean[0]), 1)} to "
        f"{number(float(mean[-1]), 1)} {unit_of(result['distance'], 'pixels')}.",
        "layer",
        ATTENTION_DISTANCE.label(result, "distance"),
        [
            Series(
                "head",
                at,
                distance[known],
                line=False,
                names=[f"{layers[i]}, head {h}" for i, h in zip(at, which_head, strict=True)],
                values=[
                    f"rank {head_at[i, h] + 1} of {int(known[i].sum())} in its layer"
                    for i, h in zip(at, which_head, strict=True)
                ],
            ),
            Series("mean of the heads", np.arange(len(layers)), mean, points=False),
            *references,
        ],
        categories=layers,
        note="A head below the dashed line attends at shorter distances than a head that "
        "attends to all tokens equally. Attention to prefix tokens (CLS) counts as "
        "distance 0.",
    )


def _prefix_mass(layers: list[str], mass: np.ndarray) -> Chart:
    return Chart(
        "Attention to prefix tokens",
        "Share of attention that goes to prefix tokens (CLS), as the mean over the heads of "
        f"each of {len(layers)} layers.",
        "layer",
        "share of attention",
        [Series("mean of the heads", np.arange(len(layers)), mass)],
        categories=layers,
        percent=True,
    )
