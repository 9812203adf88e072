"""Figure 9: whether a token is most similar to its own patch."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

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

FIGURE = "Fig. 9"


def measurements(lab: Lab) -> Iterable[Measurement]:
    for role in lab.whole():
        yield Measurement(f"places/{role}", (role,), partial(_measure, lab, role))


def _measure(lab: Lab, role: str) -> xr.Dataset:
    model = lab.model(role)
    names = blocks(model, lab.example(role))
    chosen = sorted({0, len(names) // 2, len(names) - 1})
    return repsim.token_localization(
        model,
        lab.data.stream(lab.effort.place_images, lab.effort.place_batch),
        [names[i] for i in chosen],
        prepare=lab.subjects[role].prepare,
        name=lab.label(role),
        progress=False,
    )


def pictures(lab: Lab, results: Results) -> Iterable[Picture]:
    roles = [r for r in lab.shown() if f"places/{r}" in results]
    figure, axes = panels(len(roles), width=5.0, height=4.6)
    words = []
    for role, ax in zip(roles, axes, strict=True):
        result = results[f"places/{role}"]
        last = str(result.layer.values[-1])
        repsim.plot.localization(result, ax, layer=last)
        ax.set_title(f"{lab.label(role)}: {ax.get_title()}", fontsize=8)
        words.append(f"{lab.label(role)} {float(result.hit_rate[-1]):.2f}")
    yield Picture(
        "fig09-localization",
        figure,
        f"{FIGURE}. CKA of each token of the last block with each patch of the image; a token's "
        "own patch is framed.",
        "Maps of the CKA of tokens with patches in the last block. Share of the tokens that are "
        f"most similar to their own patch: {'; '.join(words)}.",
    )


def findings(lab: Lab, results: Results) -> Iterable[Finding]:
    vits = [results[f"places/{role}"] for role in lab.seeds("vit")]
    cnns = [results[f"places/{role}"] for role in lab.seeds("cnn")]
    gaps = [results[f"places/{role}"] for role in lab.seeds("vit-gap")]
    before = {r: results[f"places/{r}"] for r in lab.roles("vit-untrained", "cnn-untrained")}
    untrained = ", ".join(
        f"{lab.label(role)} {number(last(each), digits=2)}" for role, each in before.items()
    )
    if vits and cnns:
        yield Finding(
            FIGURE,
            "In the last block, the tokens of a ViT still represent their own patch; those of a "
            "CNN do not.",
            "ViT tokens at the highest layers are most similar to the patch at their place; "
            "ResNet's localisation is much weaker.",
            "The score is (hit rate − chance)/(1 − chance). The hit rate is the share of the "
            "tokens of the last block that are most similar to their own patch. The ViT scores "
            "at least 0.5, and more than the CNN. The CNN's patches are the places of its own "
            "last map.",
            f"ViT {by_seed(map(last, vits), digits=2)}, CNN {by_seed(map(last, cnns), digits=2)}",
            untrained,
            verdict(
                [
                    met
                    for vit, cnn in zip(vits, cnns, strict=False)
                    for met in (last(vit) >= 0.5, last(vit) > last(cnn))
                ],
                *map(last, [*vits, *cnns]),
            ),
        )
    if vits and gaps:
        yield Finding(
            FIGURE,
            "A ViT that classifies by the mean of its tokens localises less than one that "
            "classifies by CLS.",
            "Localisation is weaker in ViT trained with global average pooling.",
            "The same score is lower in the GAP-ViT than in every CLS-ViT.",
            f"CLS {by_seed(map(last, vits), digits=2)}, GAP {by_seed(map(last, gaps), digits=2)}",
            untrained,
            verdict((last(gap) < min(map(last, vits)) for gap in gaps), *map(last, [*vits, *gaps])),
        )


def last(result: xr.Dataset) -> float:
    """How far the hit rate of the last layer is from chance (0) to perfect (1)."""
    hit, chance = float(result.hit_rate[-1]), float(result.chance[-1])
    return (hit - chance) / (1 - chance)
