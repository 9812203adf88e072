"""Figure 7: the norms of the skip and of the branch in every residual sum."""

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

FIGURE = "Fig. 7"


def measurements(lab: Lab) -> Iterable[Measurement]:
    for role in lab.whole():
        yield Measurement(f"norms/{role}", (role,), partial(_measure, lab, role))


def _measure(lab: Lab, role: str) -> xr.Dataset:
    return repsim.residual_ratios(
        lab.model(role),
        lab.data.stream(lab.effort.ratio_images, 64),
        prepare=lab.subjects[role].prepare,
        name=lab.label(role),
        progress=False,
    )


def pictures(lab: Lab, results: Results) -> Iterable[Picture]:
    roles = [role for role in lab.shown() if f"norms/{role}" in results]
    figure, axes = panels(len(roles), width=4.2, height=3.6)
    for role, ax in zip(roles, axes, strict=True):
        repsim.plot.residual_ratios(results[f"norms/{role}"], ax).set_title(lab.label(role))
    medians = "; ".join(f"{lab.label(r)} {median(results[f'norms/{r}']):.2f}" for r in roles)
    yield Picture(
        "fig07-norm-ratios",
        figure,
        f"{FIGURE}. Norm of the skip over that of the branch, at every residual sum.",
        f"Ratio of the norms of skip and branch along the network; medians: {medians}.",
    )
    if "vit" in roles:
        figure, (ax,) = panels(1, width=7.0, height=4.2)
        repsim.plot.residual_ratios(results["norms/vit"], ax, kind="map").set_title(
            lab.label("vit")
        )
        yield Picture(
            "fig07-norm-ratios-tokens",
            figure,
            f"{FIGURE}. {lab.label('vit')}: the ratio for every token. CLS is drawn apart.",
            "Ratio of the norms of skip and branch for every residual sum and token of "
            f"{lab.label('vit')}.",
        )


def findings(lab: Lab, results: Results) -> Iterable[Finding]:
    vits = [results[f"norms/{role}"] for role in lab.seeds("vit")]
    cnns = [results[f"norms/{role}"] for role in lab.seeds("cnn")]
    pairs = list(zip(vits, cnns, strict=False))
    before = {r: results[f"norms/{r}"] for r in lab.roles("vit-untrained", "cnn-untrained")}
    if pairs:
        yield Finding(
            FIGURE,
            "Skip connections carry much more in a ViT than in a CNN.",
            "Ratios of norms are much higher in ViT than in ResNet.",
            "Take the median of ‖skip‖/‖branch‖ of the spatial tokens over all residual sums. "
            "The ViT's median is more than twice the CNN's.",
            f"ViT {by_seed(map(median, vits), digits=2)}, "
            f"CNN {by_seed(map(median, cnns), digits=2)}",
            ", ".join(f"{lab.label(r)} {number(median(b), digits=2)}" for r, b in before.items()),
            verdict((median(v) > 2 * median(c) for v, c in pairs), *map(median, vits + cnns)),
        )
    if vits and not np.isnan(halves(vits[0])[0]):
        at = [halves(vit) for vit in vits]
        yield Finding(
            FIGURE,
            "The skip carries CLS in the first half of the ViT, and the other tokens in the "
            "second half.",
            "A phase transition: the ratio is high for CLS in the first half, and for spatial "
            "tokens in the second half.",
            "Take log(ratio of CLS / ratio of spatial tokens). Its mean over the residual sums "
            "is above zero in the first half of the blocks and below zero in the second half.",
            f"first half {by_seed((first for first, _ in at), digits=2)}, second "
            f"{by_seed((second for _, second in at), digits=2)}",
            "untrained {}, {}".format(
                *(number(x, digits=2) for x in halves(before["vit-untrained"]))
            )
            if "vit-untrained" in before
            else "",
            verdict([met for first, second in at for met in (first > 0, second < 0)]),
        )


def median(result: xr.Dataset) -> float:
    """Median over the residual sums of the ratio of their spatial tokens."""
    values = result.ratio_spatial.values
    # No ratio if branches are zero, as in untrained networks that begin as identities.
    return float("nan") if np.isnan(values).all() else float(np.nanmedian(values))


def halves(result: xr.Dataset) -> tuple[float, float]:
    """log(CLS / spatial tokens) in the first and in the second half of the residual sums."""
    gap = np.log(result.ratio_prefix.values / result.ratio_spatial.values)
    half = len(gap) // 2
    return float(np.mean(gap[:half])), float(np.mean(gap[half:]))
