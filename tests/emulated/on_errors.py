"""NaN and infinity in one batch on the emulated device: named after the last, without a wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import repsim
from emulated.models import Batches, images, labelled, resnet, vit

BAD = 1
"""The batch with one pixel that is not a number."""


def spoilt(batches: list[Any]) -> Batches:
    for number in (BAD, 3):
        batch = batches[number]
        (batch if isinstance(batch, torch.Tensor) else batch[0])[2, 0, 5, 5] = torch.nan
    return Batches(batches)


CASES: dict[str, tuple[Callable[[nn.Module, Batches], Any], str]] = {
    "linear_probe": (
        lambda model, data: repsim.linear_probe(
            model, data, labelled(1), layers=["blocks.0", "blocks.1"], progress=False
        ),
        r"layer 'blocks.0' must.*batch 1 of train .* 48 values",
    ),
    "attention_distance": (
        lambda model, data: repsim.attention_distance(model, data, progress=False),
        r"layer 'blocks.0.attn', batch 1",
    ),
    "residual_ratios": (
        lambda model, data: repsim.residual_ratios(model, data, progress=False),
        r"site 'blocks.0.attn', batch 1",
    ),
    "block_influence": (
        lambda model, data: repsim.block_influence(model, data, progress=False),
        r"block 'blocks.0', batch 1",
    ),
    "effective_receptive_field": (
        lambda model, data: repsim.effective_receptive_field(
            model, data, ["blocks.0", "blocks.1"], n_probes=1, progress=False
        ),
        r"layer 'blocks.0', batch 1",
    ),
    "token_localization": (
        lambda model, data: repsim.token_localization(
            model, data, ["blocks.0", "blocks.1"], progress=False
        ),
        r"image patch 0, batch 1",
    ),
    "stitch": (
        lambda model, data: repsim.stitch(
            model, "blocks.0", model, "blocks.0", data.data[:1] * 2, fit=data, progress=False
        ),
        r"'blocks.0' of model_x .*batch 1",
    ),
    "stitch, logits": (
        lambda model, data: repsim.stitch(
            model, "blocks.0", model, "blocks.0", data, fit=data.data[:1] * 2, progress=False
        ),
        r"logits of model_y .*batch 1",
    ),
    "compare": (
        lambda model, data: repsim.compare(
            model, resnet().to("sim"), data, layers="blocks.0", layers_y="layer1", progress=False
        ),
        r"batch 1 .*'blocks.0'",
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore::repsim.RepsimWarning")
def test_layer_and_batch_are_named_after_the_last_batch(name):
    case, message = CASES[name]
    batches = spoilt(labelled(5) if name == "linear_probe" else images(5))
    with pytest.raises(repsim.NonFiniteError, match=f"(?s){message}"):
        case(vit().to("sim"), batches)
    assert batches.waits[1:] == [[]] * 4
