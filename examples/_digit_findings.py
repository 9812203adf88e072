"""Numbers from the maps, and verdicts from the numbers; no figure is written by hand."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray

__all__ = ["Finding", "findings", "numbers"]

HOLDS, IN_PART, FAILS, UNDEFINED = "holds", "holds in part", "does not hold", "undefined"

Weights: TypeAlias = NDArray[np.float64]
"""One weight per cell of a map, so that every statistic is a weighted sum of cells."""


@dataclass(frozen=True)
class Finding:
    """A claim, its criterion, the measured numbers, and the verdict.

    ``measured`` names numbers in braces, for the caller to fill in and format.
    """

    claim: str
    criterion: str
    measured: str
    verdict: str


def numbers(results: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """Return every number that the page and the table show, by name.

    The error of a sum of cells is bounded by the sum of their errors.
    """
    out = {
        "accuracy_vit": results["vit"].attrs["test_accuracy_x"],
        "accuracy_cnn": results["cnn"].attrs["test_accuracy_x"],
        "accuracy_untrained_vit": results["untrained-vit"].attrs["test_accuracy_x"],
        "accuracy_untrained_cnn": results["untrained-cnn"].attrs["test_accuracy_x"],
    }

    def add(name: str, key: str, weights: Weights) -> None:
        cka, error = results[key].cka.values, results[key].standard_error.values
        out[name] = float((weights * cka).sum())
        out[f"{name}_error"] = float((np.abs(weights) * error).sum())

    for key in ("vit", "cnn", "untrained-vit", "untrained-cnn"):
        name = key.replace("-", "_")
        add(f"mean_{name}", key, different_layers(results[key]))
        add(f"ends_{name}", key, lowest_and_highest(results[key]))
    for key in ("vit", "untrained-vit"):
        add(f"blocks_{key.replace('-', '_')}", key, different_blocks(results[key]))
    for key in ("cnn", "untrained-cnn"):
        add(f"stages_{key.replace('-', '_')}", key, same_stage_over_other(results[key]))
    for key in ("cnn-vit", "vit-untrained-vit", "chance"):
        add(f"mean_{key.replace('-', '_')}", key, everything(results[key]))
    add("same_layer_vit_untrained_vit", "vit-untrained-vit", same_layer(results["vit"]))

    for key, name in (("cnn-vit", "match"), ("untrained-cnn-untrained-vit", "match_untrained")):
        lower, upper, margins = matches(results[key])
        # As in repsim.plot.layer_match: the smallest depth that covers nine of ten layers.
        out[f"{name}_reach"] = float(np.quantile(lower, 0.9, method="inverted_cdf"))
        out[f"{name}_lower"] = float(np.median(lower))
        out[f"{name}_upper"] = float(np.median(upper))
        out[f"margin_{name}"] = float(np.median(margins))
    out["chance_largest"] = float(np.abs(results["chance"].cka.values).max())
    out["error_largest"] = max(
        float(result.standard_error.values.max()) for result in results.values()
    )
    return {name: float(value) for name, value in out.items()}


def findings(n: Mapping[str, float]) -> list[Finding]:
    """Check the claims of Raghu et al. (2021), and their controls, against the numbers."""
    return [*_claims(n), *_controls(n)]


def _claims(n: Mapping[str, float]) -> list[Finding]:
    return [
        Finding(
            "The layers of the ViT are more alike, from lowest to highest, than those of the CNN.",
            "The mean CKA of two different layers is higher in the ViT, and the mean CKA of the "
            "lowest with the highest quarter of the layers is too, both by more than two "
            "standard errors.",
            "different layers: ViT {mean_vit}, CNN {mean_cnn}; lowest with highest quarter: "
            "ViT {ends_vit}, CNN {ends_cnn}",
            _verdict(
                n,
                "vit",
                _exceeds(n, "mean_vit", "mean_cnn"),
                _exceeds(n, "ends_vit", "ends_cnn"),
            ),
        ),
        Finding(
            "The layers of the CNN fall into stages.",
            "At the same distance in depth, two layers of one stage are more similar than two "
            "layers of different stages, on average by more than two standard errors.",
            "difference {stages_cnn}; before training {stages_untrained_cnn}",
            _verdict(n, "stages_cnn", n["stages_cnn"] > 2 * n["stages_cnn_error"]),
        ),
        Finding(
            "The lower half of the CNN is like the lowest quarter of the ViT.",
            "Nine in ten layers of the lower half of the CNN find their best match in the "
            "lowest quarter of the ViT. The claim holds in part if only half of them do.",
            "nine in ten layers match within the lowest {match_reach} of the ViT's depth, half "
            "of them within {match_lower}; the best match beats the best match in the lowest "
            "quarter by {margin_match} (median); the median of the upper half of the CNN is "
            "{match_upper}",
            _verdict(n, "match", n["match_lower"] <= 0.25, n["match_reach"] <= 0.25),
        ),
    ]


def _controls(n: Mapping[str, float]) -> list[Finding]:
    return [
        Finding(
            "Control: training makes the lowest and the highest layers of the ViT alike.",
            "The first criterion, with the untrained ViT in place of the CNN, and the same for the "
            "outputs of two different blocks.",
            "different layers: trained {mean_vit}, untrained {mean_untrained_vit}; lowest with "
            "highest quarter: trained {ends_vit}, untrained {ends_untrained_vit}; different "
            "blocks' outputs: trained {blocks_vit}, untrained {blocks_untrained_vit}",
            _verdict(
                n,
                "vit",
                _exceeds(n, "mean_vit", "mean_untrained_vit"),
                _exceeds(n, "ends_vit", "ends_untrained_vit"),
                _exceeds(n, "blocks_vit", "blocks_untrained_vit"),
            ),
        ),
        Finding(
            "Control: training makes the lower half of the CNN match the lowest quarter of the "
            "ViT.",
            "The third criterion holds better after training than before. Nine in ten of the "
            "matches, and half of them, lie in fewer of the ViT's layers.",
            "nine in ten: trained {match_reach}, untrained {match_untrained_reach}; half: "
            "trained {match_lower}, untrained {match_untrained_lower}",
            _verdict(
                n,
                "match",
                n["match_reach"] < n["match_untrained_reach"],
                n["match_lower"] < n["match_untrained_lower"],
            ),
        ),
        Finding(
            "Control: unrelated activations score zero.",
            "The CNN on one image against the ViT on another: the mean over all pairs of layers "
            "is within 0.05 of zero.",
            "mean {mean_chance}, largest of all pairs {chance_largest}",
            _verdict(n, "chance", abs(n["mean_chance"]) < 0.05),
        ),
    ]


def _exceeds(n: Mapping[str, float], a: str, b: str) -> bool:
    """Whether one number lies above another by more than two standard errors."""
    return n[a] - n[b] > 2 * (n[f"{a}_error"] + n[f"{b}_error"])


def _verdict(n: Mapping[str, float], about: str, *met: bool) -> str:
    """Return the verdict on criteria; undefined if a number is undefined."""
    if any(math.isnan(value) for name, value in n.items() if about in name):
        return UNDEFINED
    if all(met):
        return HOLDS
    return IN_PART if any(met) else FAILS


def different_layers(result: xr.Dataset) -> Weights:
    """Weights of the mean over all pairs of two different layers of one model."""
    return _mean(~np.eye(*result.cka.shape, dtype=np.bool_))


def different_blocks(result: xr.Dataset) -> Weights:
    """Weights of the mean over all pairs of the outputs of two different ViT blocks."""
    blocks = np.asarray([bool(re.fullmatch(r"blocks\.\d+", n)) for n in result.layer_x.values])
    return _mean(np.outer(blocks, blocks) & ~np.eye(len(blocks), dtype=np.bool_))


def same_layer(result: xr.Dataset) -> Weights:
    """Weights of the mean over the pairs of a layer with the layer of its name."""
    return _mean(np.eye(*result.cka.shape, dtype=np.bool_))


def everything(result: xr.Dataset) -> Weights:
    """Weights of the mean over all pairs."""
    return _mean(np.ones(result.cka.shape, dtype=np.bool_))


def lowest_and_highest(result: xr.Dataset) -> Weights:
    """Weights of the mean over the lowest quarter of the layers with the highest quarter."""
    quarter = max(result.cka.shape[0] // 4, 1)
    chosen = np.zeros(result.cka.shape, dtype=np.bool_)
    chosen[:quarter, -quarter:] = True
    return _mean(chosen)


def same_stage_over_other(result: xr.Dataset) -> Weights:
    """Weights of pairs within a stage minus pairs across stages, at equal distances.

    Neighbours are similar with or without stages, so only pairs of layers at equal distances are
    compared. All distances that occur for both kinds have equal weight.
    """
    stages = [re.match(r"stage\d+", str(name)) for name in result.layer_x.values]
    stage = np.asarray([found.group() if found else "" for found in stages])
    place = np.arange(len(stage))
    distance = place[None, :] - place[:, None]
    in_stages = (stage[:, None] != "") & (stage[None, :] != "")
    same = stage[:, None] == stage[None, :]
    differences = [
        _mean(in_stages & same & (distance == d)) - _mean(in_stages & ~same & (distance == d))
        for d in range(1, len(stage))
        if (in_stages & same & (distance == d)).any()
        and (in_stages & ~same & (distance == d)).any()
    ]
    return np.asarray(np.mean(differences, axis=0))


def matches(
    result: xr.Dataset,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return where the layers of x find their best match in y, as `repsim.plot.layer_match` does.

    The depths in y, from 0 to 1, of the matches of the lower and of the upper half of x; and for
    the lower half, by how much the match exceeds the best in the lowest quarter of y.
    """
    cka = result.cka.fillna(-np.inf).values
    depth_x, depth_y = (np.linspace(0, 1, layers) for layers in cka.shape)
    lower = depth_x <= 0.5
    matched = depth_y[cka.argmax(axis=1)]
    margins = cka.max(axis=1) - cka[:, depth_y <= 0.25].max(axis=1)
    return matched[lower], matched[~lower], margins[lower]


def _mean(chosen: NDArray[np.bool_]) -> Weights:
    return np.asarray(chosen / chosen.sum())
