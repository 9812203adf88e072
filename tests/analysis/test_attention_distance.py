"""``attention_distance`` against closed forms, plain loops, and models that people use."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import repsim
from analysis.plain import unchanged
from capture.attention_models import (
    fused,
    hugging_face,
    hugging_face_swin,
    ids,
    images,
    naflex,
    spread,
    taken,
    timm_swin,
    timm_vit,
    torchvision_swin,
    torchvision_vit,
)
from packages import timm, transformers
from reference import attention_maps as reference
from repsim import CaptureError, InputError, LayerNotFoundError, NonFiniteError, RepsimWarning
from repsim import attention_distance as measure

CHANNELS = 37  # a head; no number of tokens here


class Weights(nn.Module):
    """Attention whose weights are given: log-weights are the scores."""

    def __init__(self, weights, channels):
        super().__init__()
        heads = len(weights)
        self.register_buffer("scores", weights.log())
        self.heads, self.width = heads, channels
        self.value = nn.Linear(heads * channels, heads * channels)

    def forward(self, x):
        b, n, _ = x.shape
        v = self.value(x).view(b, n, self.heads, self.width).transpose(1, 2)
        q = torch.zeros(b, self.heads, n, self.width)
        return functional.scaled_dot_product_attention(q, q, v, attn_mask=self.scores).transpose(
            1, 2
        )


class Given(nn.Module):
    """A patch embedding, prefix tokens, and attention of given weights (heads, tokens, tokens)."""

    def __init__(self, weights, patch=4, prefix=0):
        super().__init__()
        heads = weights.shape[0]
        patch = patch if isinstance(patch, tuple) else (patch, patch)
        self.embed = nn.Conv2d(3, CHANNELS * heads, patch, stride=patch)
        self.prefix = nn.Parameter(torch.randn(1, prefix, CHANNELS * heads))
        self.attention = Weights(weights, CHANNELS)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        return self.attention(torch.cat([self.prefix.expand(len(x), -1, -1), x], 1))


def run(weights, shape, patch=4, prefix=0, n=2, **options):
    step = patch if isinstance(patch, tuple) else (patch, patch)
    model = Given(weights, patch, prefix)
    x = torch.randn(n, 3, shape[0] * step[0], shape[1] * step[1])
    return measure(model, [x], progress=False, **options)


def uniform(tokens, heads=1):
    return torch.full((heads, tokens, tokens), 1 / tokens)


# -- closed forms ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grid", "patch", "expected"),
    [
        ((2, 2), 1, (2 + math.sqrt(2)) / 4),
        ((3, 3), 1, 1.4533112732956903),
        ((7, 7), 1, 3.60946544177551),
        ((14, 14), 1, 7.280764193235398),
        ((14, 14), 16, 116.49222709176636),
        ((2, 3), 1, 1.1738327891384424),
        ((7, 14), (32, 16), 116.01553620456495),
    ],
)
def test_uniform_attention(grid, patch, expected):
    n = grid[0] * grid[1]
    result = run(uniform(n), grid, patch)
    assert result.distance.item() == pytest.approx(expected, rel=1e-6)
    assert result.renormalised.item() == pytest.approx(expected, rel=1e-6)
    assert result.uniform_distance.item() == pytest.approx(expected, rel=1e-12)
    assert result.entropy.item() == pytest.approx(math.log(n), rel=1e-6)
    assert result.prefix_mass.item() == 0
    assert (result.grid_height.item(), result.grid_width.item()) == grid
    step = patch if isinstance(patch, tuple) else (patch, patch)
    assert (result.patch_height.item(), result.patch_width.item()) == step


def test_a_real_vit_with_its_queries_zeroed():
    """The paper's setting: 14×14 patches of 16 pixels and a CLS token."""
    model = timm.create_model("vit_tiny_patch16_224", depth=2).eval()
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight[:192] = 0
            block.attn.qkv.bias[:192] = 0
    result = measure(model, [torch.randn(1, 3, 224, 224)], progress=False)
    np.testing.assert_allclose(result.distance, 115.90089598977764, rtol=1e-6)
    np.testing.assert_allclose(result.uniform_distance, 115.90089598977764, rtol=1e-12)
    np.testing.assert_allclose(result.renormalised, 116.49222709176636, rtol=1e-6)
    np.testing.assert_allclose(result.prefix_mass, 1 / 197, rtol=1e-6)
    np.testing.assert_allclose(result.entropy, math.log(197), rtol=1e-6)
    np.testing.assert_allclose(result.uniform_entropy, math.log(197), rtol=1e-12)
    assert result.distance.dims == ("layer", "head")
    assert result.distance.shape == (2, 3)
    assert result.layer.values.tolist() == ["blocks.0.attn", "blocks.1.attn"]


def test_heads_that_look_at_themselves_and_at_a_shifted_column():
    """Identity 0; a cyclic shift by s of W columns 2s(W − s)/W."""
    height, width = 3, 5
    n = height * width
    shifted = torch.zeros(5, n, n)
    for s in range(5):
        for r in range(height):
            for c in range(width):
                shifted[s, r * width + c, r * width + (c + s) % width] = 1
    result = run(shifted, (height, width), patch=2)
    expected = [2 * s * (width - s) / width * 2 for s in range(5)]
    np.testing.assert_allclose(result.distance[0], expected, rtol=1e-6)
    np.testing.assert_allclose(result.entropy[0], 0, atol=1e-6)


def test_a_head_that_looks_at_cls():
    """The plain distance shrinks, the renormalised one does not."""
    n = 1 + 9
    weights = torch.stack(
        [uniform(n)[0], 0.9 * functional.one_hot(torch.zeros(n).long(), n) + 0.1 / n]
    )
    result = run(weights, (3, 3), prefix=1)
    far = 1.4533112732956903 * 4
    np.testing.assert_allclose(result.distance[0], [far * 0.9, far * 0.09], rtol=1e-5)
    np.testing.assert_allclose(result.renormalised[0], far, rtol=1e-5)
    np.testing.assert_allclose(result.prefix_mass[0], [0.1, 0.91], rtol=1e-5)
    np.testing.assert_allclose(result.uniform_distance, far * 0.9, rtol=1e-12)


def test_patches_that_attend_to_no_patch():
    """They count as 0, and the renormalised mean leaves them out; a head with no others is NaN."""
    n = 5
    rows = torch.rand(2, n, n)
    rows[:, :, 0] = 0
    rows[0, 1] = functional.one_hot(torch.tensor(0), n)
    rows[1, 1:] = functional.one_hot(torch.tensor(0), n)
    rows /= rows.sum(-1, keepdim=True)
    result = run(rows, (2, 2), prefix=1)
    for h, head in enumerate(rows.tolist()):
        expected = reference.mean_distance(head, (2, 2), (4, 4), 1, renormalize=True)
        assert result.renormalised[0, h].item() == pytest.approx(expected, rel=1e-5, nan_ok=True)
        plain = reference.mean_distance(head, (2, 2), (4, 4), 1)
        assert result.distance[0, h].item() == pytest.approx(plain, rel=1e-5, abs=1e-6)
    assert np.isnan(result.renormalised[0, 1])  # the plain loops say so too
    assert result.distance[0, 1] == 0


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 5), st.integers(1, 5), st.integers(0, 3), st.integers(1, 4), st.integers(1, 4),
    st.integers(0, 99),
)  # fmt: skip
def test_the_plain_loops(height, width, prefix, patch_height, patch_width, seed):
    n = height * width + prefix
    generator = torch.Generator().manual_seed(seed)
    weights = (2 * torch.randn(2, n, n, generator=generator)).softmax(-1)
    patch, grid = (patch_height, patch_width), (height, width)
    result = run(weights, grid, patch, prefix, grid=grid)
    for h, head in enumerate(weights.tolist()):
        expected = {
            "distance": reference.mean_distance(head, grid, patch, prefix),
            "renormalised": reference.mean_distance(head, grid, patch, prefix, renormalize=True),
            "prefix_mass": reference.prefix_mass(head, prefix),
            "entropy": reference.entropy(head, prefix),
        }
        for name, value in expected.items():
            got = result[name][0, h].item()
            assert got == pytest.approx(value, rel=1e-5, abs=1e-5), name
    assert result.prefix.item() == prefix


# -- batches --------------------------------------------------------------------------------------


def by_hand(model, x, layer, grid, patch, prefix):
    """Whole weights of one forward, reduced by the array functions."""
    weights = taken(model, lambda m: m(x), layer)[layer]["weights"]
    return {
        "distance": repsim.attention.mean_distance(weights, grid, patch, prefix).mean(0),
        "renormalised": repsim.attention.mean_distance(
            weights, grid, patch, prefix, renormalize=True
        ).mean(0),
        "prefix_mass": repsim.attention.prefix_mass(weights, prefix).mean(0),
    }


def test_batches_of_any_size_and_a_short_last_one():
    model, x = spread(timm_vit(img_size=48)), images(7, 48)
    whole = measure(model, [x], progress=False)
    parts = measure(model, [x[:4], x[4:6], x[6:]], progress=False)
    for name in ("distance", "renormalised", "prefix_mass", "entropy"):
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-6)
    assert whole.n_samples == parts.n_samples == 7
    for layer in whole.layer.values:
        for name, expected in by_hand(model, x, layer, (6, 6), 8, 1).items():
            np.testing.assert_allclose(whole[name].sel(layer=layer), expected, rtol=1e-5)
    last = measure(model, [x[6:]], progress=False)
    assert np.abs(last.distance - whole.distance).max() > 1e-3  # the images do differ


@pytest.mark.parametrize("how", ["eager", "fused", "eager in chunks of its own"])
def test_fused_and_eager_attention_agree(how):
    model, x = spread(timm_vit()), images(3)
    expected = measure(model, [x], progress=False)
    result = measure(fused(model, how == "fused"), [x], progress=False)
    for name in ("distance", "renormalised", "prefix_mass", "entropy"):
        np.testing.assert_allclose(result[name], expected[name], rtol=1e-5)


@pytest.mark.slow
def test_batches_as_tuples_mappings_and_by_forward():
    model, x = spread(hugging_face("vit")), images(3)
    expected = measure(model, [x], progress=False)
    for data, options in (
        ([(x, torch.zeros(3))], {}),
        ([{"pixel_values": x}], {}),
        ([x.double()], {"prepare": lambda batch: batch.float()}),
        ([{"picture": x}], {"forward": lambda m, b: m(pixel_values=b["picture"])}),
    ):
        result = measure(model, data, progress=False, **options)
        assert result.identical(expected)


def test_parts_of_a_model_by_forward():
    model, x = spread(timm_vit()), images(3)
    expected = measure(model, [x, x[:1]], progress=False)
    result = measure(model, [x, x[:1]], progress=False, forward=lambda m, b: m.forward_features(b))
    assert result.identical(expected)


# -- grid and prefix ------------------------------------------------------------------------------

FOUND = {
    "timm vit": (timm_vit, 1),
    "timm registers": (lambda: timm_vit(reg_tokens=4), 5),
    "timm pooled": (lambda: timm_vit(class_token=False, global_pool="avg"), 0),
    "timm distilled": (lambda: timm_vit("deit_tiny_distilled_patch16_224"), 2),
    "timm beit": (lambda: timm_vit("beit_base_patch16_224"), 1),
    "timm eva": (lambda: timm_vit("eva02_tiny_patch14_224"), 1),
    "timm dinov3": (lambda: timm_vit("vit_small_patch16_dinov3"), 5),
    "timm naflexvit": (naflex, 2),
    "torchvision vit": (torchvision_vit, 1),
    "hf vit": (lambda: hugging_face("vit"), 1),
    "hf dinov2": (lambda: hugging_face("dinov2"), 1),
    "hf clip": (lambda: hugging_face("clip"), 1),
    "hf siglip": (lambda: hugging_face("siglip", vision_use_head=False), 0),
    "hf beit": (lambda: hugging_face("beit"), 1),
}


@pytest.mark.parametrize("name", FOUND)
def test_grid_and_prefix_are_found(name):
    build, prefix = FOUND[name]
    model, x = spread(build()), images(3)
    with unchanged(model):
        result = measure(model, [x[:2], x[2:]], progress=False)
    assert result.sizes["layer"] == 2
    assert set(result.prefix.values) == {prefix}
    for key, expected in (("grid_height", 4), ("grid_width", 4), ("patch_height", 8)):
        assert set(result[key].values) == {expected}
    assert result.n_samples == 3
    for layer in result.layer.values:
        for key, expected in by_hand(model, x, layer, (4, 4), 8, prefix).items():
            np.testing.assert_allclose(result[key].sel(layer=layer), expected, rtol=1e-5)


def test_images_and_patches_that_are_not_square():
    model = spread(timm_vit(img_size=(48, 32), patch_size=(16, 8)))
    x = images(2, (48, 32))
    result = measure(model, [x], progress=False)
    assert result.grid_height.values.tolist() == [3, 3]
    assert result.grid_width.values.tolist() == [4, 4]
    assert result.patch_height.values.tolist() == [16, 16]
    assert result.patch_width.values.tolist() == [8, 8]
    for key, expected in by_hand(model, x, "blocks.0.attn", (3, 4), (16, 8), 1).items():
        np.testing.assert_allclose(result[key].sel(layer="blocks.0.attn"), expected, rtol=1e-5)


def test_overlapping_patches_are_a_stride_apart():
    class Overlapping(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Conv2d(3, 8, 8, stride=4)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            x = self.embed(x).flatten(2).transpose(1, 2)
            return self.attention(x, x, x)[0]

    result = measure(Overlapping(), [images(2)], progress=False)
    assert (result.grid_height.item(), result.patch_height.item()) == (7, 4)


def test_the_last_convolution_that_fits():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.other = nn.Conv2d(3, 8, 8, stride=6)  # 5×5: 36 tokens could be 25 and 11 more
            self.embed = nn.Conv2d(3, 8, 2, stride=6)  # 6×6
            self.late = nn.Conv2d(3, 8, 32)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, images):
            shift = self.other(images).mean((2, 3), keepdim=True)
            x = (self.embed(images) + shift + self.late(images)).flatten(2).transpose(1, 2)
            return self.attention(x, x, x)[0]

    result = measure(Branches(), [images(2)], progress=False)
    assert (result.grid_height.item(), result.prefix.item()) == (6, 0)
    result = measure(Branches(), [images(2)], prefix=11, progress=False)
    assert (result.grid_height.item(), result.prefix.item()) == (5, 11)


def test_several_convolutions_and_a_strided_stem():
    class Stem(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(
                nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, stride=2, padding=1)
            )
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            x = self.stem(x).flatten(2).transpose(1, 2)
            return self.attention(x, x, x)[0]

    result = measure(Stem(), [images(2)], progress=False)
    assert (result.grid_height.item(), result.patch_height.item()) == (8, 4)


SWINS = {
    "timm swin": lambda: timm_swin("swin_tiny_patch4_window7_224"),
    "timm swin v2": lambda: timm_swin("swinv2_tiny_window8_256"),
    "torchvision swin": lambda: torchvision_swin(1),
    "torchvision swin v2": lambda: torchvision_swin(2),
    "hf swin": lambda: hugging_face_swin(1),
    "hf swin v2": lambda: hugging_face_swin(2),
}


@pytest.mark.parametrize("name", SWINS)
def test_windows_in_their_own_coordinates(name):
    torch.manual_seed(0)
    model, x = spread(SWINS[name]()), images(3, 64)
    with unchanged(model):
        result = measure(model, [x[:2], x[2:]], progress=False)
    assert result.grid_height.values.tolist() == [4] * 4
    assert result.patch_width.values.tolist() == [4, 4, 8, 8]  # the stride of each stage
    assert result.n_samples == 3
    assert np.isnan(result.distance.values[:2, 2:]).all()  # heads that the first stage lacks
    assert not np.isnan(result.distance.values[2:]).any()
    for layer, patch in zip(result.layer.values, (4, 4, 8, 8), strict=True):
        heads = 2 if patch == 4 else 4
        for key, expected in by_hand(model, x, layer, (4, 4), patch, 0).items():
            got = result[key].sel(layer=layer)[:heads]
            np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_windows_of_an_image_that_they_do_not_tile():
    """40 pixels are 10 tokens, padded to 12; the last stage's 5 are padded to 8."""
    torch.manual_seed(0)
    model = spread(torchvision_swin(1))
    result = measure(model, [images(2, 40)], progress=False)
    assert result.patch_width.values.tolist() == [4, 4, 8, 8]
    assert result.grid_width.values.tolist() == [4] * 4


def test_a_single_window():
    torch.manual_seed(0)
    model = spread(timm_swin("swin_tiny_patch4_window7_224", img_size=32))
    result = measure(model, [images(2, 32)], progress=False)
    assert result.patch_width.values.tolist() == [4, 4, 8, 8]
    assert result.n_samples == 2


class TestDeclared:
    def test_it_takes_precedence_over_evidence(self):
        model, x = spread(timm_vit()), images(2)
        result = measure(model, [x], grid=(2, 8), patch_size=(3, 5), progress=False)
        assert set(result.grid_height.values) == {2}
        assert set(result.patch_width.values) == {5}
        for key, expected in by_hand(model, x, "blocks.1.attn", (2, 8), (3, 5), 1).items():
            np.testing.assert_allclose(result[key].sel(layer="blocks.1.attn"), expected, rtol=1e-5)

    def test_by_layer(self):
        model, x = spread(timm_vit()), images(2)
        result = measure(
            model,
            [x],
            grid={"blocks.1.attn": 4, "*": (2, 8)},
            patch_size={"*": 1, "blocks.0.attn": 7},
            prefix={"blocks.?.attn": 1},
            progress=False,
        )
        assert result.grid_height.values.tolist() == [2, 4]
        assert result.patch_height.values.tolist() == [7, 1]

    def test_text_in_tokens(self):
        model = spread(hugging_face("bert"))
        data = [{"input_ids": ids()}]
        found = measure(model, data, progress=False)
        declared = measure(model, data, grid=(1, 7), progress=False)
        np.testing.assert_array_equal(found.distance, declared.distance)
        layer = found.layer.values[0]
        weights = taken(model, lambda m: m(**data[0]))[layer]["weights"]
        expected = repsim.attention.mean_distance(weights, (1, 7), 1).mean(0)
        np.testing.assert_allclose(found.distance[0], expected, rtol=1e-5)

    def test_sequence_first_models_count_samples(self):
        model = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(8, 2, 8), 1, enable_nested_tensor=False
        )
        result = measure(model, [torch.randn(4, 8, 8)], grid=(2, 2), patch_size=1, progress=False)
        assert result.n_samples == 8

    def test_prefix_alone_chooses_the_grid(self):
        result = measure(hugging_face("vit"), [images(2)], prefix=1, progress=False)
        assert set(result.grid_height.values) == {4}
        with pytest.raises(InputError, match="unknown"):
            measure(hugging_face("vit"), [images(2)], prefix=3, progress=False)

    @pytest.mark.parametrize(
        "options",
        [{"grid": (5, 4)}, {"grid": 4, "prefix": 2}, {"grid": 4, "prefix": 0}],
    )
    def test_grids_that_do_not_fit_are_refused(self, options):
        with pytest.raises(InputError, match=r"grid does not fit layer 'blocks\.0\.attn'"):
            measure(timm_vit(), [images(2)], **options, progress=False)

    @pytest.mark.parametrize(
        ("options", "match"),
        [
            ({"grid": 0}, "grid must be"),
            ({"grid": (1, 2, 3)}, "grid must be"),
            ({"grid": {"*": 2.5}}, "grid must be"),
            ({"patch_size": -1}, "patch_size must be"),
            ({"prefix": -1}, "prefix must be"),
            ({"prefix": {"*": 0.5}}, "prefix must be"),
        ],
    )
    def test_invalid_options_are_refused(self, options, match):
        with pytest.raises(InputError, match=f"attention_distance: {match}"):
            measure(timm_vit(), [images(2)], **options, progress=False)

    def test_layers_that_are_not_there(self):
        with pytest.raises(LayerNotFoundError, match=r"patch_size names 'stage\.\*'"):
            measure(timm_vit(), [images(2)], patch_size={"stage.*": 4}, progress=False)


class TestUnknownPlaces:
    def test_no_convolution_fits(self):
        class Linear(nn.Module):
            def __init__(self):
                super().__init__()
                self.attention = nn.MultiheadAttention(48, 2, batch_first=True)

            def forward(self, x):
                x = functional.unfold(x, 4, stride=4).transpose(1, 2)
                return self.attention(x, x, x)[0]

        with pytest.raises(InputError, match=r"(?s)64 tokens.*input: \(32, 32\).*nothing"):
            measure(Linear(), [images(2)], progress=False)
        result = measure(Linear(), [images(2)], grid=8, progress=False)
        assert result.patch_height.item() == 4

    def test_tokens_or_channels(self):
        """16 patches, 16 channels, one head, copied values: patches and channels look the same."""

        class Copied(nn.Module):
            def __init__(self):
                super().__init__()
                self.embed = nn.Conv2d(3, 16, 8, stride=8)
                self.attention = Attention()

            def forward(self, x):
                return self.attention(self.embed(x).flatten(2).transpose(1, 2))

        class Attention(nn.Module):
            def forward(self, x):
                x = x.contiguous()[:, None]
                return functional.scaled_dot_product_attention(x, x, x)[:, 0]

        with pytest.raises(InputError, match="grid of layer 'attention' is unknown"):
            measure(Copied(), [images(2)], progress=False)
        assert measure(Copied(), [images(2)], grid=4, progress=False).patch_height.item() == 8

    def test_windows_of_unknown_shape(self):
        class Windows(nn.Module):
            def __init__(self):
                super().__init__()
                self.embed = nn.Conv2d(3, 8, 4, stride=4)
                self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

            def forward(self, x):
                x = self.embed(x).flatten(2).transpose(1, 2).reshape(-1, 16, 8)
                return self.attention(x, x, x)[0]

        with pytest.raises(InputError, match="16 tokens in each of 4 windows of a sample"):
            measure(Windows(), [images(2)], progress=False)
        # They may be parts of a map, or lie far apart as in MaxViT.
        with pytest.raises(InputError, match="pixels between the tokens of layer 'attention'"):
            measure(Windows(), [images(2)], grid=4, progress=False)
        result = measure(Windows(), [images(2)], grid=4, patch_size=4, progress=False)
        assert result.n_samples == 2

    def test_the_text_of_a_model_that_also_sees(self):
        """18 tokens of text are not 4×4 patches and two more."""
        config = transformers.CLIPConfig(
            text_config={
                "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                "vocab_size": 50, "intermediate_size": 16, "max_position_embeddings": 20,
                "eos_token_id": 49,
                "bos_token_id": 48,
            },
            vision_config={
                "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                "intermediate_size": 16, "image_size": 32, "patch_size": 8,
            },
            projection_dim=8,
        )  # fmt: skip
        model = transformers.CLIPModel(config)
        data = [{"input_ids": ids(2, 18), "pixel_values": images(2)}]
        both = measure(model, data, progress=False)
        grids = dict(zip(both.layer.values, both.grid_width.values, strict=True))
        assert grids["text_model.encoder.layers.0.self_attn"] == 18
        assert grids["vision_model.encoder.layers.0.self_attn"] == 4
        # 17 tokens may be 4×4 patches and CLS, or a text.
        doubt = [{"input_ids": ids(2, 17), "pixel_values": images(2)}]
        with pytest.raises(InputError, match=r"grid of layer '(text|vision)_model"):
            measure(model, doubt, progress=False)
        result = measure(model, data, layers="vision_model.*", progress=False)
        assert result.layer.values.tolist() == ["vision_model.encoder.layers.0.self_attn"]

    def test_images_that_change_size(self):
        model = hugging_face("vit")
        data = [images(2), images(2, 48)]
        with pytest.raises(InputError, match=r"(?s)changes from batch to batch.*sort them by size"):
            measure(
                model, data, progress=False,
                forward=lambda m, b: m(b, interpolate_pos_encoding=True),
            )  # fmt: skip


# -- what has no distances ------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("size", [64, 128])
def test_channel_attention_never_gets_distances(kernel, size):
    """At 64 pixels there are 16 patches, and 16 channels a head: the numbers would fit."""
    model = timm.create_model(
        "xcit_nano_12_p16_224", img_size=size, embed_dim=64, num_heads=4, depth=1,
        cls_attn_layers=1,
    ).eval()  # fmt: skip
    fused(model, kernel)
    for options in ({}, {"layers": "blocks.*"}, {"grid": 4, "patch_size": 16, "prefix": 0}):
        with pytest.raises(CaptureError, match=r"(?s)no distances.*blocks\.0\.attn.*16 channels"):
            measure(model, [images(2, size)], progress=False, **options)
    with pytest.raises(CaptureError, match=r"(?s)no distances in 'blocks\.0\.attn'"):
        measure(model, [images(2, size)], layers="blocks.0.attn", progress=False)


def test_channel_attention_beside_attention_in_windows():
    model = timm.create_model(
        "davit_tiny", depths=(1, 1), embed_dims=(32, 64), num_heads=(2, 4)
    ).eval()
    x = images(2, 56)
    with pytest.warns(RepsimWarning, match=r"left out.*\n.*over 16 channels a head") as caught:
        result = measure(model, [x, x], progress=False)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert all("blocks.0.0" in name for name in result.layer.values)
    assert result.sizes["layer"] == 2


def test_attention_from_other_queries_is_left_out():
    model = spread(hugging_face("siglip"))
    with pytest.warns(RepsimWarning, match=r"head\.attention attends from 1 queries to 16 keys"):
        result = measure(model, [images(2)], progress=False)
    assert result.sizes["layer"] == 2
    name = next(k for k, _ in model.named_modules() if k.endswith("head.attention"))
    with pytest.raises(CaptureError, match="no distances in"):
        measure(model, [images(2)], layers=["*layers*", name], progress=False)


class Speech(nn.Module):
    """As in Conformers: a convolution over time and frequency, and one token for each step."""

    def __init__(self):
        super().__init__()
        self.map, self.embed = nn.Conv2d(1, 2, 3, 2, 1), nn.Linear(16, 8)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)

    def forward(self, sound):  # (B, 16 steps, 16 frequencies) to 8 tokens, and not to 4×2
        return self.encoder(self.embed(self.map(sound[:, None]).transpose(1, 2).flatten(2)))


class Packed(nn.Module):
    """As in SigLIP 2: patches of images of any size, and which of them are padding."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)

    def forward(self, pixel_values, pixel_attention_mask):
        return self.encoder(pixel_values, src_key_padding_mask=pixel_attention_mask == 0)


def test_what_is_neither_an_image_nor_a_text_has_no_places():
    torch.manual_seed(0)
    masked = {"pixel_values": torch.randn(3, 6, 8), "pixel_attention_mask": torch.ones(3, 6).int()}
    for model, batch in ((Speech(), torch.randn(3, 16, 16)), (Packed(), masked)):
        with pytest.raises(InputError, match="the grid of layer 'encoder.self_attn' is unknown"):
            measure(model, [batch], progress=False)
    options = {"grid": (2, 3), "patch_size": 1, "progress": False}
    assert measure(Packed(), [masked], **options).distance.notnull().all()
    masked["pixel_attention_mask"][1, 4:] = 0
    with pytest.raises(InputError, match="some patches of layer 'encoder.self_attn' are padding"):
        measure(Packed(), [masked], **options)


class Detector(nn.Module):
    """As in DETR: learned queries attend to one another, and to the patches of an image."""

    def __init__(self, queries, decoder=nn.TransformerDecoderLayer):
        super().__init__()
        self.map, self.queries = nn.Conv2d(3, 8, 4, 4), nn.Parameter(torch.randn(queries, 8))
        self.encoder = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)
        self.decoder = decoder(8, 2, 8, batch_first=True)

    def forward(self, image, text=None):
        patches = self.encoder(self.map(image).flatten(2).mT)
        queries = self.queries.expand(len(image), -1, -1)
        return self.decoder(queries, patches) if text is None else self.decoder(patches, text)


class CrossFirst(nn.TransformerDecoderLayer):
    """As in Mask2Former, with another name of the second sequence."""

    def forward(self, x, levels):
        x, _ = self.multihead_attn(x, levels, levels)
        return self.self_attn(x, x, x)[0]


@pytest.mark.parametrize(
    ("queries", "decoder"),
    [(4, nn.TransformerDecoderLayer), (6, nn.TransformerDecoderLayer), (6, CrossFirst)],
)
def test_learned_queries_have_no_places(queries, decoder):
    """Six queries are not four patches and two other tokens, and four queries are not patches."""
    torch.manual_seed(0)
    model = Detector(queries, decoder)
    with pytest.warns(RepsimWarning, match=f"decoder.self_attn attends among {queries} queries"):
        found = measure(model, [images(2, 8)], progress=False)
    assert found.layer.values.tolist() == ["encoder.self_attn", "decoder.multihead_attn"]
    assert found.kind.values.tolist() == ["self", "cross"]
    given = measure(model, [images(2, 8)], grid=(1, queries), patch_size=1, layers="decoder*",
                    progress=False)  # fmt: skip
    assert given.distance.notnull().any()


def test_patches_that_attend_to_a_text_have_places():
    torch.manual_seed(0)
    batch = {"image": images(2, 8), "text": torch.randn(2, 5, 8)}
    found = measure(Detector(4), [batch], progress=False)
    names = ["encoder.self_attn", "decoder.self_attn", "decoder.multihead_attn"]
    assert found.layer.values.tolist() == names
    assert found.kind.values.tolist() == ["self", "self", "cross"]


def test_a_model_without_attention():
    with pytest.raises(CaptureError, match="no attention was seen"):
        measure(nn.Sequential(nn.Conv2d(3, 4, 3)), [images(2)], progress=False)


def test_layers():
    model = timm_vit()
    result = measure(model, [images(2)], layers="blocks.1.attn", progress=False)
    assert result.layer.values.tolist() == ["blocks.1.attn"]
    with pytest.raises(LayerNotFoundError, match="no layer is called"):
        measure(model, [images(2)], layers="blocks.9.attn", progress=False)
    with pytest.raises(LayerNotFoundError, match=r"inside there is attention in 'blocks\.0\.attn'"):
        measure(model, [images(2)], layers="blocks.0", progress=False)


def test_a_module_with_several_calls_has_a_row_for_each():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Conv2d(3, 8, 8, stride=8)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            x = self.embed(x).flatten(2).transpose(1, 2)
            for _ in range(2):
                x = x + 5 * self.attention(x, x, x)[0]
            return x

    result = measure(spread(Twice()), [images(2), images(1)], progress=False)
    assert result.layer.values.tolist() == ["attention:0", "attention:1"]
    assert abs(result.distance[0] - result.distance[1]).max() > 1e-4


# -- the rest -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_non_finite_numbers_are_reported(value):
    model, x = timm_vit(), images(3)
    bad = x.clone()
    bad[1, 0, 0, 0] = value
    given = []

    def data():
        for batch in (x, bad, x):
            given.append(batch)
            yield batch

    with (
        unchanged(model),
        pytest.raises(NonFiniteError, match=r"layer 'blocks\.0\.attn', batch 1 \(counted from 0\)"),
    ):
        measure(model, data(), progress=False)
    assert len(given) == 2  # at once, where that costs nothing


def test_the_model_and_the_random_state_are_as_before():
    model = spread(timm_vit(proj_drop_rate=0.5, attn_drop_rate=0.5)).train()
    model.blocks[0].eval()
    expected = measure(copy.deepcopy(model).eval(), [images(2)], progress=False)
    with unchanged(model):
        result = measure(model, [images(2)], progress=False)
    assert result.identical(expected)
    with unchanged(model), pytest.raises(ValueError, match="unpack"):
        measure(model, [images(2), torch.zeros(2, 5, 7)], progress=False)
    assert torch.overrides._len_torch_function_stack() == 0


def test_half_precision_and_autocast():
    model, x = spread(timm_vit()), images(4)
    expected = measure(model, [x], progress=False)

    def autocast(m, batch):
        with torch.autocast("cpu", torch.bfloat16):
            return m(batch)

    half = copy.deepcopy(model).bfloat16()
    for result in (
        measure(half, [x.bfloat16()], progress=False),
        measure(model, [x], forward=autocast, progress=False),
    ):
        assert result.distance.dtype == np.float64
        np.testing.assert_allclose(result.distance, expected.distance, rtol=0.03)
        assert np.abs(result.distance - expected.distance).max() > 1e-5


def test_double_precision():
    weights = (2 * torch.randn(2, 10, 10, dtype=torch.float64)).softmax(-1)
    model = Given(weights, 4, 1).double()

    def forward(m, batch):
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            return m(batch)
        finally:
            torch.set_default_dtype(default)

    x = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    result = measure(model, [x], forward=forward, progress=False)
    expected = [reference.mean_distance(head, (3, 3), (4, 4), 1) for head in weights.tolist()]
    np.testing.assert_allclose(result.distance[0], expected, rtol=1e-12)


def test_attributes():
    result = measure(timm_vit(), [images(2)], name="small", progress=False)
    assert result.attrs["model"] == "small"
    assert {"n_samples", "torch_version", "repsim_version"} <= set(result.attrs)
    assert measure(timm_vit(), [images(2)], progress=False).attrs["model"] == "VisionTransformer"
    assert result.distance.attrs["units"] == "pixels"
    assert result.entropy.attrs["units"] == "nats"
    for variable in result.variables:
        if variable not in ("layer", "head"):
            assert result[variable].attrs["long_name"], variable
    result.to_dataframe()


def test_data_that_are_no_batches():
    with pytest.raises(InputError, match="attention_distance: data must be an iterable"):
        measure(timm_vit(), images(2), progress=False)
    with pytest.raises(InputError, match="attention_distance: data gave no batch"):
        measure(timm_vit(), [], progress=False)


def test_a_batch_walks_through_no_buffers():
    """The first parameter tells the device: large models have thousands of both."""
    model, walks = timm_vit(), []
    buffers = model.buffers

    def counted(recurse=True):
        walks.append(recurse)
        yield from buffers(recurse)

    model.buffers = counted
    counts = []
    for n in (1, 4):
        walks.clear()
        measure(model, [images(1)] * n, progress=False)
        counts.append(len(walks))
    assert counts[0] == counts[1]


def test_memory():
    """No tensor of batch × heads × tokens² is made, nor one of half that size."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else (out,):
                if isinstance(tensor, torch.Tensor):
                    self.numel = max(self.numel, tensor.numel())
            return out

    model = timm_vit(patch_size=2, depth=1, mlp_ratio=1)  # 257 tokens, 3 heads
    x = images(16)
    with Largest() as during:
        measure(model, [x], progress=False)
    assert during.numel < 16 * 3 * 257**2 / 2
