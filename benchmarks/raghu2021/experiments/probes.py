"""Figures 10 and 12: what a linear classifier reads from the tokens of each block."""

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
from raghu2021.layers import blocks

__all__ = ["findings", "measurements", "pictures"]


def measurements(lab: Lab) -> Iterable[Measurement]:
    if len(lab.data.classes) < 2:
        return
    for role in lab.subjects:
        if role not in ("vit-no-skips", "vit-labels"):
            yield Measurement(f"probes/{role}", (role,), partial(_measure, lab, role))


def _measure(lab: Lab, role: str) -> xr.Dataset:
    model = lab.model(role)
    tokens = ["cls", "mean", "mean_without_cls"]
    return repsim.linear_probe(
        model,
        lab.data.shots(lab.effort.probe_shots, 64),
        lab.data.stream(lab.effort.probe_images, 64),
        layers=blocks(model, lab.example(role)),
        tokens=[*tokens, "each"] if role in lab.roles(*EACH) else tokens,
        n_classes=len(lab.data.classes),
        prepare=lab.subjects[role].prepare,
        name=lab.label(role),
        progress=False,
    )


EACH = ("vit", "vit-2", "vit-3", "vit-gap", "vit-gap-2", "vit-gap-3", "cnn", "vit-untrained")
"""Models for which every single token is probed too."""


def pictures(lab: Lab, results: Results) -> Iterable[Picture]:
    roles = [role for role in lab.shown() if f"probes/{role}" in results]
    if not roles:
        return
    figure, axes = panels(len(roles), width=4.2, height=3.5)
    for role, ax in zip(roles, axes, strict=True):
        repsim.plot.probe(_there(results[f"probes/{role}"]), ax).set_title(lab.label(role))
        ax.set_ylim(0, 1)
    best = "; ".join(
        f"{lab.label(r)} {float(results[f'probes/{r}'].accuracy.max()):.2f}" for r in roles
    )
    yield Picture(
        "fig10-probes",
        figure,
        f"Fig. 10. Test accuracy of a {lab.effort.probe_shots}-shot linear probe after each "
        "block, for each choice of tokens.",
        f"Accuracy of linear probes along the blocks; best of each model: {best}.",
    )
    scaled = [role for role in lab.parts().values() if f"probes/{role}" in results]
    if scaled:
        figure, axes = panels(2, width=4.4, height=3.5)
        words = {"cls": "CLS", "mean_without_cls": "mean of the other tokens"}
        for (token, title), ax in zip(words.items(), axes, strict=True):
            for at, role in enumerate([*scaled, "vit"]):
                accuracy = results[f"probes/{role}"].accuracy.sel(token=token)
                colour = f"C{at}" if role != "vit" else "black"
                label = lab.label(role) if role != "vit" else "all data"
                ax.plot(range(accuracy.size), accuracy.values, "o-", color=colour, label=label)
            if "probes/vit-untrained" in results:
                accuracy = results["probes/vit-untrained"].accuracy.sel(token=token)
                ax.plot(range(accuracy.size), accuracy.values, "--", color="0.5", label="untrained")
            ax.set(title=title, xlabel="block", ylim=(0, 1))
            ax.set_ylabel("probe accuracy on test")
            ax.grid(visible=True, color="0.9")
            ax.legend(fontsize=7)
        yield Picture(
            "fig12-probes-by-data",
            figure,
            "Fig. 12. The same probes of ViTs that were trained on part of the data.",
            "Accuracy of linear probes along the blocks of ViTs trained on parts of the data: at "
            f"the last block {_lasts(lab, results, [*scaled, 'vit'])}.",
        )


def _there(result: xr.Dataset) -> xr.Dataset:
    """Leave out tokens that a model lacks, and a spatial mean that is over all tokens."""
    has = ~np.isnan(result.accuracy).all("layer")
    if not bool(has.sel(token="cls")):
        has.loc[{"token": "mean_without_cls"}] = False
    return result.sel(token=has)


def _lasts(lab: Lab, results: Results, roles: list[str]) -> str:
    return "; ".join(
        f"{lab.label(r)} {float(results[f'probes/{r}'].accuracy.sel(token='cls')[-1]):.2f}"
        for r in roles
    )


def findings(lab: Lab, results: Results) -> Iterable[Finding]:
    vits = [results[f"probes/{r}"] for r in lab.seeds("vit") if f"probes/{r}" in results]
    gaps = [results[f"probes/{r}"] for r in lab.seeds("vit-gap") if f"probes/{r}" in results]
    before = results.get("probes/vit-untrained")
    if vits and gaps:
        singles = [(single(v), single(g)) for v, g in zip(vits, gaps, strict=False)]
        yield Finding(
            "Fig. 10",
            "Single tokens tell little about the class in a CLS-ViT, and much in a GAP-ViT.",
            "Probes on individual spatial tokens: poor at the high layers of CLS-ViT, high for "
            "GAP-ViT and ResNet.",
            "In the last block, the mean probe accuracy of single spatial tokens is at least "
            "0.1 higher in the GAP-ViT than in the CLS-ViT.",
            f"CLS {by_seed((s[0] for s in singles), digits=2)}, "
            f"GAP {by_seed((s[1] for s in singles), digits=2)}",
            "" if before is None else f"untrained {number(single(before), digits=2)}",
            verdict(g - v >= 0.1 for v, g in singles),
        )
        yield Finding(
            "Fig. 10",
            "A single token of a GAP-ViT is nearly as good as all of them pooled.",
            "With GAP, individual tokens do about as well as the pooled representation.",
            "In the last block of the GAP-ViT, the accuracy of single tokens is within 0.05 of "
            "that of the mean token.",
            f"single {by_seed(map(single, gaps), digits=2)}, pooled "
            f"{by_seed((pooled(g) for g in gaps), digits=2)}",
            ""
            if before is None
            else f"untrained CLS-ViT {number(single(before), digits=2)}, "
            f"{number(pooled(before), digits=2)}",
            verdict(pooled(g) - single(g) <= 0.05 for g in gaps),
        )
    scaled = [role for role in lab.parts().values() if f"probes/{role}" in results]
    if scaled and vits:
        few = results[f"probes/{scaled[0]}"]
        full = [middle(v) for v in vits]
        error = float(few.standard_error.max())
        yield Finding(
            "Fig. 12",
            "With more training data, linear probes read more from the middle layers of a ViT.",
            "ViT's middle layers give much better probes pretrained on JFT-300M than on ImageNet.",
            "At the middle block, the probe accuracy of the mean spatial token is higher with "
            "all data than with the least data, by more than two standard errors of the "
            "difference (binomial).",
            f"all data {by_seed(full, digits=2)}, least {number(middle(few), digits=2)} ± "
            f"{error:.2f}",
            "" if before is None else f"untrained {number(middle(before), digits=2)}",
            verdict(value - middle(few) > 2 * 2**0.5 * error for value in full),
        )


def single(result: xr.Dataset) -> float:
    """Accuracy of single spatial tokens at the last layer, mean over them."""
    accuracy = result.accuracy[-1]
    tokens = [str(t) for t in result.token.values if str(t).isdecimal()]
    values = accuracy.sel(token=tokens).values
    # Token 0 is CLS if there is one.
    if not np.isnan(float(accuracy.sel(token="cls"))):
        values = values[1:]
    return float(np.nanmean(values))


def pooled(result: xr.Dataset) -> float:
    """Accuracy of the mean over spatial tokens at the last layer."""
    return float(result.accuracy.sel(token="mean_without_cls")[-1])


def middle(result: xr.Dataset) -> float:
    """Accuracy of the mean over spatial tokens at the middle block."""
    return float(result.accuracy.sel(token="mean_without_cls")[result.sizes["layer"] // 2])
