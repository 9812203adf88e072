"""Which axes are positions: maps with channels first and last, sequences, video, class tokens."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import repsim
from analysis.permuting import Contiguous, Permute, means
from analysis.plain import Copy
from repsim.capture import Recorder


def test_maps_of_a_swin_transformer():
    """All its layers between patches and head are (B, H, W, C)."""
    swin = pytest.importorskip("torchvision").models.swin_transformer
    torch.manual_seed(0)
    model = swin.SwinTransformer(
        patch_size=[4, 4], embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=[4, 4],
        num_classes=5,
    ).eval()  # fmt: skip
    layers = ["features.?", "features.*.mlp", "features.*.mlp.1", "features.*.stochastic_depth",
              "features.0.?", "permute", "norm"]  # fmt: skip
    found, whole = means(model, torch.randn(3, 3, 48, 48), layers)
    assert {"features.0", "features.1.0.mlp.1", "features.2", "permute", "norm"} <= set(found)
    for name, x in whole.items():
        first = name in ("features.0.0", "permute")
        expected = x.mean((2, 3)) if first else x.mean((1, 2))
        torch.testing.assert_close(found[name], expected, msg=name)


def test_maps_of_other_models():
    """The module, its neighbours or the image show the axes, in one to three dimensions."""
    torch.manual_seed(0)
    to_last = nn.Sequential(nn.Conv2d(3, 6, 2, 2), Permute(0, 2, 3, 1), nn.ReLU(), nn.Linear(6, 4))
    video = nn.Sequential(nn.Conv3d(3, 6, 2, 2), nn.BatchNorm3d(6), nn.ReLU())
    last_video = nn.Sequential(
        nn.Conv3d(3, 6, 2, 2), Permute(0, 2, 3, 4, 1), nn.LayerNorm(6), nn.GELU()
    )
    speech = nn.Sequential(
        nn.Conv1d(3, 6, 2, 2), nn.GELU(), Permute(0, 2, 1), nn.LayerNorm(6), nn.GELU()
    )
    image, clip, sound = torch.randn(2, 3, 8, 10), torch.randn(2, 3, 4, 8, 10), torch.randn(2, 3, 8)
    for model, x, n_first in (
        (to_last.eval(), image, 1),
        (video.eval(), clip, 3),
        (last_video.eval(), clip, 1),
        (speech.eval(), sound, 2),
    ):
        found, whole = means(model, x)
        assert len(found) == len(model)
        for number, (name, y) in enumerate(whole.items()):
            first = number < n_first
            axes = tuple(range(2, y.ndim)) if first else tuple(range(1, y.ndim - 1))
            torch.testing.assert_close(found[name], y.mean(axes), msg=f"{model} {name}")
    # If no module shows the axes, the aspect ratio of the image does.
    plain = nn.Sequential(nn.AvgPool2d(2), Permute(0, 2, 3, 1), Copy())
    found, whole = means(plain, torch.randn(2, 5, 8, 8))
    torch.testing.assert_close(found["2"], whole["2"].mean((1, 2)))


def test_a_head_as_wide_as_the_map():
    """The size of the image decides before distant modules: four classes are not four channels."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 2, 2), Permute(0, 2, 3, 1), nn.Linear(6, 10), Permute(0, 3, 1, 2),
        Copy(), nn.Flatten(), nn.Linear(160, 4),
    ).eval()  # fmt: skip
    found, whole = means(model, torch.randn(5, 3, 8, 8), ["3", "4"])
    for name, x in whole.items():
        torch.testing.assert_close(found[name], x.mean((2, 3)), msg=name)


def test_channels_that_cannot_be_recognised():
    """A map as wide as it has channels: an error if requested by name, left out under a glob."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 2, 2), Permute(0, 2, 3, 1), Contiguous(), nn.LayerNorm(4)
    ).eval()
    x = torch.randn(5, 3, 8, 8)
    with (
        Recorder(model, ["2"], transform="mean"),
        pytest.raises(repsim.CaptureError, match="channels of layer '2' may be first or last"),
    ):
        model(x)
    with pytest.warns(repsim.RepsimWarning, match=r"2 \(5, 4, 4, 4\): its channels may be first"):
        found, whole = means(model, x)
    assert list(found) == ["0", "1", "3"]
    # A permuted map shows its channels by its strides.
    torch.testing.assert_close(found["1"], whole["1"].mean((1, 2)))
    with Recorder(model, ["1"], transform="mean") as one:  # as a last batch may be
        model(x[:1])
    torch.testing.assert_close(one["1"], found["1"][:1])


def test_masks_of_an_image():
    """Masks (B, prompts, masks, H, W) as in SAM: their width equals the number of features."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 2, 2), nn.Unflatten(1, (2, 3)), Copy(), nn.Flatten(), nn.Linear(96, 4)
    ).eval()
    x = torch.randn(5, 3, 8, 8)
    with pytest.warns(repsim.RepsimWarning, match=r"2 \(5, 2, 3, 4, 4\): its channels"):
        found, _ = means(model, x)
    assert list(found) == ["0", "3", "4"]
    with (
        Recorder(model, ["2"], transform="mean"),
        pytest.raises(repsim.CaptureError, match=r"lambda x: x.mean\(\(3, 4\)\)"),
    ):
        model(x)


def test_a_vision_transformer_without_class_token():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    options = {"img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2}
    pooled = timm.models.VisionTransformer(
        **options, class_token=False, global_pool="avg", num_classes=3
    ).eval()
    with_cls = timm.models.VisionTransformer(**options, num_classes=3).eval()
    plain = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.Flatten(2), Permute(0, 2, 1), nn.Linear(4, 4))
    x = torch.randn(5, 3, 8, 8)
    for model, layer in ((pooled, "blocks.0"), (plain, "3"), (with_cls, "patch_embed")):
        with (
            Recorder(model, [layer], transform="cls"),
            pytest.raises(repsim.CaptureError, match=f"layer '{layer}' has no class token"),
        ):
            model(x)
        with Recorder(model, [layer], transform="first") as found, torch.no_grad():
            model(x)
        assert found[layer].shape[0] == 5
    with (
        pytest.warns(repsim.RepsimWarning, match=r"patch_embed \(5, 4, 8\) has no class token"),
        Recorder(with_cls, ["patch_embe?", "blocks.?"], transform="cls") as found,
        torch.no_grad(),
    ):
        with_cls(x)
    assert list(found) == ["blocks.0"]


class Stages(nn.Module):
    """As in CvT, PVT and Swin: patches are merged, and some models add a class token at the end."""

    def __init__(self, cls_token):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.early, self.late = nn.LayerNorm(8), nn.LayerNorm(32)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 32)) if cls_token else None

    def forward(self, x):
        x = self.patches(x)
        self.early(x.flatten(2).mT)
        x = nn.functional.pixel_unshuffle(x, 2).flatten(2).mT
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        return self.late(x)


def test_merged_patches_are_no_class_token():
    """The first of them had been the class token of later stages."""
    x = torch.randn(5, 3, 32, 32)
    with_cls, without = Stages(True), Stages(False)
    for model, layer in ((with_cls, "early"), (without, "early"), (without, "late")):
        with (
            Recorder(model, layer, transform="cls"),
            pytest.raises(repsim.CaptureError, match=f"layer '{layer}' has no class token"),
        ):
            model(x)
    with Recorder(with_cls, "late", transform="cls") as found:
        late = with_cls(x)
    torch.testing.assert_close(found["late"], late[:, 0])


def test_a_sequence_that_may_be_a_map_is_never_averaged_silently():
    """6 positions, 6 channels of a convolution, and 4 features of a linear layer, or 6."""
    torch.manual_seed(0)
    speech = nn.Sequential(nn.Conv1d(3, 6, 2, 2), nn.GELU(), Permute(0, 2, 1), nn.Linear(6, 6))
    with (
        pytest.raises(repsim.CaptureError, match="channels of layer '1' may be first or last"),
        Recorder(speech, ["1"], transform="mean"),
    ):
        speech(torch.randn(5, 3, 12))

    class Text(nn.Module):
        """As in Mamba: a convolution between linear layers."""

        def __init__(self):
            super().__init__()
            self.embed, self.narrow = nn.Embedding(9, 4), nn.Linear(6, 4)
            self.conv, self.wide = nn.Conv1d(6, 6, 3, padding=1), nn.Linear(4, 6)
            self.act, self.end = nn.ReLU(), nn.ReLU()

        def forward(self, ids):
            x = self.act(self.conv(self.wide(self.embed(ids)).mT))
            return self.end(self.narrow(x.mT))

    for length in (6, 8):
        found, whole = means(Text(), torch.randint(0, 9, (5, length)), ["embed", "end"])
        torch.testing.assert_close(found["end"], whole["end"].mean(1))


def test_heads_of_a_text_are_no_channels():
    """As the norm of queries in Gemma 3 and Qwen 3: (B, heads, N, d) or (B, N, heads, d)."""

    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.project = nn.Embedding(9, 12), nn.Linear(12, 12)
            self.rows, self.columns = nn.RMSNorm(3), nn.RMSNorm(3)

        def forward(self, ids):
            q = self.rows(self.project(self.embed(ids)).unflatten(2, (4, 3)))
            return self.columns(q.transpose(1, 2))

    for length in (7, 3):  # or as many tokens as features of a head
        found, whole = means(Heads(), torch.randint(0, 9, (6, length)))
        torch.testing.assert_close(found["rows"], whole["rows"].mean(1))
        torch.testing.assert_close(found["columns"], whole["columns"].mean(2))
    data = [torch.randint(0, 9, (6, 4)) for _ in range(2)]
    options = {"transform": "mean", "progress": False}
    for layer in ("rows", "columns"):
        with pytest.raises(repsim.CaptureError, match=f"axes 1 and 2 of layer '{layer}' may be"):
            repsim.compare(Heads(), Heads(), data, layers=[layer], **options)
    with pytest.warns(repsim.RepsimWarning, match="axes 1 and 2 may be its positions"):
        found = repsim.compare(Heads(), Heads(), data, **options)
    assert found.layer_x.values.tolist() == ["embed", "project"]


class ChannelNorm(nn.LayerNorm):
    """As in ConvNeXt and SAM of transformers: a LayerNorm of maps with channels first or last."""

    def __init__(self, width, data_format):
        super().__init__(width)
        self.data_format = data_format

    def forward(self, x):
        first = self.data_format == "channels_first"
        return super().forward(x.movedim(1, -1)).movedim(-1, 1) if first else super().forward(x)


class OwnNorm(nn.LayerNorm):
    """As in timm: neither its name nor an attribute says where it has its channels."""

    def forward(self, x):
        return super().forward(x)


class SpeechNorm(nn.LayerNorm):
    """As in SqueezeBERT."""

    def forward(self, x):
        return super().forward(x.mT).mT


def test_a_norm_of_channels_first():
    """The attribute decides even where the map is as wide as it has channels."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 2, 2), ChannelNorm(4, "channels_first"), nn.ReLU(), Permute(0, 2, 3, 1),
        ChannelNorm(4, "channels_last"),
    ).eval()  # fmt: skip
    for side in (8, 12):
        found, whole = means(model, torch.randn(5, 3, side, side), ["1", "4"])
        torch.testing.assert_close(found["1"], whole["1"].mean((2, 3)))
        torch.testing.assert_close(found["4"], whole["4"].mean((1, 2)))
    # Without the attribute its width decides, or the layer around it. In a map that is as wide,
    # convolutions beside it do not, as in the stem of MambaOut of timm.
    stem = nn.Sequential(nn.Conv2d(3, 4, 2, 2), Permute(0, 2, 3, 1), OwnNorm(4))
    found, whole = means(stem, torch.randn(5, 3, 12, 12), ["2"])
    torch.testing.assert_close(found["2"], whole["2"].mean((1, 2)))
    with pytest.raises(repsim.CaptureError, match="channels of layer '2' may be first or last"):
        means(stem, torch.randn(5, 3, 8, 8), ["2"])
    speech = nn.Sequential(nn.Conv1d(3, 6, 2, 2), SpeechNorm(6))
    for length in (8, 12):
        found, whole = means(speech, torch.randn(5, 3, length), ["1"])
        torch.testing.assert_close(found["1"], whole["1"].mean(2))


class Crops(nn.Module):
    """Three crops of every image, one below the other in the batch."""

    def forward(self, x):
        return torch.stack([x, 2 * x, x**2], 1).flatten(0, 1)


def test_crops_of_images_and_sounds(tmp_path):
    """The mean is over crops and positions; crops are no axis of the module."""
    torch.manual_seed(0)
    image = nn.Sequential(
        Crops(), nn.Conv2d(3, 6, 2, 2), nn.GELU(), Permute(0, 2, 3, 1), nn.Linear(6, 4), nn.ReLU(),
        Permute(0, 3, 1, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(4),
    ).eval()  # fmt: skip
    sound = nn.Sequential(Crops(), nn.Conv1d(3, 6, 2, 2), nn.GELU()).eval()
    features = {"4": -1, "5": -1}  # others have them on axis 1
    for model, shape in ((image, (5, 3, 8, 8)), (sound, (5, 3, 8))):
        x = torch.randn(shape)
        out = tmp_path / f"{len(model)}.zarr"
        found = repsim.extract(model, [x], out=out, transform="mean", progress=False)
        with torch.no_grad(), Recorder(model, batch_dim=0) as whole:
            model(x)
        for name in {"1", "2", "4", "5", "7", "9"} & set(map(str, found)):
            rows = whole[name].movedim(features.get(name, 1), -1).unflatten(0, (5, 3))
            expected = rows.mean(tuple(range(1, rows.ndim - 1)))
            torch.testing.assert_close(torch.tensor(found[name].values), expected, msg=name)
        assert {"1", "2"} <= set(map(str, found))
