"""Which axes are positions where axes are permuted, tokens mixed, or windows unfolded."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import repsim
from analysis.permuting import Contiguous, Permute, means
from repsim.capture import Recorder


def test_modules_that_rearrange_have_their_channels_first():
    """As in VOLO: nn.Unfold returns (B, channels, positions), beside linear layers."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 2, 2), nn.PixelShuffle(2), nn.Upsample(scale_factor=2),
        nn.Unfold(2, stride=2), nn.Linear(64, 4), nn.LayerNorm(4),
    ).eval()  # fmt: skip
    found, whole = means(model, torch.randn(5, 3, 8, 8))
    for name, x in whole.items():
        expected = x.flatten(2).mean(2) if name in "0123" else x.mean(1)
        torch.testing.assert_close(found[name], expected, msg=name)


def test_what_is_inside_a_stage_does_not_decide_alone():
    """As in Swin V2 of timm: blocks with channels last in a stage that returns them first."""
    torch.manual_seed(0)
    stage = nn.Sequential(Permute(0, 2, 3, 1), nn.Linear(4, 4), Permute(0, 3, 1, 2))
    model = nn.Sequential(nn.Conv2d(3, 4, 2, 2), stage).eval()
    found, whole = means(model, torch.randn(5, 3, 8, 8), ["1", "1.1"])  # 4 × 4 positions
    torch.testing.assert_close(found["1"], whole["1"].mean((2, 3)))
    torch.testing.assert_close(found["1.1"], whole["1.1"].mean((1, 2)))
    # The columns of the map are as many as a width in the stage, but its aspect is the image's.
    stage = nn.Sequential(
        Permute(0, 2, 3, 1), nn.Linear(6, 4), nn.Linear(4, 6), Permute(0, 3, 1, 2)
    )
    model = nn.Sequential(nn.Conv2d(3, 6, 2, 2), stage).eval()
    found, whole = means(model, torch.randn(5, 3, 8, 8), ["1"])
    torch.testing.assert_close(found["1"], whole["1"].mean((2, 3)))
    stage.append(Contiguous())
    with (
        Recorder(model, ["1"], transform="mean"),
        pytest.raises(repsim.CaptureError, match="channels of layer '1' may be first or last"),
    ):
        model(torch.randn(5, 3, 8, 8))

    # As in MaxViT: convolutions follow in the same block, so its linear layers show nothing.
    attention = nn.Sequential(
        Permute(0, 2, 3, 1), nn.Linear(4, 4), Permute(0, 3, 1, 2), Contiguous()
    )
    model = nn.Sequential(
        nn.Conv2d(3, 4, 2, 2), nn.Sequential(attention, nn.Conv2d(4, 4, 1))
    ).eval()
    with (
        Recorder(model, ["1.0"], transform="mean"),
        pytest.raises(repsim.CaptureError, match="channels of layer '1.0' may be first or last"),
    ):
        model(torch.randn(5, 3, 8, 8))


class Mixer(nn.Module):
    """As in MLP-Mixer: one linear layer mixes tokens, the other features."""

    def __init__(self, patches, features=6):
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, features, 2, 2), nn.LayerNorm(features)
        self.tokens = nn.Sequential(nn.Linear(patches, 5), nn.GELU(), nn.Linear(5, patches))
        self.channels = nn.Sequential(nn.Linear(features, patches), nn.GELU())

    def forward(self, x):
        x = self.norm(self.patches(x).flatten(2).mT)
        return self.channels(x + self.tokens(x.mT).mT)


def test_tokens_that_a_linear_layer_mixes_are_last():
    """The features of its output (B, features, tokens) stay, and its last axis is averaged."""
    torch.manual_seed(0)
    model = Mixer(20).eval()
    found, whole = means(model, torch.randn(5, 3, 8, 10))
    assert len(found) == 9
    for name, x in whole.items():
        if name != "patches":
            expected = x.mean(2 if name.startswith("tokens") else 1)
            torch.testing.assert_close(found[name], expected, msg=name)
    with torch.no_grad(), Recorder(model, ["tokens"], transform="last") as last:
        model(x := torch.randn(5, 3, 8, 10))
    with torch.no_grad(), Recorder(model, ["tokens"]) as whole:
        model(x)
    torch.testing.assert_close(last["tokens"], whole["tokens"][:, :, -1])
    # 16 patches are merged to 4, as in Swin: linear layers from 4 features to 16 mix no tokens.
    merging = nn.Sequential(
        nn.Conv2d(3, 2, 2, 2), nn.Flatten(2), Permute(0, 2, 1), nn.Unflatten(1, (4, 4)),
        nn.Flatten(2), nn.Linear(8, 4), nn.LayerNorm(4), nn.Linear(4, 16), nn.GELU(),
    ).eval()  # fmt: skip
    found, whole = means(merging, torch.randn(5, 3, 8, 8), ["7", "8"])
    for name in ("7", "8"):
        torch.testing.assert_close(found[name], whole[name].mean(1), msg=name)
