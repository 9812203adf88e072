"""Token localisation: plain loops, MinibatchCKA, models that must hit, a bound on memory."""

import copy
import warnings
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import repsim
from analysis.plain import Copy, activations, unchanged
from analysis.plain import images as smooth_images
from packages import timm, torchvision, transformers
from reference import localization as loops
from repsim import token_localization

SUMMARIES = ("hit_rate", "chance", "argmax_distance", "chance_distance")


def localize(model, data, layers, **options):
    return token_localization(model, data, layers, progress=False, **options)


def noise(count=2, n=8, size=16, channels=3, seed=1):
    """Images whose pixels, and therefore patches, are independent."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, channels, size, size, generator=generator) for _ in range(count)]


def embedding(d=64, patch=4):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, d, patch, stride=patch))


class Prefixed(nn.Module):
    """A patch embedding with a class token that sees everything, then a mixing of tokens."""

    def __init__(self, tokens=16, d=48, mixing=None):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Conv2d(3, d, 4, stride=4)
        self.joined = Copy()
        self.mixed = Copy()
        self.register_buffer("mixing", torch.eye(tokens + 1) if mixing is None else mixing)

    def forward(self, x):
        x = self.embed(input=x).flatten(2).transpose(1, 2)  # by keyword, as some models do
        x = self.joined(torch.cat([x.sum(1, keepdim=True), x], 1))
        return self.mixed(self.mixing @ x)


def tokens_of(model, data, layer):
    """Recorded outputs as (n, tokens, d) in float64, from (n, c, h, w) or (n, tokens, d)."""
    out = []
    for batch in data:
        shape = {}
        handle = model.get_submodule(layer).register_forward_hook(
            lambda _m, _a, y: shape.update(shape=y.shape)
        )
        flat = activations(model, lambda m, b=batch: m(b), len(batch))[layer]
        handle.remove()
        value = flat.reshape(shape["shape"])
        out.append(value.reshape(*value.shape[:2], -1).swapaxes(1, 2) if value.ndim == 4 else value)
    return out


# -- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["embed", "joined", "mixed"])
def test_plain_loops(layer):
    mixing = torch.softmax(2 * torch.randn(17, 17, generator=torch.Generator().manual_seed(0)), 1)
    net = Prefixed(mixing=mixing).double()
    data = [x.double() for x in [*noise(2, 9), *noise(1, 5, seed=2)]]
    with unchanged(net):
        result = localize(net, data, layer).isel(layer=0)
    values = loops.cka(tokens_of(net, data, layer), [x.numpy() for x in data], 4, 4)
    np.testing.assert_allclose(result.cka.values, values, rtol=0, atol=1e-12)
    prefix = len(values) - 16
    assert result.is_prefix.values.tolist() == [True] * prefix + [False] * 16
    for key, value in loops.hits(values, prefix, 4, 4, 16, 16).items():
        assert result[key].item() == pytest.approx(value, abs=1e-12), key


def test_one_pair_is_minibatch_cka():
    net, data = Prefixed(), noise(3, 12)
    result = localize(net, data, ["joined"]).cka.sel(layer="joined")
    for token, patch in ((0, 3), (5, 4), (16, 15), (7, 0)):
        acc = repsim.MinibatchCKA()
        r, c = divmod(patch, 4)
        for batch in data:
            with repsim.Recorder(net, "joined") as rec, torch.no_grad():
                net(batch)
            pixels = batch[:, :, 4 * r : 4 * r + 4, 4 * c : 4 * c + 4]
            acc.update({"token": rec["joined"][:, token]}, {"patch": pixels})
        expected = acc.compute().item()
        assert result.values[token, patch] == pytest.approx(expected, abs=1e-6)


@given(
    st.integers(1, 5), st.integers(1, 5), st.integers(5, 17), st.integers(5, 17), st.integers(0, 9)
)
def test_patches_that_do_not_divide_the_image(rows, columns, height, width, seed):
    rng = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.AdaptiveAvgPool2d((rows, columns))).double()
    x = torch.randn(6, 2, height, width, generator=rng, dtype=torch.float64)
    result = localize(net, [x], "0", channels_last=False).isel(layer=0)
    values = loops.cka(tokens_of(net, [x], "0"), [x.numpy()], rows, columns)
    np.testing.assert_allclose(result.cka.values, values, rtol=0, atol=1e-10)
    assert result.patch_height.item() == pytest.approx(height / rows)


@given(st.permutations(range(8)), st.integers(1, 3))
def test_order_of_samples_scale_and_shift_do_not_matter(order, scale):
    net = Prefixed().double()
    (x,) = noise(1, 8)
    x = x.double()
    before = localize(net, [x], "joined").cka.values
    with torch.no_grad():
        net.embed.weight *= scale
        net.embed.bias += 10.0
    after = localize(net, [x[list(order)]], "joined").cka.values
    np.testing.assert_allclose(after, before, atol=1e-9)


def test_features_far_from_zero_keep_their_digits():
    net = Prefixed()
    data = noise(1, 16)
    before = localize(net.double(), [data[0].double()], "joined").cka.values
    net = net.float()
    with torch.no_grad():
        net.embed.bias += 300.0
    np.testing.assert_allclose(localize(net, data, "joined").cka.values, before, atol=1e-4)


# -- hits ----------------------------------------------------------------------------------------


def test_a_patch_embedding_localises_perfectly():
    result = localize(embedding(), noise(2, 64), "0").isel(layer=0)
    assert result.hit_rate.item() == 1
    assert result.argmax_distance.item() == 0
    assert result.chance.item() == 1 / 16
    diagonal = np.diagonal(result.cka.values)
    assert diagonal.min() > 0.4
    assert np.abs(result.cka.values[~np.eye(16, dtype=bool)]).max() < 0.2
    assert result.patch_row.values.tolist() == np.repeat(range(4), 4).tolist()
    assert result.token_column.values.tolist() == list(range(4)) * 4


def test_an_independent_token_has_cka_zero():
    # The biased estimate would be about p/(n + p) = 0.43 for these.
    result = localize(embedding(d=48), noise(4, 64), "0").isel(layer=0)
    away = result.cka.values[~np.eye(16, dtype=bool)]
    assert abs(away.mean()) < 0.01


def test_a_permutation_of_tokens_is_found():
    order = torch.randperm(16, generator=torch.Generator().manual_seed(3))
    mixing = torch.eye(17)
    mixing[1:, 1:] = torch.eye(16)[order]
    model, data = Prefixed(mixing=mixing), noise(2, 64)
    result = localize(model, data, ["joined", "mixed"], grid={"mixed": 4})
    assert result.hit_rate.values.tolist() == [1, (order == torch.arange(16)).float().mean()]
    best = result.cka.sel(layer="mixed").values[1:].argmax(1)
    assert best.tolist() == order.tolist()
    rows, columns = np.divmod(best, 4)
    own = np.divmod(np.arange(16), 4)
    distance = 4 * np.hypot(rows - own[0], columns - own[1]).mean()
    assert result.argmax_distance.values[1] == pytest.approx(distance)


def test_globally_mixed_tokens_are_at_chance():
    torch.manual_seed(0)
    rates, distances = [], []
    for seed in range(20):
        orthogonal = torch.linalg.qr(torch.randn(17, 17))[0]
        result = localize(Prefixed(mixing=orthogonal), noise(1, 48, seed=seed), "mixed")
        rates.append(result.hit_rate.item())
        distances.append(result.argmax_distance.item())
    # By chance 20 ± 4.3 of the 320 tokens hit.
    assert np.mean(rates) == pytest.approx(1 / 16, abs=3 * 4.3 / 320)
    assert np.mean(distances) == pytest.approx(result.chance_distance.item(), rel=0.1)


def test_the_chance_distance_of_four_by_four():
    # Σ over pairs of √(a² + b²), the closed form of uniform attention, times the patch size.
    pairs = [np.hypot(a - c, b - d) for a, b, c, d in np.ndindex(4, 4, 4, 4)]
    result = localize(embedding(), noise(1), "0")
    assert result.chance_distance.item() == pytest.approx(4 * np.mean(pairs))


def test_maps_coarser_than_their_input_have_their_own_patches():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 24, 2, stride=2), nn.Conv2d(24, 64, 2, stride=2))
    result = localize(net, noise(2, 64), "*")
    assert result.hit_rate.values.tolist() == [1, 1]
    assert result.chance.values.tolist() == [1 / 64, 1 / 16]
    assert dict(result.cka.sizes) == {"layer": 2, "token": 64, "patch": 64}
    assert result.patch_height.values.tolist() == [2, 4]
    coarse = result.isel(layer=1)
    assert np.isfinite(coarse.cka.values[:16, :16]).all()
    assert np.isnan(coarse.cka.values[16:]).all()
    assert np.isnan(coarse.cka.values[:, 16:]).all()
    assert np.isnan(coarse.patch_row.values[16:]).all()
    assert np.isnan(coarse.token_row.values[16:]).all()
    assert not coarse.is_prefix.any()
    assert result.attrs["grid"] == result.attrs["patch_size"] == "per layer"


@pytest.mark.parametrize("patches", [(2, 2), (4, 4), (8, 8), (2, 4)])
def test_other_patches_than_the_grid(patches):
    net = embedding()
    result = localize(net, noise(2, 96), "0", patches=patches).isel(layer=0)
    assert result.sizes["patch"] == patches[0] * patches[1]
    assert result.chance.item() == 1 / (patches[0] * patches[1])
    if max(patches) <= 4:
        assert result.hit_rate.item() == 1
    else:  # the centre of a token lies on a corner of its four patches; any may be most similar
        assert result.argmax_distance.item() < np.sqrt(8) + 1e-9
        assert result.chance_distance.item() > 8
    data = noise(2, 96)
    values = loops.cka(tokens_of(net, [data[0][:6]], "0"), [data[0][:6].numpy()], *patches)
    few = localize(net, [data[0][:6]], "0", patches=patches)
    np.testing.assert_allclose(few.cka.values[0], values, atol=1e-5)


def test_a_tokens_own_patch_is_that_of_its_centre():
    # Rows 0, 1, 3, 4 of five lie in, or have three of four pixels in, rows 0, 1, 2, 3 of four;
    # row 2 lies in two.
    result = localize(embedding(), noise(2, 96, size=20), "0", patches=(4, 4))
    assert result.hit_rate.item() >= 16 / 25


# -- what is constant, short or not finite -------------------------------------------------------


def test_black_borders():
    data = noise(2, 64)
    for x in data:
        x[:, :, :4] = 0.3
    with pytest.warns(repsim.DegenerateWarning, match="constant over the samples") as caught:
        result = localize(embedding(), data, "0").isel(layer=0)
    assert len(caught) == 1
    assert "4 of 16 patches (0, 1, 2, 3) of '0'" in str(caught[0].message)
    assert "4 of 16 tokens (0, 1, 2, 3) of '0'" in str(caught[0].message)
    assert caught[0].filename == __file__
    assert np.isnan(result.cka.values[:4]).all()
    assert np.isnan(result.cka.values[:, :4]).all()
    assert np.isfinite(result.cka.values[4:, 4:]).all()
    assert result.hit_rate.item() == 1
    assert result.chance.item() == 1 / 12


def test_features_whose_squares_vanish_are_nan_and_named():
    data, net = noise(1, 32), embedding()
    right = localize(net, data, "0").cka.values
    for power in range(-82, -56, 2):  # digit by digit, until all are there
        small = copy.deepcopy(net)
        for parameter in small.parameters():
            parameter.data.mul_(2.0**power)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            values = localize(small, data, "0").cka.values
        usable = ~np.isnan(values)
        np.testing.assert_allclose(values[usable], right[usable], atol=2e-6)
        assert usable.all() == (not caught)
        assert all("where squares vanish" in str(each.message) for each in caught)
    assert usable.all()


def test_tokens_that_see_more_than_a_constant_patch_of_their_own():
    # All tokens vary, so they have an argmax, but those of the border cannot hit.
    data = noise(1, 32)
    data[0][:, :, :4] = 0
    mixing = torch.linalg.qr(torch.randn(17, 17, generator=torch.Generator().manual_seed(0)))[0]
    with pytest.warns(repsim.DegenerateWarning, match="4 of 16 patches"):
        result = localize(Prefixed(mixing=mixing), data, "mixed").isel(layer=0)
    values = result.cka.values
    assert np.isfinite(values[:, 4:]).all()
    for key, value in loops.hits(values, 1, 4, 4, 16, 16).items():
        assert result[key].item() == pytest.approx(value), key
    assert np.isclose(result.hit_rate.item() * 12 % 1, 0)


def test_nothing_varies():
    data = [torch.ones(8, 3, 16, 16)]
    with pytest.warns(repsim.DegenerateWarning):
        result = localize(embedding(), data, "0").isel(layer=0)
    assert np.isnan(result.cka).all()
    assert all(np.isnan(result[key]) for key in SUMMARIES)


def test_short_batches_are_skipped_and_reported():
    net, data = embedding(), noise(2, 8)
    expected = localize(net, data, "0")
    with pytest.warns(repsim.RepsimWarning, match=r"2 batch\(es\) of fewer than 4 .*\(4 samples"):
        result = localize(net, [data[0][:3], data[0], data[1], data[1][:1]], "0")
    np.testing.assert_array_equal(result.cka, expected.cka)
    assert result.attrs["n_samples"] == 16
    assert result.attrs["n_batches"] == 2
    assert result.attrs["n_skipped_batches"] == 2
    assert result.attrs["n_skipped_samples"] == 4
    with pytest.raises(repsim.StateError, match="nothing to compute from"):
        localize(net, [data[0][:3]], "0")


def test_a_batch_counts_for_its_products():
    # Repeating a batch changes nothing; two batches are weighted by their samples.
    net, (a, b) = embedding(), noise(2, 8)
    one, twice = (localize(net, batches, "0").cka for batches in ([a], [a, a]))
    np.testing.assert_allclose(one, twice, atol=1e-12)
    both, other = (localize(net, batches, "0").cka for batches in ([a, b], [b, a]))
    np.testing.assert_allclose(both, other, atol=1e-12)
    assert np.abs(both - one).max() > 0.01


def test_not_finite():
    net, data = Prefixed(), noise(2)
    bad = data[1].clone()
    bad[3, 1, 9, 9] = float("inf")
    with pytest.raises(repsim.NonFiniteError, match=r"image patch 10, batch 1"):
        localize(net, [data[0], bad], "joined")
    with torch.no_grad():
        net.mixing[5, 5] = float("nan")
    with pytest.raises(repsim.NonFiniteError, match=r"layer 'mixed', token 5, batch 0"):
        localize(net, data, ["joined", "mixed"])


# -- memory --------------------------------------------------------------------------------------


class LiveBytes(TorchDispatchMode):
    """The bytes of all tensors made inside the block that are alive at a time, at most."""

    def __init__(self):
        super().__init__()
        self.alive, self.peak, self.largest = 0, 0, 0
        self.known = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = {
            t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if torch.is_tensor(t)
        }
        for tensor in tree_leaves(out):
            if torch.is_tensor(tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self.known and key not in given:
                    self._born(storage, key)
        return out

    def _born(self, storage, key):
        size = storage.nbytes()
        self.known[key] = size
        self.alive += size
        self.peak = max(self.peak, self.alive)
        self.largest = max(self.largest, size)

        def gone():
            self.alive -= self.known.pop(key)

        weakref.finalize(storage, gone)


@pytest.mark.slow
@pytest.mark.parametrize("n", [64, 384])
@pytest.mark.parametrize("part", [1.01, 2.0, 6.0, 1000.0])
def test_memory_is_held_and_moves_no_value(n, part):
    net, (x,) = embedding(d=8), noise(1, n)
    needed = 4 * n * n * 8 + 2 * (4 * n * n + 16 * min(n * n, 1 << 16)) + 4 * n * 2 * 48
    expected = localize(net, [x], "0").cka.values
    memory = int(part * needed)
    with LiveBytes() as live:
        result = localize(net, [x], "0", memory=memory)
    np.testing.assert_allclose(result.cka.values, expected, atol=1e-6)
    # Beside the Grams there are the activation, and a block of it.
    assert live.peak <= memory + 4 * x.nbytes
    assert live.largest <= memory
    if part == 1000.0:
        assert live.peak > 20 * n * n * 4  # it counts what is there


def test_too_little_memory_is_an_error_with_the_size():
    net, data = embedding(), noise(1, 64)
    with pytest.raises(repsim.InputError, match=r"memory must hold two Gram.*\n  n=64: 0\.344 MiB"):
        localize(net, data, "0", memory=100_000)
    with pytest.raises(repsim.InputError, match="memory must be a positive integer"):
        localize(net, data, "0", memory="1GB")
    fine = nn.Sequential(Copy())
    with pytest.raises(repsim.InputError, match="the result must fit into memory"):
        localize(fine, [torch.randn(4, 3, 128, 128)], "0", memory=1 << 24)


# -- real models ---------------------------------------------------------------------------------


def check(result, layers, tokens, patches):
    assert result.layer.values.tolist() == layers
    assert dict(result.cka.sizes) == {"layer": len(layers), "token": tokens, "patch": patches}
    assert np.nanmax(np.abs(result.cka)) < 1 + 1e-6
    for key in SUMMARIES:
        assert np.isfinite(result[key]).all()


def tiny_vit(**options):
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, num_classes=5, **options
    )


@pytest.mark.parametrize(
    ("options", "prefix"),
    [({}, 1), ({"class_token": False, "global_pool": "avg"}, 0), ({"reg_tokens": 3}, 4)],
)
def test_timm_vit(options, prefix):
    net, data = tiny_vit(**options), noise(2, 48, size=32)
    layers = ["patch_embed", "blocks.0.attn", "blocks.0", "blocks.1"]
    with unchanged(net):
        result = localize(net, data, layers)
    check(result, layers, 16 + prefix, 16)
    assert result.is_prefix.sum("token").values.tolist() == [0] + [prefix] * 3
    assert result.hit_rate.values[0] == result.hit_rate.values[2] == 1
    assert result.attrs["grid"] == [4, 4]
    assert result.attrs["patch_size"] == [8.0, 8.0]
    # The branch alone has no skip to keep its place by.
    assert np.diag(result.cka.values[1, prefix:]).max() < 0.5 * result.cka.values[2].max()


def test_class_tokens_before_the_first_attention_are_constant():
    with pytest.warns(repsim.DegenerateWarning, match=r"1 of 17 tokens \(0\) of 'norm_pre'"):
        result = localize(tiny_vit(), noise(2, 48, size=32), ["norm_pre"])
    assert np.isnan(result.cka.values[0, 0]).all()
    assert result.hit_rate.item() == 1


def test_torchvision_resnet():
    torch.manual_seed(0)
    net = torchvision.models.resnet18(num_classes=5)
    layers = ["conv1", "layer1", "layer2", "layer3"]
    with unchanged(net):
        result = localize(net, noise(1, 32, size=32), layers)
    check(result, layers, 256, 256)
    assert result.patch_height.values.tolist() == [2, 4, 8, 16]
    assert (result.hit_rate > 3 * result.chance)[:2].all()
    values = loops.cka(
        [t[:6] for t in tokens_of(net, noise(1, 32, size=32), "layer3")],
        [noise(1, 32, size=32)[0][:6].numpy()], 2, 2,
    )  # fmt: skip
    six = localize(net, [noise(1, 32, size=32)[0][:6]], "layer3")
    np.testing.assert_allclose(six.cka.values[0], values, atol=1e-4)


def test_shifted_windows_and_convnext():
    torch.manual_seed(0)
    net = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=32, window_size=4, embed_dim=12,
        depths=(2, 2), num_heads=(2, 2), num_classes=5,
    )  # fmt: skip
    layers = ["patch_embed", "layers.0.blocks.0", "layers.1"]
    check(localize(net, noise(1, 32, size=32), layers), layers, 64, 64)
    net = timm.create_model("convnext_atto", dims=(10, 12, 16, 20), depths=(1, 1, 1, 1))
    layers = ["stem", "stages.0.blocks.0.mlp", "stages.0", "stages.1"]
    result = localize(net, noise(1, 32, size=32), layers)
    check(result, layers, 64, 64)
    assert result.grid_height.values.tolist() == [8, 8, 8, 4]
    assert result.hit_rate.values[0] > 0.9


def test_hugging_face_with_mappings_and_integers():
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        image_size=32, patch_size=8,
    )  # fmt: skip
    net = transformers.ViTModel(config)
    blocks = [name for name, _ in net.named_modules() if name.endswith(("layer.0", "layers.0"))]
    data = smooth_images(2, 16)
    with unchanged(net):
        result = localize(net, [{"pixel_values": x} for x in data], blocks, name="mine")
    check(result, blocks, 17, 16)
    assert result.attrs["model"] == "mine"
    assert result.is_prefix.values.tolist() == [[True] + [False] * 16]

    # Integers that the caller's forward turns into floats: a patch is the same up to its scale.
    def forward(model, batch):
        return model(pixel_values=batch.float() / 64 - 2)

    bytes_ = [((x + 2) * 64).clamp(0, 255).to(torch.uint8) for x in data]
    floats = localize(net, [{"pixel_values": x.float() / 64 - 2} for x in bytes_], blocks)
    same = localize(net, bytes_, blocks, forward=forward)
    np.testing.assert_allclose(same.cka, floats.cka, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    net, data = Prefixed(), noise(2, 32)
    exact = localize(net, data, "joined")
    result = localize(net.to(dtype), [x.to(dtype) for x in data], "joined")
    assert result.cka.dtype == np.float64
    np.testing.assert_allclose(result.cka, exact.cka, atol=0.02)
    assert result.hit_rate.item() == 1
    # The activation is in half precision; the result is not.
    few = data[0][:8].to(dtype)
    values = loops.cka(tokens_of(net, [few], "joined"), [few.double().numpy()], 4, 4)
    result = localize(net, [few], "joined").isel(layer=0)
    np.testing.assert_allclose(result.cka.values, values, atol=1e-5)


def test_the_model_comes_back_unchanged():
    net = tiny_vit()
    net.train()
    net.blocks[0].eval()
    data = noise(1, 8, size=32)
    with unchanged(net):
        localize(net, data, "blocks.*.attn")
        with pytest.raises(repsim.CaptureError, match="positions of layer 'head' are unknown"):
            localize(net, data, ["blocks.0", "head"])
        with pytest.raises(repsim.InputError, match="memory must hold"):
            localize(net, data, ["blocks.0"], memory=10_000)
    with torch.inference_mode():
        localize(net, data, "blocks.0")


# -- results and errors --------------------------------------------------------------------------


def test_labels_units_and_files(tmp_path):
    result = localize(Prefixed(), noise(1), "*", all_modules=True)
    assert result.layer.values.tolist() == ["embed", "joined", "mixed"]
    assert result.cka.attrs["units"] == "1"
    assert result.argmax_distance.attrs["units"] == "pixels"
    assert result.patch_height.attrs == {"long_name": "height of a patch", "units": "pixels"}
    assert {"repsim_version", "torch_version"} <= result.attrs.keys()
    assert result.attrs["model"] == "Prefixed"
    assert result.attrs["estimator"] == "minibatch unbiased"
    result.to_netcdf(tmp_path / "localization.nc", engine="scipy")


def test_wrong_arguments():
    net, data = embedding(), noise(1)
    with pytest.raises(
        repsim.InputError, match=r"patches must be the number of patches along height and width"
    ):
        localize(net, data, "0", patches=(0, 2))
    with pytest.raises(repsim.InputError, match="a patch must hold at least one pixel"):
        localize(net, data, "0", patches=(17, 2))
    with pytest.raises(repsim.InputError, match="must be a torch.nn.Module"):
        localize("resnet18", data, "0")
    with pytest.raises(repsim.InputError, match="must hold images"):
        localize(net, [torch.randn(8, 3)], "0")
    with pytest.raises(repsim.InputError, match="Texts have no pixels"):
        localize(net, [{"input_ids": torch.ones(8, 3, dtype=torch.long)}], "0")
    with pytest.raises(repsim.InputError, match="images and grids must stay the same"):
        localize(net, [*data, torch.randn(8, 3, 20, 20)], "0")


def test_layers_that_come_and_go():
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.AvgPool2d(4), nn.Tanh()

        def forward(self, x):
            return self.b(self.a(x)) if len(x) == 8 else self.a(x)

    with pytest.raises(repsim.InputError, match=r"layers of the first.\n  missing: \['b'\]"):
        localize(Sometimes(), [*noise(1, 8), *noise(1, 9)], "*")


def test_samples_are_counted_where_only_a_part_is_called():
    class Doubled(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.AvgPool2d(4)

        def part(self, x):
            return self.a(x.repeat(2, 1, 1, 1))

    with pytest.raises(repsim.CaptureError, match="2 rows of each sample"):
        localize(Doubled(), noise(), "a", forward=lambda m, x: m.part(x))


class SequenceFirst(nn.Module):
    """Tokens before samples, beside a table of positions as long as the batch of 16 images."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Conv2d(3, 48, 4, stride=4)
        self.table = nn.Embedding(16, 48)
        self.tokens = Copy()
        self.windows = Copy()

    def forward(self, x):
        x = self.embed(x).flatten(2).permute(2, 0, 1)
        x = self.tokens(x + self.table(torch.arange(16))[:, None])
        return self.windows(x.transpose(0, 1).reshape(-1, 4, 48))


@pytest.mark.parametrize("analysis", [token_localization, repsim.effective_receptive_field])
def test_samples_are_found_where_tokens_are_as_many(analysis):
    """16 images of 16 tokens: sizes cannot tell them apart."""
    net, data = SequenceFirst(), noise(1, 16)
    found = analysis(net, data, ["tokens"], progress=False)
    if analysis is token_localization:
        assert found.hit_rate.item() == 1
        expected = analysis(net, data, ["tokens"], batch_dim=1, progress=False)
        np.testing.assert_allclose(found.cka, expected.cka, atol=1e-6)
    else:
        assert found.field.values[0].sum() == pytest.approx(1)
        assert (found.field.values[0] > 0).sum() == 16  # a patch of 4 × 4 pixels
    with (
        pytest.warns(repsim.RepsimWarning, match=r"windows .*: 4 rows of each sample"),
        pytest.warns(repsim.RepsimWarning, match=r"table .* follows no sample"),
    ):
        found = analysis(net, data, "*", progress=False)
    assert "table" not in found.layer
    with pytest.raises(repsim.CaptureError, match="follows no sample"):
        analysis(net, data, ["table"], progress=False)
