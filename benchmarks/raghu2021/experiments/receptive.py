"""Figure 6: effective receptive fields after the residual sums."""

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
from raghu2021.layers import blocks

__all__ = ["findings", "measurements", "pictures"]

FIGURE = "Fig. 6"


def measurements(lab: Lab) -> Iterable[Measurement]:
    for role in lab.whole():
        yield Measurement(f"receptive/{role}", (role,), partial(_measure, lab, role))


def _measure(lab: Lab, role: str) -> xr.Dataset:
    model = lab.model(role)
    return repsim.effective_receptive_field(
        model,
        lab.data.stream(lab.effort.field_images, 16),
        blocks(model, lab.example(role)),
        n_probes=lab.effort.field_probes,
        prepare=lab.subjects[role].prepare,
        name=lab.label(role),
        progress=False,
    )


def pictures(lab: Lab, results: Results) -> Iterable[Picture]:
    for role in lab.shown():
        if f"receptive/{role}" in results:
            result = results[f"receptive/{role}"]
            count = result.sizes["layer"]
            columns = min(count, 6)
            rows = -(-count // columns)
            figure, (ax,) = panels(1, width=1.7 * columns + 0.9, height=1.9 * rows + 0.5)
            repsim.plot.receptive_field(result, ax, columns=columns)
            figure.suptitle(lab.label(role), fontsize=10)
            sigmas = ", ".join(f"{value:.1f}" for value in result.sigma.values)
            yield Picture(
                f"fig06-receptive-field-{role}",
                figure,
                f"{FIGURE}. {lab.label(role)}: effective receptive field of the middle unit of "
                "each block, after the residual sum.",
                f"Effective receptive fields of {lab.label(role)}, from block to block; root mean "
                f"square radius {sigmas} pixels.",
            )


def findings(lab: Lab, results: Results) -> Iterable[Finding]:
    pairs = list(zip(lab.seeds("vit"), lab.seeds("cnn"), strict=False))
    if not pairs:
        return
    vits = [results[f"receptive/{vit}"] for vit, _ in pairs]
    cnns = [results[f"receptive/{cnn}"] for _, cnn in pairs]
    before = {r: results[f"receptive/{r}"] for r in lab.roles("vit-untrained", "cnn-untrained")}

    yield Finding(
        FIGURE,
        "The lower layers of a ViT see more of the image than those of a CNN.",
        "Lower layers of ViT have larger effective receptive fields than in ResNet.",
        "Divide the root mean square radius of the field by that of a field that is even over "
        "the image. The mean of this over the lowest third of the blocks is larger in the ViT.",
        f"ViT {by_seed((low(v) for v in vits), digits=2)}, "
        f"CNN {by_seed((low(c) for c in cnns), digits=2)}",
        ", ".join(f"{lab.label(r)} {number(low(b), digits=2)}" for r, b in before.items()),
        verdict(low(vit) > low(cnn) for vit, cnn in zip(vits, cnns, strict=True)),
    )
    yield Finding(
        FIGURE,
        "The field of a ViT is global by the middle of its depth; that of a CNN grows to the end.",
        "ResNet's fields grow gradually; ViT's become global midway through the network.",
        "Divide the radius at the middle block by the largest radius of all blocks. The result "
        "is at least 0.9 in the ViT, and less than 0.9 in the CNN.",
        f"ViT {by_seed((middle(v) for v in vits), digits=2)}, "
        f"CNN {by_seed((middle(c) for c in cnns), digits=2)}",
        ", ".join(f"{lab.label(r)} {number(middle(b), digits=2)}" for r, b in before.items()),
        verdict(
            [
                m
                for v, c in zip(vits, cnns, strict=True)
                for m in (middle(v) >= 0.9, middle(c) < 0.9)
            ]
        ),
    )
    yield Finding(
        FIGURE,
        "A ViT's token depends most on its own patch, in every block.",
        "A strong dependence on the centre patch throughout, because of the residual connections.",
        "In every block, the unit's own patch has a larger share of the field than any other "
        "patch.",
        f"the centre patch leads in {by_seed((leads(v) for v in vits), digits=2)} of the blocks; "
        f"in the last block it has {by_seed((own(v)[-1] for v in vits), digits=1)} times an even "
        "share",
        f"{lab.label('vit-untrained')}: it leads in "
        f"{number(leads(before['vit-untrained']), digits=2)} of the blocks, and has "
        f"{number(own(before['vit-untrained'])[-1], digits=1)} times an even share in the last"
        if "vit-untrained" in before
        else "",
        verdict(leads(v) == 1 for v in vits),
    )


def low(result: xr.Dataset) -> float:
    """Mean radius over the lowest third of the blocks, over that of an even field."""
    third = max(result.sizes["layer"] // 3, 1)
    return float(result.sigma[:third].mean()) / even(result)


def even(result: xr.Dataset) -> float:
    """Root mean square radius of a field that is even over the image."""
    return math.sqrt((result.sizes["row"] ** 2 + result.sizes["column"] ** 2 - 2) / 12)


def middle(result: xr.Dataset) -> float:
    """Radius at the middle block over the largest."""
    return float(result.sigma[result.sizes["layer"] // 2] / result.sigma.max())


def shares(result: xr.Dataset) -> np.ndarray:
    """The share of each patch in the field of each block: (layer, rows, columns)."""
    out = []
    for layer in range(result.sizes["layer"]):
        rows = int(result.grid_height.values[layer])
        columns = int(result.grid_width.values[layer])
        field = result.field.values[layer]
        height, width = field.shape[0] // rows, field.shape[1] // columns
        cut = field[: rows * height, : columns * width]
        out.append(cut.reshape(rows, height, columns, width).sum((1, 3)))
    return np.stack(out)


def own(result: xr.Dataset) -> np.ndarray:
    """The share of the unit's own patch for each block, in units of an even share."""
    patches = shares(result)
    rows, columns = result.unit_row.values.astype(int), result.unit_column.values.astype(int)
    return patches[np.arange(len(patches)), rows, columns] * patches[0].size


def leads(result: xr.Dataset) -> float:
    """The share of blocks in which the unit's own patch has the largest part."""
    patches = shares(result)
    most = patches.reshape(len(patches), -1).max(1) * patches[0].size
    return float((own(result) >= most).mean())
