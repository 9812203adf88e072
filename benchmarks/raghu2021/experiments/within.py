"""Figure 1: CKA of all layers of one model with each other."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial

import numpy as np
import xarray as xr

import repsim
from raghu2021.experiments._base import (
    Finding,
    Measurement,
    Picture,
    Results,
    by_seed,
    number,
    panels,
    verdict,
)
from raghu2021.lab import Lab

__all__ = ["ends", "findings", "measurements", "pictures"]

FIGURE = "Fig. 1"


def measurements(lab: Lab) -> Iterable[Measurement]:
    for role in lab.whole():
        yield Measurement(f"within/{role}", (role,), partial(lab.compare, role))


def pictures(lab: Lab, results: Results) -> Iterable[Picture]:
    shown = [role for role in lab.shown() if f"within/{role}" in results]
    figure, axes = panels(len(shown), width=4.6, height=4.0)
    words = []
    for role, ax in zip(shown, axes, strict=True):
        result = results[f"within/{role}"]
        repsim.plot.heatmap(result, ax, title=lab.label(role))
        words.append(f"{lab.label(role)} from {float(result.cka.min()):.2f} to 1")
    yield Picture(
        "fig01-within",
        figure,
        f"{FIGURE}. CKA of all layers of a model with each other, input at the lower left.",
        f"CKA maps of {len(shown)} models: {'; '.join(words)}.",
    )


def findings(lab: Lab, results: Results) -> Iterable[Finding]:
    pairs = list(zip(lab.seeds("vit"), lab.seeds("cnn"), strict=False))
    if not pairs:
        return
    vits = [results[f"within/{vit}"] for vit, _ in pairs]
    cnns = [results[f"within/{cnn}"] for _, cnn in pairs]
    untrained = {r: results[f"within/{r}"] for r in lab.roles("vit-untrained", "cnn-untrained")}

    def text(statistic: object, of: list[xr.Dataset]) -> str:
        values = [statistic(each) for each in of]  # type: ignore[operator]
        return by_seed([v for v, _ in values], [e for _, e in values])

    def control(statistic: object) -> str:
        return ", ".join(
            f"{lab.label(role)} {number(*statistic(each))}"  # type: ignore[operator]
            for role, each in untrained.items()
        )

    yield Finding(
        FIGURE,
        "The lowest and the highest layers are more alike in a ViT than in a CNN.",
        "Large similarity between lower and higher layers in ViT, much smaller in ResNet.",
        "The mean CKA of the lowest with the highest quarter of the layers is higher in the ViT, "
        "by more than two standard errors of each.",
        f"ViT {text(ends, vits)}, CNN {text(ends, cnns)}",
        control(ends),
        verdict(
            ends(vit)[0] - ends(cnn)[0] > 2 * (ends(vit)[1] + ends(cnn)[1])
            for vit, cnn in zip(vits, cnns, strict=True)
        ),
    )
    yield Finding(
        FIGURE,
        "The map of a ViT is more uniform than that of a CNN.",
        "A uniform grid for ViT, clear stages for ResNet.",
        "The standard deviation of CKA over all pairs of different layers is smaller in the "
        "ViT. (It has no standard error here; the seeds show its spread.)",
        f"ViT {by_seed(map(spread, vits))}, CNN {by_seed(map(spread, cnns))}",
        ", ".join(f"{lab.label(r)} {number(spread(each))}" for r, each in untrained.items()),
        verdict(spread(vit) < spread(cnn) for vit, cnn in zip(vits, cnns, strict=True)),
    )
    contrasts = [stages(cnn) for cnn in cnns]
    if all(contrast is not None for contrast in contrasts):
        before = stages(untrained["cnn-untrained"]) if "cnn-untrained" in untrained else None
        yield Finding(
            FIGURE,
            "The layers of a CNN fall into stages.",
            "Clear blocks in the ResNet's map, one per stage.",
            "Compare pairs of layers at the same distance in depth. On average over distances, "
            "two layers of one stage are more alike than two layers of different stages, by "
            "more than two standard errors.",
            f"difference {by_seed(*zip(*contrasts, strict=True))}",
            "" if before is None else f"untrained {number(*before)}",
            verdict(contrast > 2 * error for contrast, error in contrasts),
        )
    if "vit-untrained" in untrained:
        before = untrained["vit-untrained"]
        yield Finding(
            FIGURE,
            "Control: training, not architecture, makes the ViT's ends alike.",
            "No such control in the paper.",
            "The first criterion, with the untrained ViT in place of the CNN.",
            f"trained {text(ends, vits)}",
            f"untrained {number(*ends(before))}",
            verdict(
                ends(vit)[0] - ends(before)[0] > 2 * (ends(vit)[1] + ends(before)[1])
                for vit in vits
            ),
        )


def ends(result: xr.Dataset) -> tuple[float, float]:
    """Mean CKA of the lowest with the highest quarter, and a bound for its standard error."""
    quarter = max(result.cka.shape[0] // 4, 1)
    corner = (slice(None, quarter), slice(-quarter, None))
    return float(result.cka.values[corner].mean()), float(
        result.standard_error.values[corner].mean()
    )


def spread(result: xr.Dataset) -> float:
    """Standard deviation of CKA over the pairs of different layers."""
    return float(result.cka.values[~np.eye(len(result.layer_x), dtype=bool)].std())


def stages(result: xr.Dataset) -> tuple[float, float] | None:
    """CKA within stages minus CKA between stages at equal distances, with a bound for its error.

    None if the names of the layers show no stages.
    """
    found = [re.match(r"(?:stage|layer|stages\.)\d+", str(name)) for name in result.layer_x.values]
    stage = np.asarray([match.group() if match else "" for match in found])
    if len(set(stage) - {""}) < 2:
        return None
    place = np.arange(len(stage))
    distance = place[None, :] - place[:, None]
    inside = (stage[:, None] != "") & (stage[None, :] != "")
    same = stage[:, None] == stage[None, :]
    cka, error = result.cka.values, result.standard_error.values
    differences, errors = [], []
    for d in range(1, len(stage)):
        one, other = inside & same & (distance == d), inside & ~same & (distance == d)
        if one.any() and other.any():
            differences.append(cka[one].mean() - cka[other].mean())
            errors.append(error[one].mean() + error[other].mean())
    return float(np.mean(differences)), float(np.mean(errors))
