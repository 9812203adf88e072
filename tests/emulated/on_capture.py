"""Hooks on the emulated device: what they keep is there, and they do not wait."""

from __future__ import annotations

import torch

import repsim
from emulated.device import WAITED
from emulated.models import images, vit
from repsim.capture import AttentionRecorder


def test_a_recorder_keeps_outputs_on_the_device():
    (batch,) = images(1)
    near, far = vit(), vit().to("sim")
    wanted, found = (repsim.Recorder(each, "blocks.*", transform="mean") for each in (near, far))
    with torch.no_grad(), wanted, found:
        near(batch)
        WAITED.clear()
        far(batch.to("sim", non_blocking=True))
    assert WAITED.ours() == []
    assert list(found) == list(wanted)
    for name, values in found.items():
        assert values.device.type == "sim"
        torch.testing.assert_close(values.cpu(), wanted[name])


def test_attention_weights_are_on_the_device():
    (batch,) = images(1)
    weights = []
    for device in ("cpu", "sim"):

        def keep(call):
            weights.append(torch.cat([rows for _, rows in call.weights(chunk=8)], dim=2))

        model = vit().to(device)
        WAITED.clear()
        with torch.no_grad(), AttentionRecorder(model, handle=keep):
            model(batch.to(device, non_blocking=True))
        assert WAITED.ours() == []
    assert {x.device.type for x in weights[2:]} == {"sim"}
    for near, far in zip(weights[:2], weights[2:], strict=True):
        torch.testing.assert_close(far.cpu(), near)


def test_residual_sites_and_models_without_a_connection():
    (batch,) = images(1)
    sites, outputs = [], []
    for device in ("cpu", "sim"):
        model, inputs = vit().to(device), batch.to(device)
        sites.append(str(repsim.residual_sites(model, inputs)))
        with torch.no_grad(), repsim.without_residual(model, "blocks.0", branch="mlp"):
            outputs.append(model(inputs))
    assert sites[0] == sites[1]
    torch.testing.assert_close(outputs[1].cpu(), outputs[0])
