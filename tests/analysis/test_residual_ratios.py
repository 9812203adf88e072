"""Norms of skip and branch: closed forms, plain loops on real models, and what can go wrong."""

import contextlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import repsim
from analysis.plain import Shuffled, images, unchanged
from packages import timm, torchvision, transformers
from reference import residual
from repsim import CaptureError, DegenerateWarning, InputError, NonFiniteError, residual_ratios

quiet = {"progress": False}
U = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])  # zero mean, unit variance


class Scale(nn.Module):
    """x + c·LN(x): on t·u it is (t + c)·u."""

    def __init__(self, c):
        super().__init__()
        self.norm = nn.LayerNorm(2, eps=0, elementwise_affine=False)
        self.mlp = nn.Linear(2, 2, bias=False)
        self.mlp.weight.data = c * torch.eye(2)

    def forward(self, x):
        return x + self.mlp(self.norm(x))


def scales(*factors):
    return nn.Sequential(*map(Scale, factors))


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_closed_form():
    net, data = scales(0.5, 2.0), [3 * U[None]]
    result = residual_ratios(net, data, prefix=1, **quiet)
    close(result.ratio, [[6, 6], [1.75, 1.75]])
    close(result.ratio_prefix, [6, 1.75])
    close(result.ratio_spatial, [6, 1.75])
    close(result.branch_share, [[1 / 7] * 2, [4 / 11] * 2])
    close(result.cosine, np.ones((2, 2)))
    with repsim.without_residual(net, "0"):
        torch.testing.assert_close(net(data[0]), 2.5 * U[None])
        left = residual_ratios(net, data, prefix=1, **quiet)
    assert left.site.values.tolist() == ["1.mlp"]  # the other addition did not take place
    close(left.ratio, [[0.25, 0.25]])


def test_a_block_that_runs_twice_has_a_row_for_each_run():
    block, other = Scale(0.5), Scale(2.0)
    result = residual_ratios(nn.Sequential(block, other, block), [3 * U[None]], prefix=1, **quiet)
    assert result.site.values.tolist() == ["0.mlp:0", "1.mlp", "0.mlp:1"]
    close(result.ratio, [[6, 6], [1.75, 1.75], [11, 11]])


@given(
    st.lists(st.floats(0.25, 8), min_size=1, max_size=4),
    st.lists(st.lists(st.floats(0.5, 16), min_size=2, max_size=2), min_size=1, max_size=5),
    st.integers(0, 2),
)
def test_closed_form_of_any_scales_and_samples(factors, t, n_prefix):
    """The mean over samples of (t + c_0 + ... )/c, token by token, and over prefix and the rest."""
    data = [torch.tensor([row])[..., None] * U for row in t]
    result = residual_ratios(scales(*factors), data, prefix=n_prefix, **quiet)
    before = np.concatenate([[0], np.cumsum(factors)])
    ratios = np.stack([((np.array(t) + before[i]) / c).mean(0) for i, c in enumerate(factors)])
    np.testing.assert_allclose(result.ratio, ratios, rtol=1e-5)
    for variable, part in (
        ("ratio_prefix", slice(0, n_prefix)),
        ("ratio_spatial", slice(n_prefix, 2)),
    ):
        expected = (
            ratios[:, part].mean(1) if ratios[:, part].size else np.full(len(factors), np.nan)
        )
        np.testing.assert_allclose(result[variable], expected, rtol=1e-5)
    assert result.attrs["n_samples"] == len(t)


def test_schema():
    result = residual_ratios(scales(1.0), [U[None]], prefix=0, name="net", **quiet)
    assert set(result.data_vars) == {
        *("ratio", "branch_share", "cosine", "ratio_prefix", "ratio_spatial")
    }
    assert result.ratio.dims == ("site", "token")
    assert result.ratio_prefix.dims == ("site",)
    assert set(result.coords) == {
        "site",
        "token",
        "block",
        "branch",
        "kind",
        "n_prefix",
        "n_tokens",
    }
    for variable in result.data_vars.values():
        assert variable.dtype == np.float64
        assert variable.attrs["units"] == "1"
        assert variable.attrs["long_name"]
    assert result.attrs["model"] == "net"
    assert result.attrs["n_samples"] == 1
    assert {"torch_version", "repsim_version"} <= set(result.attrs)
    assert residual_ratios(scales(1.0), [U[None]], prefix=0, **quiet).attrs["model"] == "Sequential"


# -- real models against hooks and plain loops ----------------------------------------------------


@contextlib.contextmanager
def recorded(wanted):
    """Summands by hooks: label -> [(skip, branch) of each batch]; wanted: label -> the modules
    whose input is the skip and whose output is the branch."""
    found, handles = {}, []
    for label, (source, target) in wanted.items():
        found[label] = ([], [])

        def keep_input(_m, args, found=found[label]):
            found[0].append(args[0].detach().double().clone())

        def keep_output(_m, _args, out, found=found[label]):
            out = out[0] if isinstance(out, tuple) else out
            found[1].append(out.detach().double().clone())

        handles.append(source.register_forward_pre_hook(keep_input))
        handles.append(target.register_forward_hook(keep_output))
    yield found
    for handle in handles:
        handle.remove()


def vit():
    model = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=32,
        depth=2,
        embed_dim=24,
        num_heads=2,
        init_values=0.5,
        reg_tokens=1,
    )
    blocks = {}
    for i, block in enumerate(model.blocks):
        blocks[f"blocks.{i}.attn"] = (block.norm1, block.drop_path1)
        blocks[f"blocks.{i}.mlp"] = (block.norm2, block.drop_path2)
    return model, blocks, lambda t: t, 2


def swin():
    model = timm.models.SwinTransformer(
        img_size=32,
        patch_size=4,
        embed_dim=8,
        depths=(2, 2),
        num_heads=(2, 2),
        window_size=4,
        num_classes=3,
    )
    blocks = {}
    for i, stage in enumerate(model.layers):
        for j, block in enumerate(stage.blocks):
            blocks[f"layers.{i}.blocks.{j}.attn"] = (block.norm1, block.drop_path1)  # n h w c
            blocks[f"layers.{i}.blocks.{j}.mlp"] = (block.norm2, block.drop_path2)  # n hw c
    return model, blocks, lambda t: t.flatten(1, -2), 0


def convnext():  # 8×8 maps of 8 channels: sizes do not tell the axes apart
    model = torchvision.models.ConvNeXt(
        [torchvision.models.convnext.CNBlockConfig(8, None, 2)], num_classes=3
    )
    for block in model.features[1]:
        block.layer_scale.data.fill_(0.3)
        block.stochastic_depth.p = 0.0
    blocks = {
        f"features.1.{j}.block": (block.block[0], block.stochastic_depth)
        for j, block in enumerate(model.features[1])
    }
    return model, blocks, lambda t: t.flatten(2).transpose(1, 2), 0


def resnet():
    model = torchvision.models.resnet18()
    blocks = {
        f"layer{i}.{j}.conv2": (block.conv1, block.bn2)
        for i, stage in enumerate((model.layer1, model.layer2, model.layer3), 1)
        for j, block in enumerate(stage)
        if block.downsample is None
    }
    return model, blocks, lambda t: t.flatten(2).transpose(1, 2), 0


def mixer():  # a branch that mixes tokens: its last weight's features are tokens
    model = timm.models.mlp_mixer.MlpMixer(
        img_size=32, patch_size=8, num_blocks=2, embed_dim=24, num_classes=3
    )
    blocks = {
        f"blocks.{i}.mlp_channels": (block.norm2, block.mlp_channels)
        for i, block in enumerate(model.blocks)
    }
    return model, blocks, lambda t: t, 0


def hf_clip():
    config = transformers.CLIPVisionConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
    )
    model = transformers.CLIPVisionModel(config)
    blocks = {}
    for i, layer in enumerate(model.get_submodule("encoder.layers")):
        blocks[f"encoder.layers.{i}.self_attn"] = (layer.layer_norm1, layer.self_attn)
        blocks[f"encoder.layers.{i}.mlp"] = (layer.layer_norm2, layer.mlp)
    return model, blocks, lambda t: t, 1


@pytest.mark.parametrize("make", [vit, swin, convnext, resnet, mixer, hf_clip])
def test_real_models_against_plain_loops(make):
    torch.manual_seed(0)
    model, wanted, tokens, n_prefix = make()
    data = images(1, n=3, size=32) + images(1, n=2, size=32, seed=5)  # a short last batch
    with unchanged(model.train()):
        result = residual_ratios(model, data, **quiet)
    with recorded(wanted) as found, torch.no_grad():
        for batch in data:
            model.eval()(batch)
    assert len(wanted) > 1
    if make is mixer:
        assert result.n_tokens.values.tolist() == [16] * 4  # also where the branch mixes tokens
    for label, (skips, branches) in found.items():
        z, f = (torch.cat([tokens(t) for t in side]).numpy() for side in (skips, branches))
        row = result.sel(site=label)
        assert int(row.n_tokens) == z.shape[1]
        assert int(row.n_prefix) == n_prefix
        assert label.startswith(str(row.block.item()))
        for variable, statistic in (
            ("ratio", residual.ratio),
            ("branch_share", residual.branch_share),
            ("cosine", residual.cosine),
        ):
            values = row[variable].values
            expected = residual.means(z, f, statistic)
            np.testing.assert_allclose(values[: len(expected)], expected, rtol=2e-4, atol=1e-6)
            assert np.isnan(values[len(expected) :]).all()
        ratios = np.array(residual.means(z, f, residual.ratio))
        np.testing.assert_allclose(row.ratio_spatial, ratios[n_prefix:].mean(), rtol=2e-4)
        if n_prefix:
            np.testing.assert_allclose(row.ratio_prefix, ratios[:n_prefix].mean(), rtol=2e-4)
        else:
            assert np.isnan(row.ratio_prefix)
    assert result.attrs["n_samples"] == 5


def test_projection_and_identity():
    result = residual_ratios(torchvision.models.resnet18(), images(1, n=2), **quiet)
    assert result.kind.values.tolist() == ["identity", "identity", *["projection", "identity"] * 3]
    assert (result.ratio_spatial > 0).all()


def test_batches_of_any_size_give_the_same():
    model = vit()[0]
    rows = torch.cat(images(2, n=5))
    whole = residual_ratios(model, [rows], **quiet)
    shuffled = Shuffled(rows, 3)
    parts = residual_ratios(model, shuffled, **quiet)
    assert shuffled.iterations == 1
    for variable in whole.data_vars:
        np.testing.assert_allclose(parts[variable], whole[variable], rtol=1e-5, atol=1e-6)
    assert parts.attrs["n_samples"] == 10


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_precision(dtype):
    model = vit()[0]
    data = images(2, n=3)
    reference = residual_ratios(model, data, **quiet)
    cast = residual_ratios(model.to(dtype), [x.to(dtype) for x in data], **quiet)
    np.testing.assert_allclose(
        cast.ratio, reference.ratio, rtol=1e-5 if dtype == torch.float64 else 0.1
    )


def test_half_precision_norms_do_not_overflow():
    """The norm of (49152, −49152) is above what float16 holds."""
    big = (49152 * U[None]).half()
    result = residual_ratios(scales(1.0).half(), [big], prefix=0, **quiet)
    np.testing.assert_allclose(result.ratio, [[49152, 49152]], rtol=1e-6)


def test_autocast():
    model, data = vit()[0], images(2, n=3)
    with torch.autocast("cpu", torch.bfloat16):
        cast = residual_ratios(model, data, **quiet)
    np.testing.assert_allclose(cast.ratio, residual_ratios(model, data, **quiet).ratio, rtol=0.1)


def test_the_model_comes_back_unchanged():
    model = vit()[0].train()
    model.blocks[0].eval()
    model.blocks[1].attn.qkv.weight.requires_grad_(False)
    with unchanged(model):
        residual_ratios(model, images(2), **quiet)
        with pytest.raises(RuntimeError):
            residual_ratios(model, [torch.zeros(1, 2, 32, 32)], **quiet)
    assert torch.overrides._get_current_function_mode() is None


def test_prepare_forward_and_mappings():
    model, data = vit()[0], images(2)
    plain = residual_ratios(model, data, **quiet)
    for batches, options in (
        ([{"x": x} for x in data], {}),
        ([(x, 0) for x in data], {}),
        ([{"pixels": x} for x in data], {"prepare": lambda b: b["pixels"]}),
        (data, {"forward": lambda m, x: m.forward_features(x)}),
    ):
        same = residual_ratios(model, batches, **options, **quiet)
        np.testing.assert_array_equal(same.ratio, plain.ratio)
        assert same.attrs["n_samples"] == plain.attrs["n_samples"]


# -- axes and prefix ------------------------------------------------------------------------------


class Inside(nn.Module):
    """As fine-tuning code wraps a timm model."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, x):
        return self.backbone(x)


def test_prefix_of_a_timm_model_inside_another():
    result = residual_ratios(Inside(vit()[0]), images(1), **quiet)
    assert result.n_prefix.values.tolist() == [2] * 4
    assert result.block.values[0] == "backbone.blocks.0"
    model = Inside(vit()[0])
    model.backbone.num_prefix_tokens = 1  # what the model says goes before what a grid leaves over
    assert residual_ratios(model, images(1), **quiet).n_prefix.values.tolist() == [1] * 4


def test_prefix_argument():
    model = hf_clip()[0]
    assert set(residual_ratios(model, images(1), **quiet).n_prefix.values) == {1}
    result = residual_ratios(model, images(1), prefix=3, **quiet)
    assert set(result.n_prefix.values) == {3}
    np.testing.assert_allclose(result.ratio_prefix, result.ratio[:, :3].mean("token"))
    np.testing.assert_allclose(result.ratio_spatial, result.ratio[:, 3:].mean("token"))
    with pytest.raises(
        InputError, match=r"prefix=18, and site 'encoder.layers.0.self_attn' has 17"
    ):
        residual_ratios(model, images(1), prefix=18, **quiet)
    for wrong in (-1, 1.5, True, "1"):
        with pytest.raises(InputError, match="prefix must be a whole number"):
            residual_ratios(model, images(1), prefix=wrong, **quiet)


def bert():
    config = transformers.BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        vocab_size=50,
    )
    return transformers.BertModel(config)


def test_text():
    data = [{"input_ids": torch.randint(0, 50, (n, length))} for n, length in ((2, 7), (3, 9))]
    model = bert()
    assert not residual_ratios(model, data, **quiet).n_prefix.any()
    vectors = [{"inputs_embeds": torch.randn(2, 7, 32)}]
    with pytest.raises(InputError, match=r"which of the 7 tokens.*\n.*\n  Pass prefix="):
        residual_ratios(model, vectors, **quiet)
    result = residual_ratios(model, data, prefix=1, **quiet)
    short, long = (residual_ratios(model, [batch], prefix=1, **quiet).ratio for batch in data)
    np.testing.assert_allclose(result.ratio[:, :7], (2 * short + 3 * long[:, :7]) / 5, rtol=1e-6)
    np.testing.assert_allclose(result.ratio[:, 7:], long[:, 7:])
    assert result.attrs["n_samples"] == 5
    back = residual_ratios(model, data[::-1], prefix=1, **quiet)
    np.testing.assert_allclose(back.ratio, result.ratio, rtol=1e-12)


def test_features_without_tokens():
    model = scales(0.5)
    result = residual_ratios(model, [3 * U], **quiet)
    assert result.ratio.values.tolist() == [[6.0]]
    assert result.n_prefix.item() == 0


def test_sequence_first():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0)  # batch_first=False
    x = torch.randn(5, 3, 8)  # 5 tokens of 3 samples
    with pytest.raises(
        CaptureError, match="may be tokens, because a module with batch_first=False"
    ):
        residual_ratios(layer, [x], prefix=0, **quiet)
    result = residual_ratios(layer, [x], prefix=0, batch_dim=1, **quiet)
    layer.self_attn.batch_first = True
    first = residual_ratios(layer, [x.transpose(0, 1)], prefix=0, **quiet)
    assert result.sizes["token"] == 5
    np.testing.assert_allclose(result.ratio, first.ratio, rtol=1e-5)


def test_an_axis_that_is_not_the_batch():
    class Folded(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Scale(1.0)

        def forward(self, x):
            return self.block(x.flatten(0, 1))

    x = torch.randn(3, 2, 2)
    with pytest.raises(CaptureError, match=r"axis 0 of site 'block.mlp' is not the batch.*\n.*n=3"):
        residual_ratios(Folded(), [x], **quiet)
    assert residual_ratios(Folded(), [x], batch_dim=0, **quiet).sizes["token"] == 1


def test_declared_channels():
    x = torch.randn(2, 4, 2)
    model = scales(1.0)
    last = residual_ratios(model, [x], prefix=0, **quiet)
    assert last.sizes["token"] == 4
    first = residual_ratios(model, [x], channel_dim=1, **quiet)
    assert first.sizes["token"] == 2
    branch = nn.functional.layer_norm(x, (2,), eps=0)
    expected = (x.norm(dim=1) / branch.norm(dim=1)).mean(0)
    np.testing.assert_allclose(first.ratio[0], expected, rtol=1e-5)
    with pytest.raises(InputError, match="channel_dim=5"):
        residual_ratios(model, [x], channel_dim=5, **quiet)
    with pytest.raises(InputError, match="cannot hold both samples and channels"):
        residual_ratios(model, [x], channel_dim=0, **quiet)


def test_maps_that_change_their_size():
    model = torchvision.models.resnet18()
    with pytest.raises(InputError, match=r"maps of site 'layer1.0.conv2' change.*\n.*batch 1"):
        residual_ratios(model, [torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 64, 64)], **quiet)


# -- degenerate and wrong input -------------------------------------------------------------------


def test_a_branch_that_is_zero():
    with pytest.warns(DegenerateWarning, match=r"exactly zero at some tokens, NaN there: '1.mlp'."):
        result = residual_ratios(scales(1.0, 0.0), [3 * U[None]], prefix=0, **quiet)
    assert np.isfinite(result.ratio.values[0]).all()
    assert np.isnan(result.ratio.values[1]).all()
    assert np.isnan(result.ratio_spatial.values[1])
    assert result.branch_share.values[1].tolist() == [0, 0]
    assert np.isnan(result.cosine.values[1]).all()


def test_a_zero_at_one_token_of_one_image():
    class Half(Scale):
        def forward(self, x):
            return x + self.mlp(x * x.sum(-1, keepdim=True).clamp(0, 1))

    data = [torch.tensor([[[1.0, 1.0], [1.0, 1.0]]]), torch.tensor([[[1.0, 1.0], [1.0, -1.0]]])]
    with pytest.warns(DegenerateWarning):
        result = residual_ratios(nn.Sequential(Half(1.0)), data, prefix=0, **quiet)
    assert result.ratio.values[0, 0] == 1
    assert np.isnan(result.ratio.values[0, 1])  # an infinite mean is not shown as a number


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_non_finite(bad):
    good = torch.randn(2, 2, 2)
    worse = good.clone()
    worse[1, 0, 0] = bad
    with pytest.raises(NonFiniteError, match=r"in a summand of site '0.mlp', batch 1"):
        residual_ratios(scales(1.0, 1.0), [good, worse, good], prefix=0, **quiet)


def test_a_skip_that_is_not_finite_under_a_branch_that_is():
    class Bounded(Scale):
        def forward(self, x):
            return x + self.mlp(x.tanh())

    with pytest.raises(NonFiniteError, match=r"site '0.mlp', batch 0"):
        residual_ratios(nn.Sequential(Bounded(1.0)), [torch.inf * U[None]], prefix=0, **quiet)


def test_no_residual_connection():
    with pytest.raises(CaptureError, match="no residual connection that can be seen"):
        residual_ratios(nn.Linear(2, 2), [U], **quiet)


def test_left_out_layers_are_reported():
    class Stacked(Scale):
        def forward(self, x):
            return torch.stack([x, self.mlp(x)]).sum(0)

    with pytest.warns(repsim.RepsimWarning, match=r"residual_ratios: these look.*\n  1: sum of a"):
        result = residual_ratios(nn.Sequential(Scale(1.0), Stacked(1.0)), [U], **quiet)
    assert result.site.values.tolist() == ["0.mlp"]


def test_wrong_arguments():
    with pytest.raises(InputError, match="residual_ratios: model must be a torch.nn.Module"):
        residual_ratios("vit", [U], **quiet)
    with pytest.raises(InputError, match="residual_ratios: data must be an iterable of batches"):
        residual_ratios(scales(1.0), U, **quiet)
    with pytest.raises(InputError, match="data gave no batch"):
        residual_ratios(scales(1.0), [], **quiet)
    with pytest.raises(InputError, match=r"prepare="):
        residual_ratios(scales(1.0), [3], **quiet)
