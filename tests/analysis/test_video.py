"""Videos and volumes: maps with three dimensions, and tokens on frames × rows × columns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import repsim
from reference import localization
from repsim.capture import AttentionRecorder

QUIET = {"progress": False}
LABELS = {"labels": lambda batch: torch.arange(24) % 2}
SMALL = {"image_size": 16, "num_frames": 8, "hidden_size": 16, "num_hidden_layers": 2,
         "num_attention_heads": 2, "intermediate_size": 24}  # fmt: skip


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers")


class Turned(nn.Module):
    """Axes 1 and 2 change places: frames and channels, or channels and tokens."""

    def forward(self, x):
        return x.transpose(1, 2)


def weights_of(model, x, layer):
    """The weights (batch, heads, queries, keys) of the one call of a layer."""
    kept = []
    record = AttentionRecorder(
        model, [layer], handle=lambda c: kept.append([w for _, w in c.weights(1000)])
    )
    with record, torch.no_grad():
        model(x)
    (((weights,),),) = [kept]
    return weights.double()


def by_hand(weights, grid, steps, prefix=0):
    """Distances in space and time of each head, and those of uniform attention: plain loops."""
    places = [(t, r, c) for t in range(grid[0]) for r in range(grid[1]) for c in range(grid[2])]
    apart = torch.zeros(2, len(places), prefix + len(places), dtype=torch.float64)
    for i, (t, r, c) in enumerate(places):
        for j, (u, s, d) in enumerate(places):
            down, across = (r - s) * steps[1], (c - d) * steps[2]
            apart[0, i, prefix + j] = (down**2 + across**2) ** 0.5
            apart[1, i, prefix + j] = abs(t - u) * steps[0]
    rows = weights[:, :, prefix:]
    heads = [(rows * each).sum(-1).mean((0, 2)).numpy() for each in apart]
    return heads, [each.mean().item() for each in apart]


def check(found, i, weights, grid, steps, prefix=0):
    (space, time), (uniform, uniform_time) = by_hand(weights, grid, steps, prefix)
    np.testing.assert_allclose(found.distance[i], space, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(found.time_distance[i], time, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(found.uniform_distance[i], uniform, rtol=1e-9)
    np.testing.assert_allclose(found.uniform_time_distance[i], uniform_time, rtol=1e-9)
    np.testing.assert_allclose(found.uniform_entropy[i], np.log(weights.shape[-1]), rtol=1e-12)


def test_attention_over_a_whole_video(transformers):
    """VideoMAE without CLS and ViViT with it: tubes of 2 frames and 4 × 4 pixels."""
    torch.manual_seed(0)
    mae = transformers.VideoMAEConfig(patch_size=4, tubelet_size=2, **SMALL)
    vivit = transformers.VivitConfig(tubelet_size=[2, 4, 4], **SMALL)
    x = torch.randn(3, 8, 3, 16, 16)
    for model, prefix in (
        (transformers.VideoMAEModel(mae), 0), (transformers.VivitModel(vivit), 1)
    ):  # fmt: skip
        model.eval()
        found = repsim.attention_distance(model, [x[:2], x[2:]], grid=(4, 4, 4), **QUIET)
        assert found.prefix.values.tolist() == [prefix] * 2
        assert found.grid_frames.values.tolist() == [4, 4]
        assert found.patch_frames.values.tolist() == [2, 2]
        assert found.patch_height.values.tolist() == [4, 4]
        assert found.time_distance.attrs["units"] == "frames"
        for i, layer in enumerate(found.layer.values.tolist()):
            check(found, i, weights_of(model, x, layer), (4, 4, 4), (2, 4, 4), prefix)
        other = repsim.attention_distance(
            model, [x], grid=(4, 4, 4), patch_size=(1, 4, 8), layers=[layer], **QUIET
        )
        check(other, 0, weights_of(model, x, layer), (4, 4, 4), (1, 4, 8), prefix)


def test_weights_are_computed_once_for_space_and_time(transformers):
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):
        exponentials = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.exponentials += "exp2" in str(func)
            return func(*args, **(kwargs or {}))

    config = transformers.VideoMAEConfig(patch_size=4, tubelet_size=2, **SMALL)
    model, x = transformers.VideoMAEModel(config).eval(), torch.randn(1, 8, 3, 16, 16)
    with torch.no_grad(), Watch() as alone:
        model(x)
    with Watch() as watched:
        repsim.attention_distance(model, [x], grid=(4, 4, 4), **QUIET)
    assert watched.exponentials - alone.exponentials == 2  # one for each layer


def test_attention_over_frames_and_along_time(transformers):
    torch.manual_seed(0)
    config = transformers.TimesformerConfig(patch_size=4, **{**SMALL, "num_hidden_layers": 1})
    model, x = transformers.TimesformerModel(config).eval(), torch.randn(3, 8, 3, 16, 16)
    found = repsim.attention_distance(model, [x], grid=(8, 4, 4), **QUIET)
    names = found.layer.values.tolist()
    assert sorted("temporal" in name for name in names) == [False, True]
    for i, name in enumerate(names):
        along_time = "temporal" in name
        grid, prefix = ((8, 1, 1), 0) if along_time else ((1, 4, 4), 1)
        check(found, i, weights_of(model, x, name), grid, (1, 4, 4), prefix)
        zero = found.distance if along_time else found.time_distance
        assert (zero[i] == 0).all()


def test_the_grid_of_a_video_is_asked_for(transformers):
    torch.manual_seed(0)
    config = transformers.VideoMAEConfig(patch_size=4, tubelet_size=2, **SMALL)
    model, x = transformers.VideoMAEModel(config).eval(), torch.randn(2, 8, 3, 16, 16)
    swin = pytest.importorskip("torchvision").models.video
    windows = swin.swin_transformer.SwinTransformer3d(
        patch_size=[2, 4, 4], embed_dim=8, depths=[2], num_heads=[2], window_size=[2, 2, 2]
    ).eval()
    refused = {
        "grid of layer .* is unknown": (model, {}),
        "grid does not fit": (model, {"grid": (4, 4)}),  # the other frames are no prefix
        r"grid: \(4, 4, 5\), frames": (model, {"grid": (4, 4, 5)}),
    }
    for message, (net, options) in refused.items():
        with pytest.raises(repsim.InputError, match=message):
            repsim.attention_distance(net, [x], **options, **QUIET)
    for options in ({}, {"grid": (4, 4, 4)}):
        with pytest.raises(repsim.InputError, match="grid"):
            repsim.attention_distance(windows, [x.transpose(1, 2)], **options, **QUIET)
    with pytest.raises(repsim.InputError, match="patch_size must be positive"):
        repsim.attention_distance(model, [x], grid=(4, 4, 4), patch_size=(0, 4, 4), **QUIET)


def test_a_grid_that_does_not_divide_the_video_needs_steps():
    """7 frames in steps of 2 make 3 tokens in time."""

    class Tubes(nn.Module):
        def __init__(self):
            super().__init__()
            self.tubes = nn.Conv3d(3, 8, (2, 4, 4), (2, 4, 4))
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            x = self.tubes(x).flatten(2).mT
            return self.attention(x, x, x)[0]

    torch.manual_seed(0)
    model, x = Tubes().eval(), torch.randn(2, 3, 7, 8, 8)
    with pytest.raises(repsim.InputError, match=r"Pass patch_size=\(frames, height, width\)"):
        repsim.attention_distance(model, [x], grid=(3, 2, 2), **QUIET)
    found = repsim.attention_distance(model, [x], grid=(3, 2, 2), patch_size=(2, 4, 4), **QUIET)
    check(found, 0, weights_of(model, x, "attention"), (3, 2, 2), (2, 4, 4))


def test_probes_of_maps_with_three_dimensions():
    """Channels first in a convolution, last in the blocks of Swin."""
    video = pytest.importorskip("torchvision").models.video.swin_transformer
    torch.manual_seed(0)
    swin = video.SwinTransformer3d(
        patch_size=[2, 4, 4], embed_dim=8, depths=[2], num_heads=[2], window_size=[2, 2, 2]
    ).eval()
    convolutions = nn.Sequential(nn.Conv3d(3, 6, 3, 2), nn.BatchNorm3d(6), nn.ReLU()).eval()
    data = [torch.randn(24, 3, 8, 16, 16) for _ in range(2)]
    for model, layers, axes in (
        (convolutions, ["0", "2"], (2, 3, 4)),
        (swin, ["patch_embed", "features.0.0"], (1, 2, 3)),
    ):
        options = {"layers": layers, "tokens": ["mean"], **LABELS, **QUIET}
        found = repsim.linear_probe(model, data, data, **options)
        mean = repsim.linear_probe(
            model, data, data, select=lambda x, axes=axes: x.mean(axes), **options
        )
        np.testing.assert_allclose(found.accuracy, mean.accuracy, atol=1e-9)
        stored = repsim.linear_probe(
            model, data, data, **{**options, "tokens": [0], "layers": layers[:1]}
        )
        at = (slice(None), slice(None), 0, 0, 0) if axes[0] == 2 else (slice(None), 0, 0, 0)
        first = repsim.linear_probe(
            model, data, data, select=lambda x, at=at: x[at],
            **{**options, "layers": layers[:1]},
        )  # fmt: skip
        np.testing.assert_allclose(stored.accuracy[:, 0], first.accuracy[:, 0], atol=1e-9)


def jacobian(model, x, layer, unit):
    """Σ over samples and channels of the input of √Σ_c (∂y_c/∂x)², with plain loops over c."""
    total = torch.zeros(())
    for one in x:
        one = one[None].clone().requires_grad_()
        kept = {}
        handle = model.get_submodule(layer).register_forward_hook(
            lambda _m, _a, out, kept=kept: kept.update(y=unit(out))
        )
        model(one)
        handle.remove()
        squares = sum(torch.autograd.grad(y, one, retain_graph=True)[0] ** 2 for y in kept["y"][0])
        total = total + squares.sqrt()[0]
    return total.double()


@pytest.mark.slow
def test_receptive_fields_of_videos(transformers):
    """In space and time apart, for maps of convolutions and for tokens with a given grid."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(3, 1, 3, 2, 1), nn.Tanh(), nn.Conv3d(1, 1, 3, 1, 1)).eval()
    config = transformers.VivitConfig(
        tubelet_size=[2, 4, 4], **{**SMALL, "hidden_size": 4, "intermediate_size": 4}
    )
    vivit = transformers.VivitModel(config).eval()
    cases = (
        (net, torch.randn(2, 3, 6, 8, 10), "2", {}, lambda y: y[:, :, 1, 2, 2], (1, 2, 2), 0),
        (vivit, torch.randn(2, 8, 3, 16, 16), "layernorm", {"grid": (4, 4, 4), "n_probes": 600},
         lambda y: y[:, 1 + (2 * 4 + 2) * 4 + 2], None, 1),
    )  # fmt: skip
    for model, x, layer, options, unit, position, axis in cases:
        found = repsim.effective_receptive_field(
            model, [x[:1], x[1:]], [layer], position=position, **options, **QUIET
        )
        m = jacobian(model, x, layer, unit).sum(axis)  # over the channels of the input
        p, close = m / m.sum(), {"rtol": 1e-4 if "grid" not in options else 0.1}
        frames = torch.arange(len(p)).double()
        np.testing.assert_allclose(found.field[0], p.sum(0), **close, atol=1e-4)
        in_time = p.sum((1, 2))
        centre = (in_time * frames).sum()
        np.testing.assert_allclose(found.time_field[0], in_time, **close, atol=1e-4)
        np.testing.assert_allclose(found.centre_frame[0], centre, **close)
        sigma = (in_time * (frames - centre) ** 2).sum().sqrt()
        np.testing.assert_allclose(found.time_sigma[0], sigma, **close)
        assert found.field.sum().item() == pytest.approx(1)
    assert found.grid_frames.item() == 4
    repsim.plot.receptive_field(found)
    with pytest.raises(
        repsim.CaptureError, match=r"\(frames, rows, columns\), which must be given"
    ):
        repsim.effective_receptive_field(vivit, [x], ["layernorm"], **QUIET)
    with pytest.raises(repsim.CaptureError, match="65 tokens do not fit grid"):
        repsim.effective_receptive_field(vivit, [x], ["layernorm"], grid=(4, 4, 5), **QUIET)
    with pytest.raises(repsim.InputError, match="position must lie in every layer's grid"):
        repsim.effective_receptive_field(vivit, [x], ["layernorm"], grid=(4, 4, 4),
                                         position=(1, 1), **QUIET)  # fmt: skip
    with pytest.raises(repsim.InputError, match="which axis of a video holds its channels"):
        repsim.effective_receptive_field(net, [torch.randn(2, 3, 3, 8, 8)], ["2"], **QUIET)


def test_localisation_of_videos(transformers):
    """Maps, tokens with CLS, frames before and after the channels, and other patches."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(3, 32, (2, 4, 4), (2, 4, 4))).double()
    data = [torch.randn(n, 3, 6, 8, 12, dtype=torch.float64) for n in (16, 12)]
    found = repsim.token_localization(net, data, ["0"], **QUIET)
    with torch.no_grad():
        tokens = [net(x).flatten(2).transpose(1, 2).numpy() for x in data]
    values = localization.cka(tokens, [x.numpy() for x in data], 2, 3, frames=3)
    np.testing.assert_allclose(found.cka[0], values, atol=1e-12)
    assert found.hit_rate.item() == 1
    assert found.argmax_time_distance.item() == found.argmax_distance.item() == 0
    assert found.chance.item() == 1 / 18
    # Frames 0, 2, 4 apart along time; 4 pixels apart along height, 0, 4, 8 along width.
    assert found.chance_time_distance.item() == pytest.approx(2 * (1 + 2 + 1 + 1 + 1 + 2) / 9)
    places = [(4 * r, 4 * c) for r in range(2) for c in range(3)]
    apart = [np.hypot(a - c, b - d) for a, b in places for c, d in places]
    assert found.chance_distance.item() == pytest.approx(np.mean(apart))
    assert found.token_frame.values[0].tolist() == [t for t in range(3) for _ in range(6)]
    assert (found.attrs["grid"], found.attrs["patch_size"]) == ([3, 2, 3], [2, 4, 4])
    later = repsim.token_localization(
        nn.Sequential(Turned(), net), [x.transpose(1, 2) for x in data], ["1"], **QUIET
    )
    np.testing.assert_allclose(later.cka, found.cka, atol=1e-12)
    coarse = repsim.token_localization(net, data, ["0"], patches=(1, 2, 2), **QUIET)
    values = localization.cka(tokens, [x.numpy() for x in data], 2, 2, frames=1)
    np.testing.assert_allclose(coarse.cka[0], values, atol=1e-12)
    assert coarse.argmax_time_distance.item() == 0

    vivit = transformers.VivitModel(
        transformers.VivitConfig(**SMALL, tubelet_size=[2, 4, 4]), add_pooling_layer=False
    ).eval()
    x = torch.randn(24, 8, 3, 16, 16)
    with pytest.warns(repsim.DegenerateWarning, match="1 of 65 tokens"):  # CLS
        first = repsim.token_localization(vivit, [x], ["embeddings"], grid=(4, 4, 4), **QUIET)
    assert first.is_prefix.values.sum() == 1
    assert first.hit_rate.item() > 0.95
    for result in (first, found):
        ax = repsim.plot.localization(result)
        frames = result.attrs["grid"][0]
        assert f"frame {frames // 2 + 1} of {frames}" in ax.get_title()
        picture = np.asarray(ax.images[1].get_array())
        one = result.isel(layer=0)
        token = int(np.flatnonzero((one.token_frame == frames // 2) & (one.token_row == 0)
                                   & (one.token_column == 1))[0])  # fmt: skip
        seen = one.cka[token, one.patch_frame.values == frames // 2]
        np.testing.assert_array_equal(picture.ravel(), seen)


def test_localisation_of_videos_requires_the_grid(transformers):
    net, x = nn.Sequential(nn.Conv3d(3, 4, 2, 2)), torch.randn(4, 3, 8, 8, 8)
    with pytest.raises(repsim.InputError, match=r"Pass patches=\(frames, rows, columns\)"):
        repsim.token_localization(net, [x], ["0"], patches=4, **QUIET)
    with pytest.raises(repsim.InputError, match="which axis of a video holds its channels"):
        repsim.token_localization(net, [torch.randn(4, 3, 3, 8, 8)], ["0"], **QUIET)
    tokens = nn.Sequential(nn.Conv3d(3, 4, 2, 2), nn.Flatten(2), Turned())
    with pytest.raises(
        repsim.CaptureError, match=r"\(frames, rows, columns\), which must be given"
    ):
        repsim.token_localization(tokens, [x], ["2"], **QUIET)
