"""Figure 2: CKA of all layers of a CNN with all layers of a ViT, and their best matches."""

from __future__ import annotations

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

__all__ = ["findings", "measurements", "pictures"]

FIGURE = "Fig. 2"

PAIRS = (
    ("cnn", "vit"),
    ("cnn-2", "vit-2"),
    ("cnn-3", "vit-3"),
    ("cnn-untrained", "vit-untrained"),
    ("vit", "vit-2"),
    ("cnn", "cnn-2"),
)


def pairs(lab: Lab) -> list[tuple[str, str]]:
    """The pairs of available models; a further model is paired with the first of the other kind."""
    other = [role for role in lab.subjects if role.startswith("other")]
    further = [("cnn", r) if lab.subjects[r].family == "vit" else (r, "vit") for r in other]
    return [pair for pair in (*PAIRS, *further) if lab.has(*pair)]


def measurements(lab: Lab) -> Iterable[Measurement]:
    for x, y in pairs(lab):
        yield Measurement(f"across/{x}+{y}", (x, y), partial(lab.compare, x, y))


def pictures(lab: Lab, results: Results) -> Iterable[Picture]:
    shown = [(x, y) for x, y in pairs(lab) if x not in ("cnn-2", "cnn-3")]
    if not shown:
        return
    figure, axes = panels(len(shown), width=4.6, height=4.2, columns=2)
    for (x, y), ax in zip(shown, axes, strict=True):
        title = f"{lab.label(x)} with {lab.label(y)}"
        repsim.plot.heatmap(results[f"across/{x}+{y}"], ax, title=title)
    means = "; ".join(
        f"{lab.label(x)} with {lab.label(y)} {float(results[f'across/{x}+{y}'].cka.mean()):.2f}"
        for x, y in shown
    )
    yield Picture(
        "fig02-across",
        figure,
        f"{FIGURE}. CKA across models. Controls: models before training, and with another seed.",
        f"CKA maps across models, mean over all pairs of layers: {means}.",
    )
    crossed = [p for p in shown if [lab.subjects[r].family for r in p] == ["cnn", "vit"]]
    figure, axes = panels(len(crossed), width=5.4, height=4.8, columns=2)
    for (x, y), ax in zip(crossed, axes, strict=True):
        repsim.plot.layer_match(results[f"across/{x}+{y}"], ax)
    yield Picture(
        "fig02-match",
        figure,
        f"{FIGURE}. How deep in the ViT each layer of the CNN finds its best match.",
        "Depth of the best match in the ViT over the depth of the CNN's layer, for "
        + " and ".join(f"{lab.label(x)} with {lab.label(y)}" for x, y in crossed)
        + ".",
    )


def findings(lab: Lab, results: Results) -> Iterable[Finding]:
    maps = [results[f"across/{x}+{y}"] for x, y in PAIRS[:3] if lab.has(x, y)]
    if not maps:
        return
    before = results.get("across/cnn-untrained+vit-untrained")
    matches = [repsim.layer_match(each).attrs for each in maps]
    untrained = None if before is None else repsim.layer_match(before).attrs
    yield Finding(
        FIGURE,
        "The lower half of a CNN's layers is like the lowest quarter of a ViT's.",
        "About the lower half of the ResNet's layers resemble the lowest quarter of the ViT's.",
        "Nine in ten of the layers in the CNN's lower half find their best match in the lowest "
        "quarter of the ViT. The finding holds in part if only half of these layers do.",
        "nine in ten layers match within the lowest "
        f"{by_seed((m['lower_half_reach'] for m in matches), digits=2)} of the ViT's depth, half "
        f"of them within {by_seed((m['lower_half_median'] for m in matches), digits=2)}",
        ""
        if untrained is None
        else f"untrained: nine in ten within {number(untrained['lower_half_reach'], digits=2)}, "
        f"half within {number(untrained['lower_half_median'], digits=2)}",
        verdict(
            [m[f"lower_half_{name}"] <= 0.25 for m in matches for name in ("reach", "median")],
            *(m["lower_half_reach"] for m in matches),
        ),
    )
    last = [highest_third(each) for each in maps]
    yield Finding(
        FIGURE,
        "The highest layers of a ViT are unlike all layers of a CNN.",
        "The final third of the ViT is less similar to all ResNet layers.",
        "Take the CKA of each ViT layer with its most similar CNN layer. The mean over the "
        "highest third of the ViT is lower than the mean over its other layers, by more than "
        "two standard errors.",
        f"highest third {by_seed([x[0] for x in last], [x[2] for x in last])}, rest "
        f"{by_seed([x[1] for x in last], [x[3] for x in last])}",
        ""
        if before is None
        else f"untrained {number(highest_third(before)[0])}, {number(highest_third(before)[1])}",
        verdict(rest - top > 2 * (e_top + e_rest) for top, rest, e_top, e_rest in last),
    )


def highest_third(result: xr.Dataset) -> tuple[float, float, float, float]:
    """Best CKA with any layer of x, mean over the highest third of y and over the rest; errors."""
    cka, error = result.cka.values, result.standard_error.values
    best = cka.argmax(axis=0)
    columns = np.arange(cka.shape[1])
    values, errors = cka[best, columns], error[best, columns]
    cut = cka.shape[1] - cka.shape[1] // 3
    return (
        float(values[cut:].mean()),
        float(values[:cut].mean()),
        float(errors[cut:].mean()),
        float(errors[:cut].mean()),
    )
