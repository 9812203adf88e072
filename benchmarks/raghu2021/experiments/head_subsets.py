"""Figure 5: the local heads of low blocks resemble the low layers of a CNN."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import numpy as np
import xarray as xr
from scipy.stats import spearmanr
from torch import nn

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
from raghu2021.layers import blocks

__all__ = ["findings", "measurements", "pictures"]

FIGURE = "Fig. 5"
PAIRS = (("vit", "cnn"), ("vit-2", "cnn-2"), ("vit-3", "cnn-3"), ("vit-untrained", "cnn"))
BLOCKS = (0, 1)
"""The paper's "encoder block 1" is the first or the second, as one counts: both."""


def measurements(lab: Lab) -> Iterable[Measurement]:
    for x, y in PAIRS:
        if lab.has(x, y):
            for block in BLOCKS:
                yield Measurement(
                    f"head-subsets/{x}.{block}", (x, y), partial(_measure, lab, x, y, block)
                )


def _measure(lab: Lab, x: str, y: str, block: int) -> xr.Dataset:
    vit, cnn = lab.model(x), lab.model(y)
    names = blocks(cnn, lab.example(y))
    return repsim.head_subset_cka(
        vit,
        cnn,
        lab.cka_data(),
        layer=_attention(vit, lab, x)[block],
        layers_y=names[: max(len(names) // 3, 1)],
        subsets="sliding",
        prepare_x=lab.subjects[x].prepare,
        prepare_y=lab.subjects[y].prepare,
        names=(lab.label(x), lab.label(y)),
        progress=False,
    )


def _attention(vit: nn.Module, lab: Lab, role: str) -> list[str]:
    """Return the layers that hold attention, in execution order, as the library names them."""
    seen = repsim.attention_distance(vit, [lab.example(role)], progress=False)
    return [str(name) for name in seen.layer.values]


def pictures(lab: Lab, results: Results) -> Iterable[Picture]:
    shown = [
        (x, y, block)
        for x, y in PAIRS
        for block in BLOCKS
        if f"head-subsets/{x}.{block}" in results and x not in ("vit-2", "vit-3")
    ]
    if not shown:
        return
    figure, axes = panels(len(shown), width=4.6, height=3.6, columns=2)
    words = []
    for (x, y, block), ax in zip(shown, axes, strict=True):
        result = results[f"head-subsets/{x}.{block}"]
        repsim.plot.head_subsets(result, ax).set_title(
            f"{lab.label(x)}, block {block}, with {lab.label(y)}"
        )
        local, far, _ = ends(result)
        words.append(f"{lab.label(x)}, block {block}, from {local:.2f} to {far:.2f}")
    yield Picture(
        "fig05-head-subsets",
        figure,
        f"{FIGURE}. CKA of heads of a low block with the low blocks of the CNN, from local to "
        "global heads.",
        f"CKA of heads with low CNN blocks, from the most local to the most global: "
        f"{'; '.join(words)}.",
    )


def findings(lab: Lab, results: Results) -> Iterable[Finding]:
    roles = [x for x, y in PAIRS[:3] if lab.has(x, y)]
    if not roles:
        return
    at = {
        block: [ends(results[f"head-subsets/{role}.{block}"]) for role in roles] for block in BLOCKS
    }
    before = [
        results[f"head-subsets/vit-untrained.{block}"]
        for block in BLOCKS
        if f"head-subsets/vit-untrained.{block}" in results
    ]
    rank = {b: [order(results[f"head-subsets/{r}.{b}"]) for r in roles] for b in BLOCKS}
    yield Finding(
        FIGURE,
        "Local heads of a low ViT block are more like low CNN layers than global heads are.",
        "CKA with lower ResNet layers falls monotonically with the mean attention distance of the "
        "heads, from about 0.55 to 0.28.",
        "Each group is a quarter of the heads, from local to global. CKA is the mean over the "
        "lowest third of the CNN's blocks. The most local group has a higher CKA than the most "
        "global group, by more than two standard errors of each. The rank correlation of CKA "
        "and distance is at most −0.5. Both hold in the first and in the second block.",
        "; ".join(
            f"block {block}: local {by_seed((e[0] for e in at[block]), digits=2)}, global "
            f"{by_seed((e[1] for e in at[block]), digits=2)}, rank correlation "
            f"{by_seed(rank[block], digits=2)}"
            for block in BLOCKS
        ),
        "; ".join(
            f"untrained, block {block}: {number(ends(each)[0], digits=2)}, "
            f"{number(ends(each)[1], digits=2)}, {number(order(each), digits=2)}"
            for block, each in enumerate(before)
        ),
        verdict(
            [
                met
                for block in BLOCKS
                for (local, far, error), r in zip(at[block], rank[block], strict=True)
                for met in (local - far > 2 * error, r <= -0.5)
            ],
            *(r for block in BLOCKS for r in rank[block]),
        ),
    )


def ends(result: xr.Dataset) -> tuple[float, float, float]:
    """CKA of the most local and the most global group, mean over layers; their errors together."""
    place = np.argsort(result.mean_distance.values)
    cka = result.cka.mean("layer_y").values[place]
    error = result.standard_error.mean("layer_y").values[place]
    return float(cka[0]), float(cka[-1]), float(error[0] + error[-1])


def order(result: xr.Dataset) -> float:
    """Rank correlation of CKA with distance over the groups."""
    return float(
        spearmanr(result.mean_distance.values, result.cka.mean("layer_y").values).statistic
    )
