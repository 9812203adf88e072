"""Figures 3 and 4: how far heads attend, also after training on less data."""

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

LOCAL, GLOBAL = 0.5, 0.75
"""Parts of the distance under uniform attention. On a grid of 8×8 patches a head that attends to
its 3×3 neighbourhood alone has 0.26, to 5×5 0.45; one that attends to all but these has 1.2."""

LABELS = "vit-labels"
"""The same ViT, trained on labels alone."""

LOWEST = 2
"""The paper shows the two lowest and the two highest blocks."""


def measurements(lab: Lab) -> Iterable[Measurement]:
    for role, subject in lab.subjects.items():
        if subject.family == "vit":
            yield Measurement(f"attention/{role}", (role,), partial(_measure, lab, role))


def _measure(lab: Lab, role: str) -> xr.Dataset:
    return repsim.attention_distance(
        lab.model(role),
        lab.data.stream(lab.effort.distance_images, 64),
        prepare=lab.subjects[role].prepare,
        name=lab.label(role),
        progress=False,
    )


def pictures(lab: Lab, results: Results) -> Iterable[Picture]:
    parts = [role for role in lab.parts().values() if f"attention/{role}" in results]
    trained = [*lab.shown(), *lab.roles(LABELS)]
    trained = [role for role in trained if f"attention/{role}" in results]
    if trained:
        yield _picture(
            lab,
            results,
            trained,
            "fig03-attention-distance",
            "Fig. 3. Mean attention distance of each head. Each line is a block; its heads are "
            "sorted.",
        )
    if parts and "vit" in trained:
        yield _picture(
            lab,
            results,
            [*parts, "vit"],
            "fig04-less-data",
            "Fig. 4. Mean attention distance of each head in models trained on less of the data.",
        )


def _picture(lab: Lab, results: Results, roles: list[str], name: str, caption: str) -> Picture:
    figure, axes = panels(len(roles), width=3.9, height=3.3)
    top = max(float(results[f"attention/{role}"].distance.max()) for role in roles)
    top = max(top, *(float(results[f"attention/{r}"].uniform_distance.max()) for r in roles))
    words = []
    for role, ax in zip(roles, axes, strict=True):
        result = results[f"attention/{role}"]
        repsim.plot.attention_distance(result, ax).set_title(lab.label(role))
        ax.set_ylim(0, 1.08 * top)
        low, high = float(result.distance.min()), float(result.distance.max())
        words.append(f"{lab.label(role)} {low:.1f} to {high:.1f}")
    return Picture(name, figure, caption, f"{caption} In pixels: {'; '.join(words)}.")


def relative(result: xr.Dataset) -> np.ndarray:
    """Distance of every head (layer, head) over that of uniform attention, both among patches.

    The renormalised distance, because the plain one is small for a head that attends to CLS.
    """
    patches = result.grid_height * result.grid_width
    uniform = result.uniform_distance * (patches + result.prefix) / patches
    return np.asarray((result.renormalised / uniform).transpose("layer", "head"))


def local_share(result: xr.Dataset) -> float:
    """The share of the heads of the lowest blocks that are local."""
    return float((lowest(result) < LOCAL).mean())


def lowest(result: xr.Dataset) -> np.ndarray:
    """Relative distances of the heads of the lowest blocks."""
    heads = relative(result)[:LOWEST]
    return heads[~np.isnan(heads)]


def highest(result: xr.Dataset) -> np.ndarray:
    """Relative distances of the heads of the highest blocks."""
    heads = relative(result)[-LOWEST:]
    return heads[~np.isnan(heads)]


def findings(lab: Lab, results: Results) -> Iterable[Finding]:
    seeds = [results[f"attention/{role}"] for role in lab.seeds("vit")]
    if not seeds:
        return
    before = results.get("attention/vit-untrained")
    first = 0.0 if before is None else local_share(before)
    controls = {
        lab.label(role): results[f"attention/{role}"]
        for role in lab.roles("vit-untrained", LABELS)
        if f"attention/{role}" in results
    }
    yield Finding(
        "Fig. 3",
        "The lowest blocks of a ViT have both local and global heads.",
        "Even in the lowest layers, heads attend both locally and globally.",
        f"In the two lowest blocks, some heads have less than {LOCAL:g} times the distance of "
        f"uniform attention, and the most global head has more than {GLOBAL:g} times that "
        "distance. More heads are local than in the untrained ViT.",
        f"share of local heads {by_seed(map(local_share, seeds), digits=2)}, most local "
        f"{by_seed((lowest(s).min() for s in seeds), digits=2)}, most global "
        f"{by_seed((lowest(s).max() for s in seeds), digits=2)}",
        "; ".join(
            f"{name}: share {number(local_share(each), digits=2)}, "
            f"{number(lowest(each).min(), digits=2)} to {number(lowest(each).max(), digits=2)}"
            for name, each in controls.items()
        ),
        verdict([m for s in seeds for m in (local_share(s) > first, lowest(s).max() > GLOBAL)]),
    )
    yield Finding(
        "Fig. 3",
        "The highest blocks of a ViT have global heads only.",
        "At the highest layers, all heads attend globally.",
        f"In the two highest blocks, every head has more than {GLOBAL:g} times the distance of "
        "uniform attention.",
        f"most local {by_seed((highest(s).min() for s in seeds), digits=2)}, most global "
        f"{by_seed((highest(s).max() for s in seeds), digits=2)}",
        ""
        if before is None
        else f"untrained {number(highest(before).min(), digits=2)} to "
        f"{number(highest(before).max(), digits=2)}",
        verdict(highest(s).min() > GLOBAL for s in seeds),
    )
    parts = lab.parts()
    if parts:
        role = parts[min(parts)]
        few = float(np.sort(lowest(results[f"attention/{role}"]))[: _quarter(seeds[0])].mean())
        full = [float(np.sort(lowest(s))[: _quarter(s)].mean()) for s in seeds]
        yield Finding(
            "Fig. 4",
            "With too little data, the lowest blocks do not learn local heads.",
            "Trained on ImageNet alone, ViT-L/16 and H/14 lack the local heads that they have "
            "after JFT-300M.",
            "Take the most local quarter of the heads in the two lowest blocks. They attend "
            "farther in the model with the least data than in every model with all data. The "
            "gap is larger than the gap between the seeds with all data.",
            f"{lab.label(role)} {number(few, digits=2)}, all data {by_seed(full, digits=2)} of the "
            "distance of uniform attention",
            "" if before is None else f"untrained {number(lowest(before).min(), digits=2)}",
            verdict([few - max(full) > max(full) - min(full)]),
        )


def _quarter(result: xr.Dataset) -> int:
    return max(len(lowest(result)) // 4, 1)
