"""Attention distance as a section: every head, and the attention to prefix tokens."""

from __future__ import annotations

import numpy as np
import xarray as xr

from repsim.report._blocks import Chart, Finding, Section, Series, number
from repsim.report._read import ends, extreme, has, mean_of, model_of, names_of, values_of

__all__ = ["attention_section"]


def attention_section(name: str, result: xr.Dataset) -> Section:
    """Mean attention distance, layer by layer and head by head."""
    layers = names_of(result, "layer")
    distance = values_of(result, "distance", "layer", "head")
    mean = mean_of(distance, 1)
    section = Section(name, "Attention distance", f"how far the heads of {model_of(result)} look")
    section.findings = ends("mean attention distance", layers, mean, 1, " px")
    flat = [f"{layer}, head {h}" for layer in layers for h in range(distance.shape[1])]
    section.findings += extreme("most local head", flat, distance.ravel(), 1, " px", most=False)
    section.findings += extreme("most global head", flat, distance.ravel(), 1, " px", most=True)
    references: list[Series] = []
    if has(result, "uniform_distance", "layer"):
        uniform = values_of(result, "uniform_distance", "layer")
        for which, i in (("first", 0), ("last", len(layers) - 1)):
            heads = distance[i][np.isfinite(distance[i])]
            if heads.size and np.isfinite(uniform[i]):
                local = int((heads < uniform[i] / 2).sum())
                section.findings.append(
                    Finding(
                        f"heads of the {which} layer below half of uniform attention",
                        f"{local} of {heads.size}",
                        layers[i],
                    )
                )
        references = [
            Series(
                "uniform attention",
                np.arange(len(layers)),
                uniform,
                points=False,
                dashed=True,
                reference=True,
            )
        ]
    head_at = np.argsort(np.argsort(distance, axis=1), axis=1)  # NaN last
    known = np.isfinite(distance)
    at, which_head = np.nonzero(known)
    section.pictures.append(
        Chart(
            "Mean attention distance of every head",
            f"{int(known.sum())} heads in {len(layers)} layers, by their mean attention distance; "
            f"the mean of a layer's heads goes from {number(float(mean[0]), 1)} to "
            f"{number(float(mean[-1]), 1)} pixels.",
            "layer",
            "mean attention distance (pixels)",
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
            note="A head below the dashed line looks less far than one that attends to all tokens "
            "alike. Attention to prefix tokens (CLS) counts as distance 0.",
        )
    )
    if has(result, "prefix_mass", "layer", "head"):
        mass = mean_of(values_of(result, "prefix_mass", "layer", "head"), 1)
        section.findings += ends("attention to prefix tokens, mean of heads", layers, mass)
        if np.nanmax(mass, initial=0.0) > 0:
            section.pictures.append(
                Chart(
                    "Attention to prefix tokens",
                    f"Share of attention that goes to prefix tokens (CLS), mean of the heads of "
                    f"each of {len(layers)} layers.",
                    "layer",
                    "share of attention",
                    [Series("mean of the heads", np.arange(len(layers)), mass)],
                    categories=layers,
                    percent=True,
                )
            )
    if has(result, "entropy", "layer", "head"):
        entropy = mean_of(values_of(result, "entropy", "layer", "head"), 1)
        section.findings += ends("entropy of attention, mean of heads", layers, entropy, 2, " nats")
    return section
