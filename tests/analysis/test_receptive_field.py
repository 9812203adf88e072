"""Effective receptive fields: closed forms, full Jacobians, probes, real models, as found."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint

import repsim
from analysis.plain import images, unchanged
from packages import timm, torchvision, transformers
from reference import receptive_field as loops
from repsim import effective_receptive_field

SUMMARIES = ("participation_area", "sigma", "side", "mass", "centre_row", "centre_column")


def erf(model, data, layers, **options):
    return effective_receptive_field(model, data, layers, progress=False, **options)


def ones(n, k, channels=1):
    """n all-ones convolutions of size k that keep the resolution."""
    net = nn.Sequential(
        *(
            nn.Conv2d(channels if i else 1, channels, k, padding=k // 2, bias=False)
            for i in range(n)
        )
    )
    for conv in net:
        nn.init.ones_(conv.weight)
    return net


def jacobians(model, data, unit):
    """The Jacobian (c, i, rows, columns) of ``unit(model, image)`` for each image, by autograd."""
    model = model.eval().double()
    out = []
    for batch in data:
        for image in batch.double():
            full = torch.autograd.functional.jacobian(lambda x: unit(model, x[None])[0], image)
            out.append(full.numpy())
    return out


# -- closed forms --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["rademacher", "sum"])
@pytest.mark.parametrize(("n", "k"), [(1, 3), (2, 3), (4, 3), (2, 5), (1, 7)])
def test_convolutions_of_ones(n, k, mode):
    result = erf(ones(n, k), [torch.randn(3, 1, 19, 19)], str(n - 1), mode=mode).isel(layer=0)
    expected = loops.ones_convolutions(n, k, 19)
    np.testing.assert_allclose(result.field.values, expected / expected.sum(), atol=1e-7)
    assert result.sigma.item() == pytest.approx(np.sqrt(n * (k**2 - 1) / 6), rel=1e-6)
    assert result.mass.item() == pytest.approx(k ** (2 * n), rel=1e-6)
    assert (result.centre_row.item(), result.centre_column.item()) == pytest.approx((9, 9))


def test_two_threes():
    result = erf(ones(2, 3), [torch.randn(2, 1, 15, 15)], "1").isel(layer=0)
    line = np.array([1, 2, 3, 2, 1])
    inner = result.field.values[5:10, 5:10]
    np.testing.assert_allclose(inner, np.outer(line, line) / 81, atol=1e-7)
    assert result.participation_area.item() == pytest.approx(6561 / 361, rel=1e-6)
    assert result.side.item() == 5  # the corners have 1/9 of the maximum


def test_the_side_covers_the_share_within_two_sigma():
    # 1×1 convolution after a fixed blur whose corners lie above and below the threshold.
    net = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    with torch.no_grad():
        net.weight[:] = torch.tensor([[0.045, 0.5, 0.046], [0.5, 1, 0.5], [0.046, 0.5, 0.045]])
    result = erf(nn.Sequential(net), [torch.randn(1, 1, 9, 9)], "0")
    assert result.side.item() == pytest.approx(np.sqrt(7))


@pytest.mark.parametrize("position", [(0, 0), (2, 5), (7, 7)])
def test_a_unit_elsewhere(position):
    result = erf(ones(1, 3), [torch.randn(2, 1, 8, 8)], "0", position=position).isel(layer=0)
    row, column = position
    assert result.field.values[row, column] > 0
    np.testing.assert_array_equal(
        np.argwhere(result.field.values > 0).min(0), np.maximum(np.array(position) - 1, 0)
    )
    assert (result.unit_row.item(), result.unit_column.item()) == position
    assert result.attrs["position"] == f"{row}, {column}"


def test_the_centre_is_half_the_size_rounded_down():
    net = nn.Sequential(nn.Identity())
    result = erf(net, [torch.randn(2, 3, 6, 9)], "0").isel(layer=0)
    assert np.argwhere(result.field.values > 0).tolist() == [[3, 4]]
    assert result.mass.item() == pytest.approx(3)  # one for each input channel
    assert result.sigma.item() == pytest.approx(0, abs=1e-6)
    assert (result.participation_area.item(), result.side.item()) == (1, 1)


# -- against full Jacobians ----------------------------------------------------------------------


class Small(nn.Module):
    """Convolution, norm and nonlinearity with an in-place operation right after each."""

    def __init__(self, channels=24):
        super().__init__()
        self.first = nn.Conv2d(2, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, stride=2)

    def forward(self, x):
        x = self.first(x)
        x = x.mul_(2).relu_()
        x = self.second(x)
        return x.tanh_().mean((2, 3))


@pytest.fixture
def small():
    torch.manual_seed(0)
    return Small()


@pytest.fixture
def few():
    torch.manual_seed(1)
    return [torch.randn(3, 2, 10, 12), torch.randn(2, 2, 10, 12)]


UNITS = {
    "first": lambda m, x: m.first(x)[:, :, 5, 6],
    "second": lambda m, x: m.second((2 * m.first(x)).relu())[:, :, 2, 3],
}


@pytest.mark.parametrize("layer", UNITS)
def test_the_sum_is_that_of_the_jacobian(small, few, layer):
    result = erf(small, few, layer, mode="sum").isel(layer=0)
    m = loops.field(jacobians(small, few, UNITS[layer]), "sum")
    np.testing.assert_allclose(result.field.values, m / m.sum(), atol=1e-6)
    for key, value in loops.summaries(m).items():
        assert result[key].item() == pytest.approx(value, rel=1e-5), key


@pytest.mark.slow
@pytest.mark.parametrize("layer", UNITS)
def test_probes_approach_the_jacobian(small, few, layer):
    m = loops.field(jacobians(small, few, UNITS[layer]))
    small.float()

    def error(k):
        result = erf(small, few, layer, n_probes=k).isel(layer=0)
        inside = m > 0.01 * m.max()
        gap = (result.field.values[inside] / m[inside]) * m.sum() - 1
        assert (result.field.values[m == 0] == 0).all()
        # Low by 1/(4K) in expectation, and by chance by some more.
        assert result.mass.item() == pytest.approx(m.sum(), rel=0.02 + 0.5 / k)
        return np.sqrt(np.mean(gap**2))

    assert error(16) < 0.1
    assert error(1024) < 0.02
    assert error(1) > 0.15  # so the bounds above say something


def test_the_summaries_are_those_of_the_field(small, few):
    result = erf(small, few, ["first", "second"])
    for layer in result.layer.values:
        one = result.sel(layer=layer)
        for key, value in loops.summaries(one.field.values * one.mass.item()).items():
            assert one[key].item() == pytest.approx(value, rel=1e-9), (layer, key)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 3))
def test_batch_sizes_and_other_layers_do_not_matter(sizes, seed):
    torch.manual_seed(seed)
    net, x = Small(4).double(), torch.randn(sum(sizes), 2, 6, 6).double()
    whole = erf(net, [x], "second", n_probes=3, seed=seed)
    parts = erf(net, x.split(sizes), ["first", "second"], n_probes=3, seed=seed)
    np.testing.assert_allclose(
        parts.field.sel(layer="second"), whole.field.sel(layer="second"), rtol=1e-9
    )
    assert whole.attrs["n_samples"] == parts.attrs["n_samples"] == sum(sizes)
    assert parts.attrs["n_batches"] == len(sizes)


def test_the_seed_draws_other_signs(small, few):
    one, same, other = (erf(small, few, "second", seed=s).field.values for s in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3 * one.max()


@given(st.floats(1e-3, 1e3))
def test_the_field_does_not_depend_on_the_scale(scale):
    torch.manual_seed(0)
    net, x = Small(4).double(), torch.randn(2, 2, 6, 6).double()
    before = erf(net, [x], "first")
    with torch.no_grad():
        net.first.weight *= scale
    after = erf(net, [x], "first")
    np.testing.assert_allclose(after.field, before.field, rtol=1e-9)
    np.testing.assert_allclose(after.mass, before.mass * scale, rtol=1e-9)


# -- what the sum does not see -------------------------------------------------------------------


class Normed(nn.Module):
    """A patch embedding, a token mixer that reaches the neighbours, a LayerNorm."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 32, 4, stride=4)
        self.mix = nn.Conv2d(32, 32, 3, padding=1)
        self.norm = nn.LayerNorm(32)

    def forward(self, x):
        x = self.mix(self.embed(x))
        return self.norm(x.flatten(2).transpose(1, 2))


def test_after_a_layer_norm_the_sum_is_noise_and_probes_are_not():
    torch.manual_seed(0)
    net, data = Normed(), [torch.randn(4, 3, 20, 20)]
    wanted = ["mix", "norm"]
    probes, sums = erf(net, data, wanted), erf(net, data, wanted, mode="sum")
    reach = np.zeros((20, 20), bool)
    reach[4:16, 4:16] = True
    assert (probes.field.sel(layer="norm").values[reach] > 0).all()
    np.testing.assert_allclose(probes.field.sel(layer="norm").values[~reach], 0, atol=1e-12)
    # The norm divides by a number for each unit: probes keep the scale, and the sum vanishes.
    assert 0.3 < float(probes.mass[1] / probes.mass[0] / (sums.mass[0] / sums.mass[0])) < 30
    assert float(sums.mass[1]) < 1e-4 * float(probes.mass[1])
    # It still looks like a map, but in double precision it is another one.
    again = erf(net.double(), [data[0].double()], wanted, mode="sum")
    assert float(again.mass[1]) < 1e-6 * float(sums.mass[1])
    exact = erf(net, [data[0].double()], wanted)
    np.testing.assert_allclose(exact.field, probes.field, rtol=1e-3, atol=1e-9)


# -- real models ---------------------------------------------------------------------------------


def tiny_vit(**options):
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, num_classes=5, **options
    )


def check(result, layers, size=32):
    assert result.layer.values.tolist() == layers
    assert dict(result.field.sizes) == {"layer": len(layers), "row": size, "column": size}
    np.testing.assert_allclose(result.field.sum(("row", "column")), 1, rtol=1e-9)
    for key in SUMMARIES:
        assert np.isfinite(result[key]).all()
    assert (result.sigma < size).all()
    assert (result.participation_area <= size**2 * (1 + 1e-9)).all()


@pytest.mark.parametrize("options", [{}, {"class_token": False, "global_pool": "avg"}])
def test_timm_vit(options):
    net, data = tiny_vit(**options), images(1, 3)
    layers = ["patch_embed", "blocks.0.attn", "blocks.0.mlp", "blocks.0", "blocks.1"]
    with unchanged(net):
        result = erf(net, data, layers, n_probes=2)
    check(result, layers)
    assert result.grid_height.values.tolist() == [4] * 5
    patch = np.zeros((32, 32), bool)
    patch[16:24, 16:24] = True
    embedded = result.field.sel(layer="patch_embed").values
    assert embedded[~patch].max() == 0
    assert embedded[patch].min() > 0
    # After the residual sum the own patch weighs more than in the branch alone.
    own = result.field.values[:, patch].sum(1)
    assert own[3] > 2 * own[1]


def test_torchvision_resnet():
    torch.manual_seed(0)
    net, data = torchvision.models.resnet18(num_classes=5), images(2, 2, size=64)
    layers = ["conv1", "layer1.0", "layer2.0", "layer3.0"]
    with unchanged(net):
        result = erf(net, data, layers, n_probes=2)
    check(result, layers, 64)
    assert (np.diff(result.sigma.values) > 0).all()
    assert result.grid_height.values.tolist() == [32, 16, 8, 4]
    seven = np.argwhere(result.field.sel(layer="conv1").values > 0)
    assert (seven.min(0).tolist(), seven.max(0).tolist()) == ([29, 29], [35, 35])


def test_shifted_windows():
    torch.manual_seed(0)
    net = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=32, window_size=4, embed_dim=12,
        depths=(2, 2), num_heads=(2, 2), num_classes=5,
    )  # fmt: skip
    layers = ["patch_embed", "layers.0.blocks.0", "layers.0.blocks.1", "layers.1"]
    with unchanged(net):
        result = erf(net, images(1, 2), layers, n_probes=4)
    check(result, layers)
    assert result.grid_height.values.tolist() == [8, 8, 8, 4]
    # The centre (4, 4) of 8×8 is the first of its window, 16 to 31; shifted windows reach 8 to 23.
    window = np.argwhere(result.field.sel(layer="layers.0.blocks.0").values > 0)
    assert (window.min(0).tolist(), window.max(0).tolist()) == ([16, 16], [31, 31])
    shifted = np.argwhere(result.field.sel(layer="layers.0.blocks.1").values > 0)
    assert shifted.min() < 16


def test_torchvision_swin_and_convnext():
    torch.manual_seed(0)
    swin = torchvision.models.SwinTransformer(
        patch_size=[4, 4], embed_dim=12, depths=[2], num_heads=[2], window_size=[4, 4],
        num_classes=5,
    )  # fmt: skip
    check(erf(swin, images(1, 2), "features.1.1", n_probes=2), ["features.1.1"])
    net = timm.create_model("convnext_atto", dims=(10, 12, 16, 20), depths=(1, 1, 1, 1))
    layers = ["stem", "stages.0.blocks.0.mlp", "stages.0.blocks.0", "stages.1"]
    result = erf(net, images(1, 2), layers, n_probes=2)
    check(result, layers)
    assert result.grid_height.values.tolist() == [8, 8, 8, 4]


def hugging_face(kind="ViT"):
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        image_size=32, patch_size=8,
    )  # fmt: skip
    return getattr(transformers, f"{kind}Model")(config)


def test_hugging_face_by_keyword():
    net = hugging_face()
    data = [{"pixel_values": x} for x in images(2, 2)]
    blocks = [name for name, _ in net.named_modules() if name.endswith(("layer.0", "layers.0"))]
    with unchanged(net):
        result = erf(net, data, blocks, n_probes=2, name="mine")
    check(result, blocks)
    assert result.attrs["model"] == "mine"
    # A model that is not called itself, in the caller's own forward.
    other = erf(net, images(2, 2), blocks, n_probes=2, forward=lambda m, x: m(pixel_values=x * 1.0))
    np.testing.assert_allclose(other.field, result.field, rtol=1e-5)


def test_parts_of_a_model_in_the_callers_forward():
    net, data = tiny_vit(), images(1, 2)
    whole = erf(net, data, "blocks.1", n_probes=2)
    part = erf(net, data, "blocks.1", n_probes=2, forward=lambda m, x: m.forward_features(x))
    np.testing.assert_array_equal(part.field, whole.field)


def test_merged_patches_of_hugging_face_swin():
    torch.manual_seed(0)
    config = transformers.SwinConfig(
        image_size=32, patch_size=4, embed_dim=12, depths=[1, 1], num_heads=[2, 2], window_size=4
    )
    net = transformers.SwinModel(config)
    stages = [f"encoder.layers.{i}" for i in range(2)]
    result = erf(net, [{"pixel_values": x} for x in images(1, 2)], stages, n_probes=2)
    assert result.grid_height.values.tolist() == [4, 4]  # a stage ends with its merging
    check(result, stages)


# -- modes that torch may be in ------------------------------------------------------------------


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_inside_modes_without_gradients(small, few, mode):
    expected = erf(small, few, "second")
    with mode():
        result = erf(small, few, "second")
        inside = erf(small, [x.clone() for x in few], "second")
    np.testing.assert_array_equal(result.field, expected.field)
    np.testing.assert_array_equal(inside.field, expected.field)


def test_parameters_come_back_with_their_flags_and_gradients(small, few):
    small.first.weight.requires_grad_(False)
    small.train()
    small.second.eval()
    small.second.bias.grad = torch.ones(24)
    with unchanged(small):
        erf(small, few, "*", n_probes=1)
        with pytest.raises(repsim.InputError, match="position must lie"):
            erf(small, few, "*", n_probes=1, position=(9, 9))
    assert torch.equal(small.second.bias.grad, torch.ones(24))
    assert [p.requires_grad for p in small.parameters()] == [False, True, True, True]
    assert not any(x.requires_grad for x in few)


def test_a_model_that_works_in_place_on_its_input(few):
    class Standardised(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Conv2d(2, 4, 3, padding=1)

        def forward(self, x):
            return self.body(x.sub_(0.5).div_(2))

    torch.manual_seed(0)
    net, before = Standardised(), [x.clone() for x in few]
    result = erf(net, few, "body")
    halved = erf(nn.Sequential(net.body), few, "0", name="body")
    assert result.mass.item() == pytest.approx(halved.mass.item() / 2, rel=0.1)
    assert all(map(torch.equal, few, before))


class Checkpointed(Small):
    def forward(self, x):
        def body(x):
            return self.second(self.first(x).mul_(2).relu_())

        return checkpoint(body, x, use_reentrant=False).tanh_()


def test_activation_checkpointing(small, few):
    net = Checkpointed()
    net.load_state_dict(small.state_dict())
    wanted = ["first", "second"]
    result, expected = erf(net, few, wanted), erf(small, few, wanted)
    np.testing.assert_allclose(result.field, expected.field, rtol=1e-6)


def test_a_backward_that_fails_is_an_error_that_names_the_layer(few):
    class Freed(nn.Module):
        def forward(self, x):
            return x + checkpoint(nn.functional.relu, x, use_reentrant=True)

    net = nn.Sequential(nn.Conv2d(2, 2, 3), Freed())
    with pytest.raises(
        repsim.CaptureError, match="(?s)gradient of layer '1' could not.*torch: .*FSDP"
    ):
        erf(net, few, "1")

    class Full(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, _gradient):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    class Wide(nn.Module):
        def forward(self, x):
            return Full.apply(x)

    net = nn.Sequential(nn.Conv2d(2, 2, 3), Wide())
    with pytest.raises(RuntimeError, match="^DefaultCPUAllocator"):  # it has another repair
        erf(net, few, "1")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(few, dtype):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.GELU())
    exact = erf(net, few, "1")
    result = erf(net.to(dtype), [x.to(dtype) for x in few], "1")
    assert result.field.dtype == np.float64
    np.testing.assert_allclose(result.field, exact.field, atol=0.02 * float(exact.field.max()))


def test_autocast(few):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.GELU())

    def forward(model, batch):
        with torch.autocast("cpu", torch.bfloat16):
            return model(batch)

    exact = erf(net, few, "1")
    result = erf(net, few, "1", forward=forward)
    np.testing.assert_allclose(result.field, exact.field, atol=0.02 * float(exact.field.max()))


# -- results -------------------------------------------------------------------------------------


def test_labels_units_and_files(small, few, tmp_path):
    result = erf(small, few, "*", n_probes=2)
    assert result.layer.values.tolist() == ["first", "second"]
    assert result.attrs["erf_mode"] == "rademacher"
    assert result.attrs["n_probes"] == 2
    assert result.attrs["model"] == "Small"
    assert result.attrs["position"] == "centre"
    assert {"repsim_version", "torch_version"} <= result.attrs.keys()
    assert result.sigma.attrs["units"] == result.side.attrs["units"] == "pixels"
    assert all(v.dtype == np.float64 for v in result.data_vars.values())
    assert erf(small, few, "first", mode="sum").attrs["n_probes"] == 1
    result.to_netcdf(tmp_path / "field.nc", engine="scipy")


def test_calls_of_one_module_are_layers():
    conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    nn.init.ones_(conv.weight)

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv

        def forward(self, x):
            return self.conv(self.conv(x))

    result = erf(Twice(), [torch.randn(2, 1, 9, 9)], "*")
    assert result.layer.values.tolist() == ["conv:0", "conv:1"]
    np.testing.assert_allclose(result.sigma**2, [8 / 6, 16 / 6], rtol=1e-6)
    assert erf(Twice(), [torch.randn(2, 1, 9, 9)], "conv:1").layer.values.tolist() == ["conv:1"]


class Forked(nn.Module):
    """A dead layer, one cut off from the input, a constant layer, and one that works."""

    def __init__(self):
        super().__init__()
        self.live = nn.Conv2d(1, 2, 3, padding=1)
        nn.init.ones_(self.live.weight)
        self.dead, self.cut, self.constant = nn.ReLU(), nn.Identity(), nn.Identity()

    def forward(self, x):
        y = self.live(x)
        self.dead(y - 100)
        self.cut(y.detach())
        self.constant(y * 0 + 1)
        return y


def test_a_gradient_of_zero_is_nan_and_named():
    with pytest.warns(repsim.DegenerateWarning) as caught:
        result = erf(Forked(), [torch.randn(2, 1, 8, 8)], "*", all_modules=True)
    (message,) = {str(w.message) for w in caught}
    for name in ("dead", "cut", "constant"):
        assert repr(name) in message
        one = result.sel(layer=name)
        assert one.mass.item() == 0
        assert np.isnan(one.field).all()
        assert all(np.isnan(one[key]) for key in SUMMARIES if key != "mass")
    assert "'live'" not in message
    assert "without a graph (detached, no_grad): ['cut']" in message
    assert result.sel(layer="live").side.item() == 3
    assert caught[0].filename == __file__


# -- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "frobenius"}, r"unknown mode.\n  expected one of 'rademacher', 'sum'"),
        ({"n_probes": 0}, "n_probes must be a positive integer"),
        ({"seed": 0.5}, "seed must be an integer"),
        ({"position": (1,)}, r"position must be two integers of at least 0"),
        ({"position": (-1, 0)}, r"position must be two integers of at least 0"),
        ({"grid": 4.5}, r"grid must be the number of patches"),
        ({"prefix": -1}, r"prefix must be a whole number of at least 0"),
    ],
)
def test_wrong_arguments(small, few, options, message):
    with pytest.raises(repsim.InputError, match=f"effective_receptive_field: {message}"):
        erf(small, few, "first", **options)


def test_wrong_data(small, few):
    with pytest.raises(repsim.InputError, match="must be a torch.nn.Module"):
        erf(None, few, "first")
    with pytest.raises(repsim.InputError, match=r"must be floating-point.*\n.*uint8"):
        erf(small, [torch.zeros(2, 2, 8, 8, dtype=torch.uint8)], "first")
    with pytest.raises(repsim.InputError, match=r"must hold images.*\n  got \[\(2, 8\)\]"):
        erf(small, [torch.zeros(2, 8)], "first")
    with pytest.raises(repsim.InputError, match="all images must have one size"):
        erf(small, [torch.zeros(2, 2, 8, 8), torch.zeros(2, 2, 8, 9)], "first")
    with pytest.raises(repsim.NonFiniteError, match=r"layer 'second', batch 1"):
        erf(small, [few[0], few[0] * float("nan")], "second")
    with pytest.raises(repsim.LayerNotFoundError, match="no layer is called 'third'"):
        erf(small, few, "third")


def test_no_graph_at_all(small, few):
    def forward(model, batch):
        with torch.no_grad():
            model(batch)

    with pytest.raises(repsim.CaptureError, match="no layer is connected to the images"):
        erf(small, few, "first", forward=forward)
    # Its parameters alone would give it a graph, if they had gradients.
    with pytest.raises(repsim.CaptureError, match="no layer is connected to the images"):
        erf(small, few, "first", forward=lambda m, x: m(x.detach()))


def test_outputs_without_positions():
    net, data = tiny_vit(), images(1, 2)
    with pytest.raises(repsim.CaptureError, match=r"positions of layer 'head' are unknown.*"):
        erf(net, data, "head", n_probes=1)
    with pytest.raises(repsim.CaptureError, match="none of the chosen layers has positions"):
        erf(net, data, "hea*", n_probes=1)
    result = erf(net, data, ["blocks.1", "fc_*", "hea*"], n_probes=1)  # no warning: vectors
    assert result.layer.values.tolist() == ["blocks.1"]


class Unfolded(nn.Module):
    """Patches without a convolution, so their grid is unknown; one extra token."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(48, 16)

    def forward(self, x):
        x = nn.functional.unfold(x, 4, stride=4).transpose(1, 2)
        return self.embed(torch.cat([x.mean(1, keepdim=True), x], 1))


def test_a_grid_that_must_be_passed():
    net, data = Unfolded(), [torch.randn(2, 3, 8, 16)]
    with pytest.raises(repsim.CaptureError, match=r"9 tokens fit no patch grid \(no convolution"):
        erf(net, data, "embed")
    for options in ({"grid": (2, 4)}, {"grid": (2, 4), "prefix": 1}):
        result = erf(net, data, "embed", **options).isel(layer=0)
        pixels = np.argwhere(result.field.values > 0)
        assert (pixels.min(0).tolist(), pixels.max(0).tolist()) == ([4, 8], [7, 11])
    with pytest.raises(repsim.CaptureError, match=r"9 tokens fit no patch grid \(2×4, prefix 2\)"):
        erf(net, data, "embed", grid=(2, 4), prefix=2)


@pytest.mark.parametrize("prefix", [0, 2])
def test_attention_that_reduces_its_keys_by_a_convolution(prefix):
    class Reduced(nn.Module):
        """4×4 patches; 2×2 keys from a convolution, which would leave 12 tokens over."""

        def __init__(self):
            super().__init__()
            self.embed, self.keys = nn.Conv2d(1, 4, 4, stride=4), nn.Conv2d(4, 4, 2, stride=2)
            self.block = nn.Identity()

        def forward(self, x):
            x = self.embed(x)
            self.keys(x)
            x = x.flatten(2).transpose(1, 2)
            return self.block(torch.cat([x.new_zeros(len(x), prefix, 4), x], 1))

    result = erf(Reduced(), [torch.randn(2, 1, 16, 16)], ["keys", "block"])
    assert result.grid_height.values.tolist() == [2, 4]
    pixels = np.argwhere(result.field.sel(layer="block").values > 0)
    assert (pixels.min(0).tolist(), pixels.max(0).tolist()) == ([8, 8], [11, 11])


def test_maps_whose_channels_may_be_anywhere():
    class Cube(nn.Module):
        def __init__(self, *extra):
            super().__init__()
            self.cube, self.extra = nn.Identity(), nn.ModuleList(extra)

        def forward(self, x):
            return self.cube(x)

    data = [torch.randn(2, 6, 6, 6)]
    assert erf(Cube(), data, "cube").field.values[0, 3, 3] == 1  # only convolutions: first
    mixed = Cube(nn.LayerNorm(6))
    with pytest.raises(repsim.CaptureError, match="channels may be first or last"):
        erf(mixed, data, "cube")
    assert erf(mixed, data, "cube", channels_last=False).field.values[0, 3, 3] == 1
    last = erf(mixed, data, "cube", channels_last=True).isel(layer=0)
    assert np.argwhere(last.field.values > 0)[:, 0].tolist() == [3] * 6  # columns are its channels
    with pytest.warns(repsim.RepsimWarning, match="whose positions are unknown were left out"):
        erf(nn.Sequential(nn.Tanh(), nn.Flatten(1, 2)), [torch.randn(2, 2, 6, 6)], "*")


def test_layers_that_come_and_go(small, few):
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Tanh(), nn.Tanh()

        def forward(self, x):
            return self.b(self.a(x)) if x.mean() < 1 else self.a(x)

    batches = [few[0], few[1] + 2]
    with pytest.raises(repsim.InputError, match=r"layers of the first.\n  missing: \['b'\]"):
        erf(Sometimes(), batches, "*")
