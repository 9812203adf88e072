"""Figure 8: a ViT trained without the skip connections of one block."""

from __future__ import annotations

import math
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

FIGURE = "Fig. 8"
ROLE = "vit-no-skips"


def measurements(lab: Lab) -> Iterable[Measurement]:
    if lab.has(ROLE):
        yield Measurement(f"skips/{ROLE}", (ROLE,), partial(lab.compare, ROLE))


def pictures(lab: Lab, results: Results) -> Iterable[Picture]:
    if f"skips/{ROLE}" not in results:
        return
    figure, axes = panels(2, width=4.8, height=4.2)
    repsim.plot.heatmap(results["within/vit"], axes[0], title=lab.label("vit"))
    repsim.plot.heatmap(results[f"skips/{ROLE}"], axes[1], title=lab.label(ROLE))
    block = lab.subjects[ROLE].about["without_block"]
    yield Picture(
        "fig08-without-skips",
        figure,
        f"{FIGURE}. CKA within the ViT, and within one that was trained without the skip "
        f"connections of block {block}.",
        f"CKA maps of the ViT and of one that was trained without the skips of block {block}. "
        f"The mean CKA across this block is {across(results['within/vit'], block)[0]:.2f} with "
        f"skips and {across(results[f'skips/{ROLE}'], block)[0]:.2f} without.",
    )


def findings(lab: Lab, results: Results) -> Iterable[Finding]:
    if f"skips/{ROLE}" not in results:
        return
    about = lab.subjects[ROLE].about
    block, tested = about["without_block"], about["tested"]
    without = across(results[f"skips/{ROLE}"], block)
    seeds = [across(results[f"within/{role}"], block) for role in lab.seeds("vit")]
    before = results.get("within/vit-untrained")
    least = min(value for value, _ in seeds)
    apart = max(value for value, _ in seeds) - least
    yield Finding(
        FIGURE,
        "Without the skip connections of one block, the layers below it become unlike those "
        "above it.",
        "The map falls into two parts, before and after the block. With skips it does not.",
        "Take the mean CKA of the layers below the block with those above it. It is lower in "
        "the model without the skips of the block than in every model with them, by more than "
        "these models differ.",
        f"without {number(*without)}, with {by_seed(*zip(*seeds, strict=True))}",
        "" if before is None else f"untrained, with skips {number(*across(before, block))}",
        verdict([least - without[0] > apart]),
    )
    accuracy = about["accuracy"]
    others = [lab.subjects[role].about["accuracy"] for role in lab.seeds("vit")]
    drop = min(others) - accuracy
    error = math.sqrt((accuracy * (1 - accuracy) + min(others) * (1 - min(others))) / tested)
    yield Finding(
        FIGURE,
        "Training without the skips of a middle block costs accuracy.",
        "Accuracy is 4 % lower without the skips of a middle block.",
        "Test accuracy is lower than that of the worst seed with skips, by more than two "
        "standard errors of the difference (binomial).",
        f"without {accuracy:.1%}, with {', '.join(f'{other:.1%}' for other in others)}: "
        f"{-100 * drop:+.1f} ± {100 * error:.1f} points".replace("+-", "−").replace(" -", " −"),
        "",
        verdict([drop > 2 * error]),
    )


def across(result: xr.Dataset, block: int) -> tuple[float, float]:
    """Mean CKA of the layers of the blocks below with those of the blocks above, and its error."""
    place = np.asarray(
        [
            int(n.split(".")[1]) if n.startswith("blocks.") else -1
            for n in map(str, result.layer_x.values)
        ]
    )
    below, above = (place >= 0) & (place < block), place > block
    cells = np.ix_(below, above)
    return float(result.cka.values[cells].mean()), float(result.standard_error.values[cells].mean())
