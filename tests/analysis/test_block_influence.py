"""Block influence: closed forms, plain loops on real models, padding, and the blocks found."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import repsim
from analysis.plain import images, unchanged
from analysis.text_models import language_model, one_by_one, texts
from packages import timm, torchvision, transformers
from reference import residual
from repsim import CaptureError, DegenerateWarning, InputError, NonFiniteError, block_influence

QUIET = {"progress": False}


class Turn(nn.Module):
    """x turned by an angle and scaled, as x + mlp(x)."""

    def __init__(self, degrees, scale=1.0):
        super().__init__()
        angle = np.deg2rad(degrees)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        self.mlp = nn.Linear(2, 2, bias=False, dtype=torch.float64)
        self.mlp.weight.data = torch.tensor(scale * turn - np.eye(2))

    def forward(self, x):
        return x + self.mlp(x)


def plane(*shape):
    return torch.randn(*shape, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_closed_form():
    net = nn.Sequential(Turn(60), Turn(30, 3.0), Turn(1e-5), Turn(90))
    result = block_influence(net, [plane(4, 3), plane(2, 5)], name="net", **QUIET)
    expected = 1 - np.cos(np.deg2rad([60, 30, 1e-5, 90]))
    np.testing.assert_allclose(result.influence[[0, 1, 3]], expected[[0, 1, 3]], rtol=1e-12)
    assert result.influence[2].item() == pytest.approx(np.deg2rad(1e-5) ** 2 / 2, rel=1e-4)
    np.testing.assert_allclose(result.norm_ratio, [1, 3, 1, 1], rtol=1e-12)
    turned = np.array([
        [60, 90, 90 + 1e-5, 180 - 1e-5],
        [30, 30 + 1e-5, 120 + 1e-5, np.nan],
        [1e-5, 90 + 1e-5, np.nan, np.nan],
        [90, np.nan, np.nan, np.nan],
    ])  # fmt: skip
    np.testing.assert_allclose(result.angular * 180, turned, rtol=1e-9)
    np.testing.assert_allclose(result.influence_standard_error, 0, atol=1e-12)
    assert result.attrs["n_samples"] == 6
    assert (result.attrs["model"], result.attrs["tokens"]) == ("net", "all")
    assert result.influence.dims == ("block",)
    assert result.angular.dims == ("start", "span")
    assert result.start.values.tolist() == result.block.values.tolist() == ["0", "1", "2", "3"]
    some = block_influence(net, [plane(4, 3)], span=[3, 1], **QUIET)
    assert some.span.values.tolist() == [1, 3]
    np.testing.assert_allclose(some.angular * 180, turned[:, [0, 2]], rtol=1e-9)
    # Of (B, prompts, tokens, D), as in SAM, the first block's output shows where the features are.
    prompts = block_influence(net, [plane(4, 2, 3)], **QUIET)
    np.testing.assert_allclose(prompts.influence[[0, 1, 3]], expected[[0, 1, 3]], rtol=1e-12)
    one = block_influence(net, [plane(4, 3)], blocks=["1", "3"], span=1, **QUIET)
    # Block 3 does not follow from block 1 directly, but its input is computed from its output.
    np.testing.assert_allclose(one.angular[:, 0] * 180, [30 + 1e-5, 90], rtol=1e-9)


# -- real models against plain loops --------------------------------------------------------------


def llama():
    return language_model("llama", layers=3).double(), "layers.{}", texts("left"), 3


def gpt2():
    return language_model("gpt2", layers=3).double(), "h.{}", texts("left"), 3


def vit():
    config = transformers.ViTConfig(
        hidden_size=24, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32,
        image_size=32, patch_size=8,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.ViTModel(config).double().eval()
    name = next(n for n, _ in model.named_modules() if n.endswith(".1") and "layer" in n)
    return model, name[:-1] + "{}", [{"pixel_values": x.double()} for x in images(2, n=3)], 3


def streams(model, names, data):
    """Return [sequence][state][real token] of the inputs of blocks, and of the last output."""
    kept = {}
    modules = [model.get_submodule(name) for name in names]
    handles = [
        m.register_forward_pre_hook(lambda _m, args, i=i: kept.update({i: args[0].numpy().copy()}))
        for i, m in enumerate(modules)
    ]
    last = len(names)
    handles.append(
        modules[-1].register_forward_hook(
            lambda _m, _a, out: kept.update({last: (out if torch.is_tensor(out) else out[0])})
        )
    )
    found = []
    with torch.no_grad():
        for batch in data:
            model(**batch)
            states = [np.asarray(kept[i]) for i in range(last + 1)]
            n, length = states[0].shape[:2]
            mask = batch.get("attention_mask", torch.ones(n, length)).bool().numpy()
            found += [[state[row][mask[row]] for state in states] for row in range(n)]
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("make", [llama, gpt2, vit])
def test_real_models_against_plain_loops(make):
    model, pattern, data, depth = make()
    names = [pattern.format(i) for i in range(depth)]
    with unchanged(model.train()):
        result = block_influence(model, data, **QUIET)
    assert result.block.values.tolist() == names
    found = streams(model.eval(), names, data)

    def check(result, cut):
        def expected(statistic, i, j):
            values = [
                [statistic(x, y) for x, y in zip(states[i][cut], states[j][cut], strict=True)]
                for states in found
            ]
            return residual.by_sequence(values)

        for i, name in enumerate(names):
            row = result.sel(block=name)
            for variable, statistic in (
                ("influence", residual.influence),
                ("norm_ratio", lambda x, y: residual.norm(y) / residual.norm(x)),
            ):
                mean, error = expected(statistic, i, i + 1)
                assert row[variable].item() == pytest.approx(mean, rel=1e-8)
                assert row[f"{variable}_standard_error"].item() == pytest.approx(error, rel=1e-6)
            for n in range(1, depth + 1):
                cell = result.sel(start=name, span=n)
                if i + n > depth:
                    assert np.isnan(cell.angular)
                    continue
                mean, error = expected(residual.angular, i, i + n)
                assert cell.angular.item() == pytest.approx(mean, rel=1e-8)
                assert cell.angular_standard_error.item() == pytest.approx(error, rel=1e-6)

    check(result, slice(None))
    check(block_influence(model, data, tokens="last", **QUIET), slice(-1, None))


def same(one, other, rtol=1e-5):
    for name in one.data_vars:
        np.testing.assert_allclose(one[name], other[name], rtol=rtol, atol=1e-7, err_msg=name)


@pytest.mark.slow
def test_padding_and_batches_do_not_matter():
    for kind in ("llama", "gpt2", "neox"):
        model = language_model(kind)
        alone = block_influence(model, one_by_one(texts("right")), **QUIET)
        for data in (texts("right"), texts("left"), [*texts("left")[:1], *texts("right")[1:]]):
            same(block_influence(model, data, **QUIET), alone)
        with_padding = block_influence(model, texts("left"), mask=None, **QUIET)
        assert np.abs(with_padding.influence - alone.influence).max() > 1e-3
        last = [block_influence(model, texts(s), tokens="last", **QUIET) for s in ("left", "right")]
        same(*last)


# -- which blocks ---------------------------------------------------------------------------------


def small(kind, model, **options):
    config = getattr(transformers, f"{kind}Config")
    return lambda: getattr(transformers, f"{kind}{model}")(config(**options)).eval()


WIDE = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "vocab_size": 50,
}  # fmt: skip


def test_the_blocks_of_families():
    torch.manual_seed(0)
    ids = torch.randint(1, 50, (3, 7))
    picture = images(1, n=2, size=64)
    cases = {
        "bert": (small("Bert", "Model", **WIDE), {"input_ids": ids}, ["encoder.layer.{}"], 2),
        "albert": (
            small("Albert", "Model", embedding_size=16, **WIDE),
            {"input_ids": ids},
            ["encoder.albert_layer_groups.0:{}"],
            2,
        ),
        "t5": (
            small(
                "T5", "Model", vocab_size=50, d_model=32, d_ff=48, num_layers=2, num_heads=4, d_kv=8
            ),
            {"input_ids": ids, "decoder_input_ids": ids},
            ["encoder.block.{}", "decoder.block.{}"],
            2,
        ),
        "mamba": (
            small("Mamba", "Model", vocab_size=50, hidden_size=16, num_hidden_layers=2),
            {"input_ids": ids},
            ["layers.{}"],
            2,
        ),
        "one layer": (
            small("Bert", "Model", **{**WIDE, "num_hidden_layers": 1}),
            {"input_ids": ids},
            ["encoder.layer.{}"],
            1,
        ),
        "timm swin": (
            lambda: timm.models.SwinTransformer(
                img_size=64, patch_size=4, embed_dim=8, depths=(2, 2), num_heads=(2, 2),
                window_size=4, num_classes=3,
            ),
            picture[0],
            ["layers.0.blocks.{}", "layers.1.blocks.{}"],
            2,
        ),
        "torch": (
            lambda: nn.TransformerEncoder(
                nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2,
                enable_nested_tensor=False,
            ),
            torch.randn(3, 5, 8),
            ["layers.{}"],
            2,
        ),
    }  # fmt: skip
    for case, (make, batch, patterns, depth) in cases.items():
        result = block_influence(make(), [batch], **QUIET)
        expected = [pattern.format(i) for pattern in patterns for i in range(depth)]
        assert result.block.values.tolist() == expected, case
        assert result.sizes["span"] == depth, case
        # A span ends with its stack, even if another stack has the same shape.
        known = [[s < depth - i for s in range(depth)] for _ in patterns for i in range(depth)]
        np.testing.assert_array_equal(np.isfinite(result.angular), known, err_msg=case)


def test_blocks_that_change_the_shape_are_left_out():
    model = torchvision.models.resnet18()
    with pytest.warns(repsim.RepsimWarning, match=r"left out: layer2.0 \(2, 128, 4, 4\)"):
        result = block_influence(model, images(2, n=2), **QUIET)
    assert result.block.values.tolist() == [
        "layer1.0", "layer1.1", "layer2.1", "layer3.1", "layer4.1",
    ]  # fmt: skip
    x = {}
    block = model.layer3[1]
    handle = block.register_forward_hook(lambda _m, args, out: x.update(x=args[0], y=out))
    values = []
    with torch.no_grad():
        for batch in images(2, n=2):
            model.eval()(batch)
            z, y = (t.double().flatten(2).transpose(1, 2).numpy() for t in (x["x"], x["y"]))
            for before, after in zip(z, y, strict=True):
                pairs = zip(before, after, strict=True)
                values.append([residual.influence(*pair) for pair in pairs])
    handle.remove()
    row = result.sel(block="layer3.1")
    assert row.influence.item() == pytest.approx(residual.by_sequence(values)[0], rel=1e-5)
    with pytest.raises(CaptureError, match=r"must return the shape.*\n  layer2.0 returned"):
        block_influence(model, images(1), blocks=["layer1.0", "layer2.0"], **QUIET)


class Unhooked(nn.Sequential):
    """It calls the forward of its blocks, as SqueezeBERT does."""

    def forward(self, x):
        for block in self:
            x = block.forward(x)
        return x


def test_blocks_whose_forward_is_called():
    """The error had said that they change the shape of their input."""
    model = Unhooked(*(nn.TransformerEncoderLayer(8, 2, 8, batch_first=True) for _ in range(2)))
    with pytest.raises(CaptureError, match=r"none of these blocks ran .*: '0', '1'.\n.*forward"):
        block_influence(model, [torch.randn(2, 5, 8)], blocks="?", **QUIET)


class Pyramid(nn.Module):
    """As in MaskFormer: the map from above is enlarged and added to a projection."""

    def __init__(self):
        super().__init__()
        self.proj, self.block = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, down, left):
        left = self.proj(left)
        return self.block(nn.functional.interpolate(down, size=left.shape[-2:]) + left)


class ClassAttention(nn.Module):
    """As in CaiT: the stream is the second argument, because only class tokens have one."""

    def __init__(self):
        super().__init__()
        self.attend = nn.MultiheadAttention(4, 1, batch_first=True)

    def forward(self, x, x_cls):
        both = torch.cat([x_cls, x], 1)
        return x_cls + self.attend(x_cls, both, both)[0]


class Named(nn.Module):
    """Patches, and blocks that get two tensors."""

    def __init__(self, block):
        super().__init__()
        self.large, self.small = nn.Conv2d(3, 4, 4, 4), nn.Conv2d(3, 4, 8, 8)
        self.cls, self.blocks = nn.Parameter(torch.randn(4)), nn.ModuleList([block(), block()])

    def forward(self, image):
        large, small = self.large(image), self.small(image)
        if isinstance(self.blocks[0], Pyramid):
            return self.blocks[1](self.blocks[0](small, large), large)
        x_cls = self.cls.expand(len(image), 1, -1)
        for block in self.blocks:
            x_cls = block(large.flatten(2).mT, x_cls)
        return x_cls


def test_a_resized_input_is_not_replaced_by_another_of_the_right_shape():
    torch.manual_seed(0)
    with pytest.warns(repsim.RepsimWarning, match=r"left out: blocks.0 \(2, 4, 8, 8\)"):
        found = block_influence(Named(Pyramid), images(1, n=2), blocks=Pyramid, **QUIET)
    assert found.block.values.tolist() == ["blocks.1"]
    classes = block_influence(Named(ClassAttention), images(1, n=2), blocks=ClassAttention, **QUIET)
    assert classes.block.values.tolist() == ["blocks.0", "blocks.1"]
    assert classes.angular.notnull().sum() == 3


def test_blocks_by_name():
    model = language_model("llama", layers=3)
    every = block_influence(model, texts("left"), **QUIET)
    for blocks in ("layers.?", ["layers.0", "layers.1", "layers.2"], type(model.layers[0])):
        same(block_influence(model, texts("left"), blocks=blocks, **QUIET), every)
    some = block_influence(model, texts("left"), blocks="layers.1", **QUIET)
    same(some, every.sel(block=["layers.1"], start=["layers.1"], span=[1]))
    assert block_influence(model, texts("left"), blocks="*.mlp", **QUIET).sizes["block"] == 3


def test_every_sequence_has_its_own_mask():
    torch.manual_seed(0)
    model = small(
        "T5", "Model", vocab_size=50, d_model=32, d_ff=48, num_layers=1, num_heads=4, d_kv=8
    )()
    source, target = texts("right", batches=1)[0], texts("right", batches=1, longest=6, seed=3)[0]
    data = [
        {
            "input_ids": source["input_ids"],
            "attention_mask": source["attention_mask"],
            "decoder_input_ids": target["input_ids"],
            "decoder_attention_mask": target["attention_mask"],
        }
    ]
    with pytest.warns(repsim.RepsimWarning, match=r"decoder.block.0 \(4, 6, 32\), mask \(4, 9\)"):
        encoder = block_influence(model, data, mask="attention_mask", **QUIET)
    assert encoder.block.values.tolist() == ["encoder.block.0"]
    masks = {"encoder*": "attention_mask", "decoder*": "decoder_attention_mask"}
    both = block_influence(model, data, mask=masks, **QUIET)
    same(both.isel(block=[0], start=[0]), encoder)
    same(block_influence(model, data, **QUIET), both)  # each block follows one of both
    assert both.block.values.tolist() == ["encoder.block.0", "decoder.block.0"]


# -- what can go wrong ----------------------------------------------------------------------------


def test_errors():
    net, data = nn.Sequential(Turn(60), Turn(30)), [plane(4, 3)]
    for options, message in (
        ({"span": 0}, "span must be a positive integer"),
        ({"span": []}, "span must have at least one number"),
        ({"span": True}, "span must be a positive integer"),
        ({"span": 3}, "span=3, and no stack has more than 2 blocks"),
        ({"tokens": "first"}, "unknown tokens"),
    ):
        with pytest.raises(InputError, match=message):
            block_influence(net, data, **options, **QUIET)
    with pytest.raises(InputError, match=r"must be a torch.nn.Module"):
        block_influence(lambda x: x, data, **QUIET)
    with pytest.raises(CaptureError, match="no module of the model holds a residual connection"):
        block_influence(nn.Sequential(nn.Linear(2, 2)), [torch.randn(3, 2)], **QUIET)
    with pytest.raises(NonFiniteError, match=r"stream of block '0', batch 1"):
        block_influence(net, [plane(4, 3), torch.full((1, 3, 2), torch.nan).double()], **QUIET)
    with pytest.raises(
        CaptureError, match="may be tokens, because a module with batch_first=False"
    ):
        block_influence(
            nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16)),
            [torch.randn(5, 3, 8)],
            **QUIET,
        )
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_samples_on_axis_1():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0)  # batch_first=False
    x = torch.randn(5, 3, 8)  # 5 tokens of 3 samples
    real = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 1, 1, 1, 1]]).bool()
    model = nn.Sequential(layer)
    result = block_influence(model, [x], batch_dim=1, mask=lambda _: real, **QUIET)
    with torch.no_grad():
        y = model.eval()(x)
    values = [
        [residual.influence(*pair) for pair in zip(x[keep, i], y[keep, i], strict=True)]
        for i, keep in enumerate(real)
    ]
    mean, error = residual.by_sequence(values)
    assert result.influence.item() == pytest.approx(mean, rel=1e-5)
    assert result.influence_standard_error.item() == pytest.approx(error, rel=1e-5)
    with pytest.raises(CaptureError, match=r"another number of tokens than the mask"):
        block_influence(model, [x], batch_dim=1, mask=lambda _: real[:, :4], **QUIET)


def test_a_stream_of_zeros_is_undefined():
    with pytest.warns(DegenerateWarning, match="exactly zero at some tokens, NaN there: '0', '1'"):
        result = block_influence(
            nn.Sequential(Turn(60), Turn(30)), [torch.zeros(2, 3, 2).double()], **QUIET
        )
    assert np.isnan(result.influence).all()


def test_a_batch_that_runs_other_blocks():
    class Early(nn.Sequential):
        def forward(self, x):
            return self[0](x) if len(x) == 1 else super().forward(x)

    with pytest.raises(InputError, match=r"batch 1: '1' did not run as in batch 0"):
        block_influence(Early(Turn(60), Turn(30)), [plane(4, 3), plane(1, 3)], **QUIET)


def test_a_part_that_raises_an_error_which_its_block_catches():
    class Fast(nn.Sequential):
        def forward(self, x):
            raise NotImplementedError

    class Fallback(nn.Module):
        def __init__(self, fast):
            super().__init__()
            self.fast, self.slow = fast, nn.Sequential(nn.Linear(4, 4), nn.ReLU())

        def forward(self, x):
            try:
                return x + self.fast(x)
            except NotImplementedError:
                return x + self.slow(x)

    x = torch.randn(4, 3, 4)
    net = nn.Sequential(*(Fallback(Fast(nn.Linear(4, 4))) for _ in range(3)))
    found = block_influence(net, [x, x], **QUIET)
    for block in net:
        block.fast = block.slow
    assert found.equals(block_influence(net, [x, x], **QUIET))


def test_in_place_blocks_half_precision_and_one_sample():
    class InPlace(Turn):
        def forward(self, x):
            return x.add_(self.mlp(x))

    nets = [nn.Sequential(kind(60), kind(30)) for kind in (Turn, InPlace)]
    results = [block_influence(net, [plane(1, 3)], **QUIET) for net in nets]
    same(*results)
    assert np.isnan(results[0].influence_standard_error).all()
    half = block_influence(nets[0].bfloat16(), [plane(4, 3).bfloat16()], **QUIET)
    np.testing.assert_allclose(half.influence, results[0].influence, rtol=0.05)


class Across(nn.Module):
    """The model puts samples first, and its blocks get tokens first."""

    def __init__(self, *blocks):
        super().__init__()
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x):
        return self.blocks(x.transpose(0, 1)).transpose(0, 1)


def test_samples_are_found_where_tokens_are_as_many():
    """3 samples of 3 tokens: sizes cannot tell the axes of the stream apart."""
    blocks, x = [Turn(60), Turn(30, 2.0)], plane(3, 3)
    blocks[0].mlp.bias = nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))  # not linear
    plain, across = nn.Sequential(*blocks), Across(*blocks)
    expected = block_influence(plain, [x], tokens="last", **QUIET)
    found = block_influence(across, [x], tokens="last", **QUIET)
    np.testing.assert_allclose(found.influence, expected.influence, rtol=1e-12)
    np.testing.assert_allclose(found.angular, expected.angular, rtol=1e-12)
    turned = repsim.residual_ratios(across, [x], prefix=0, **QUIET)
    expected = repsim.residual_ratios(plain, [x], prefix=0, **QUIET)
    np.testing.assert_allclose(turned.ratio, expected.ratio, rtol=1e-12)
    other = repsim.residual_ratios(across, [x], prefix=0, batch_dim=0, **QUIET)
    assert np.abs(other.ratio.values - expected.ratio.values).max() > 0.1


class Position(nn.Module):
    """A residual connection around one layer, which is too little for a block."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(4, 4)

    def forward(self, x):
        return x + self.mix(x)


class Wide(nn.Module):
    """A block of two layers, with a residual connection or without."""

    def __init__(self, *, residual=True):
        super().__init__()
        self.up, self.down, self.residual = nn.Linear(4, 8), nn.Linear(8, 4), residual

    def forward(self, x):
        y = self.down(self.up(x).relu())
        return x + y if self.residual else y


class Narrow(Wide):
    """A block of another class."""


class Stage(nn.Module):
    """Blocks in a list, as in EdgeNeXt, or as numbered children, as in RegNet."""

    def __init__(self, *blocks, in_list=True):
        super().__init__()
        if in_list:
            self.blocks = nn.ModuleList(blocks)
        else:
            for number, block in enumerate(blocks):
                self.add_module(f"b{number}", block)

    def forward(self, x):
        for block in getattr(self, "blocks", self.children()):
            x = block(x)
        return x


def test_the_blocks_are_those_of_compare_that_hold_a_connection():
    """Unless connections are beside those of compare."""
    children = ["0.b0", "0.b1", "1.b0"]
    lists = ["0.blocks.0", "0.blocks.1", "1.blocks.0", "1.blocks.1"]
    cases = {
        "children": (
            [Stage(Wide(), Wide(), in_list=False), Stage(Narrow(), in_list=False)], children,
            children,
        ),
        "lists": ([Stage(Wide(), Wide()), Stage(Wide(), Narrow())], lists, lists),
        "two classes in one": (
            [nn.Sequential(Wide(), Narrow()) for _ in range(2)], ["0", "1"], ["0", "1"]
        ),
        "some": ([Wide(residual=False), Wide(), Wide()], ["0", "1", "2"], ["1", "2"]),
        "beside": ([Wide(), Position(), Wide(), Position()], ["0", "2"], ["0", "1", "2", "3"]),
        "two of one class in one": (
            [nn.Sequential(Position(), Position()), Wide(), Wide()], ["0", "1", "2"],
            ["0.0", "0.1", "1", "2"],
        ),
    }  # fmt: skip
    x = torch.randn(4, 5, 4)
    for case, (modules, named, turning) in cases.items():
        net = nn.Sequential(*modules)
        found = repsim.compare(net, data=[x, x], layers="blocks", transform="mean", **QUIET)
        assert found.layer_x.values.tolist() == named, case
        assert block_influence(net, [x], **QUIET).block.values.tolist() == turning, case
