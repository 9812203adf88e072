"""Every analysis finds the same grid, prefix and step."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import repsim
from repsim.attention import grid_distances, uniform_distance

QUIET = {"progress": False}


def images(n=2, size=16, seed=0):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


class LaterConvolution(nn.Module):
    """Patches of 4×4 pixels, one more token, and a convolution with stride 2 beside the tokens."""

    def __init__(self, uniform=True):
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.later = nn.Conv2d(3, 16, 4, 4), nn.Conv2d(16, 16, 2, 2)
        self.extra = nn.Parameter(torch.randn(1, 1, 16))
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        if uniform:
            nn.init.zeros_(self.attention.in_proj_weight[:32].data)
        self.out = nn.Identity()

    def forward(self, x):
        maps = self.patches(x)
        later = self.later(maps)
        tokens = maps.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.extra.expand(len(x), -1, -1), tokens], 1)
        return self.out(tokens + self.attention(tokens, tokens, tokens)[0] + later.mean())


def at(result, *names):
    return tuple(result[name].values.ravel()[-1].item() for name in names)


class TestAllAnalyses:
    """17 tokens of 16×16 pixels: 4×4 patches after one more token, whoever asks."""

    def test_attention_distance(self):
        result = repsim.attention_distance(LaterConvolution(), [images()], **QUIET)
        assert at(result, "grid_height", "grid_width", "prefix") == (4, 4, 1)
        assert at(result, "patch_height", "patch_width") == (4, 4)
        np.testing.assert_allclose(result.distance, uniform_distance(4, 4, 1), rtol=1e-6)
        np.testing.assert_allclose(result.prefix_mass, 1 / 17, rtol=1e-6)
        learned = repsim.attention_distance(LaterConvolution(False), [images()], **QUIET)
        assert np.all(abs(learned.distance - 7.53) < 0.2)

    def test_the_others(self):
        model, data = LaterConvolution(), [images(8), images(8, seed=1)]
        subsets = repsim.head_subset_cka(
            model, model, data, layer="attention", layers_y=["out"], **QUIET
        )
        np.testing.assert_allclose(subsets.head_distance, uniform_distance(4, 4, 1), rtol=1e-6)
        places = repsim.token_localization(model, data, ["out"], **QUIET)
        assert at(places, "grid_height", "grid_width") == (4, 4)
        assert places.is_prefix.values.sum() == 1
        field = repsim.effective_receptive_field(model, data, ["out"], **QUIET)
        assert at(field, "grid_height", "grid_width") == (4, 4)
        ratios = repsim.residual_ratios(model, data, **QUIET)
        assert set(ratios.n_prefix.values) == {1}
        labelled = [(images(12), torch.arange(12) % 2)]
        options = {"layers": ["out"], "tokens": ("mean_without_cls", "each"), "ridges": [1.0]}
        probe = repsim.linear_probe(model, labelled, labelled, holdout=0.0, **options, **QUIET)
        assert not np.isnan(probe.accuracy).any()
        spatial = repsim.linear_probe(
            model, labelled, labelled, holdout=0.0, prefix=1, **options, **QUIET
        )
        np.testing.assert_array_equal(probe.accuracy, spatial.accuracy)

    def test_options_have_the_same_forms(self):
        model, data = LaterConvolution(), [images(8)]
        grids = (4, np.int64(4), (4, 4), [4, 4], {"*": 4})
        for grid in grids:
            attention = repsim.attention_distance(model, data, grid=grid, **QUIET)
            assert at(attention, "grid_height", "prefix") == (4, 1), grid
            places = repsim.token_localization(model, data, ["out"], grid=grid, **QUIET)
            assert at(places, "grid_height") == (4,), grid
            field = repsim.effective_receptive_field(model, data, ["out"], grid=grid, **QUIET)
            assert at(field, "grid_height") == (4,), grid
        for prefix in (1, np.int64(1), {"*": 1}):
            for analysis in (repsim.token_localization, repsim.effective_receptive_field):
                assert at(analysis(model, data, ["out"], prefix=prefix, **QUIET), "grid_width") == (
                    4,
                )
            ratios = repsim.residual_ratios(model, data, prefix=prefix, **QUIET)
            assert set(ratios.n_prefix.values) == {1}
        for wrong in (True, 1.5, "1", -1, {"*": True}):
            for analysis in (
                lambda **options: repsim.attention_distance(model, data, **options, **QUIET),
                lambda **options: repsim.token_localization(model, data, "out", **options, **QUIET),
                lambda **options: repsim.residual_ratios(model, data, **options, **QUIET),
                lambda **options: repsim.linear_probe(
                    model, data, data, layers="out", **options, **QUIET
                ),
            ):
                with pytest.raises(repsim.InputError, match="prefix must be a whole number"):
                    analysis(prefix=wrong)

    def test_a_pattern_that_names_nothing(self):
        model, data = LaterConvolution(), [images(8)]
        for analysis in (
            lambda: repsim.token_localization(model, data, ["out"], grid={"in": 4}, **QUIET),
            lambda: repsim.effective_receptive_field(model, data, ["out"], grid={"in": 4}, **QUIET),
        ):
            with pytest.raises(repsim.LayerNotFoundError, match="grid names 'in'"):
                analysis()


class Detector(nn.Module):
    """As in DETR: five learned queries attend to 2×2 patches. Five are not four and a CLS token."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.map, self.queries = nn.Conv2d(3, 8, 8, 8), nn.Parameter(torch.randn(5, 8))
        self.encoder = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)
        self.decoder = nn.TransformerDecoderLayer(8, 2, 8, batch_first=True)

    def forward(self, image, text=None):
        patches = self.encoder(self.map(image).flatten(2).mT)
        if text is not None:
            return self.decoder(patches, text)
        return self.decoder(self.queries.expand(len(image), -1, -1), patches)


def test_learned_queries_have_no_places():
    model, data = Detector(), [images(8)]
    for analysis in (repsim.token_localization, repsim.effective_receptive_field):
        with pytest.raises(repsim.CaptureError, match="'decoder'.*\n.*5 tokens are queries"):
            analysis(model, data, ["encoder", "decoder"], **QUIET)
        assert at(analysis(model, data, ["decoder"], grid=(1, 5), **QUIET), "grid_width") == (5,)
        assert at(analysis(model, data, ["encoder"], **QUIET), "grid_width") == (2,)
        # The patches attend to a text that the model got.
        beside = [{"image": images(8), "text": torch.randn(8, 5, 8)}]
        assert at(analysis(model, beside, ["decoder"], **QUIET), "grid_width") == (2,)
    with pytest.raises(repsim.InputError, match="5 tokens of site 'decoder.*\n.*are queries that"):
        repsim.residual_ratios(model, data, **QUIET)
    ratios = repsim.residual_ratios(model, data, prefix={"decoder*": 0}, **QUIET)
    assert set(ratios.n_prefix.values) == {0}
    assert np.isfinite(ratios.ratio_spatial).all()
    labelled = [(images(12), torch.arange(12) % 2)]
    with pytest.warns(repsim.RepsimWarning, match="distinguished from the patches:\n  decoder"):
        probe = repsim.linear_probe(
            model, labelled, labelled, layers=["decoder"], tokens=("mean", "mean_without_cls"),
            ridges=[1.0], holdout=0.0, **QUIET,
        )  # fmt: skip
    assert np.isnan(probe.accuracy.values).ravel().tolist() == [False, True]


def test_tokens_of_a_text_have_no_places_in_an_image():
    class Both(nn.Module):
        """Images of 2×2 patches and a CLS token, and texts of five tokens."""

        def __init__(self):
            super().__init__()
            self.map, self.embed = nn.Conv2d(3, 8, 8, 8), nn.Embedding(9, 8)
            self.out = nn.Identity()

        def forward(self, ids, image):
            return self.out(self.embed(ids) + self.map(image).mean((2, 3))[:, None])

    batch = {"ids": torch.arange(40).reshape(8, 5) % 9, "image": images(8)}
    for analysis in (repsim.token_localization, repsim.effective_receptive_field):
        with pytest.raises(repsim.CaptureError, match="5 tokens may be those of a text"):
            analysis(Both(), [batch], ["out"], **QUIET)


class Unfolded(nn.Module):
    """As in MobileViT v2: a map of the pixels in a patch by the patches is none of the image."""

    def __init__(self):
        super().__init__()
        self.stem, self.mix = nn.Conv2d(3, 6, 2, 2), nn.Conv2d(6, 6, 1)
        self.out = nn.Identity()

    def forward(self, x):
        return self.out(
            self.mix(nn.functional.unfold(self.stem(x), 2, stride=2).unflatten(1, (6, 4)))
        )


def test_rearranged_positions_have_no_places():
    data = [images(8)]
    for analysis in (repsim.token_localization, repsim.effective_receptive_field):
        assert at(analysis(Unfolded(), data, ["stem"], **QUIET), "grid_width") == (8,)
        with pytest.raises(repsim.CaptureError, match="positions of layer 'out' are unknown"):
            analysis(Unfolded(), data, ["out"], **QUIET)


class Ordered(nn.Module):
    """4×4 patches with position embeddings, in some order, and maybe other tokens behind them."""

    def __init__(self, order, behind=0, norm=nn.Identity):
        super().__init__()
        self.norm = norm(8)
        torch.manual_seed(0)
        self.order = order
        self.map, self.places = nn.Conv2d(3, 8, 4, 4), nn.Parameter(torch.randn(16, 8))
        self.behind = nn.Parameter(torch.randn(behind, 8))
        self.tokens = nn.Identity()
        self.block = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)
        self.merged = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)

    def forward(self, x):
        x = self.tokens(self.norm(self.map(x).flatten(2).mT) + self.places)[:, self.order]
        x = self.block(torch.cat([x, self.behind.expand(len(x), -1, -1)], 1))
        return self.merged(x[:, :16].unflatten(1, (4, 4)).amax(1))


WINDOWS = [r * 4 + c for i in (0, 2) for j in (0, 2) for r in (i, i + 1) for c in (j, j + 1)]


def test_patches_in_another_order_have_no_places():
    """As in Hiera, whose windows lie one after the other; each later token is one window."""
    model, data = Ordered(WINDOWS), [images(24), images(24, seed=1)]
    for analysis in (repsim.token_localization, repsim.effective_receptive_field):
        with pytest.raises(repsim.CaptureError, match="'block'.*\n.*not in the order of rows"):
            analysis(model, data, ["block"], **QUIET)
        # The caller may put them in order.
        rows = torch.tensor(WINDOWS).argsort()
        sorted_ = analysis(model, data, ["block"], grid=4, select=lambda y: y[:, rows], **QUIET)
        for name in ("hit_rate", "participation"):
            if name in sorted_:
                straight = analysis(Ordered(range(16)), data, ["block"], **QUIET)
                np.testing.assert_allclose(sorted_[name], straight[name], rtol=1e-3)
        with pytest.raises(repsim.CaptureError, match="not in the order of rows"):
            analysis(model, data, ["merged"], **QUIET)
        assert at(analysis(model, data, ["merged"], grid=2, **QUIET), "grid_width") == (2,)
        assert at(analysis(model, data, ["tokens"], **QUIET), "grid_width") == (4,)
        ordered = analysis(Ordered(range(16)), data, ["block", "merged"], **QUIET)
        assert ordered.grid_width.values.tolist() == [4, 2]
    with pytest.raises(repsim.CaptureError, match="block.self_attn .* not in the order of rows"):
        repsim.attention_distance(model, data, layers="block.self_attn", **QUIET)
    with pytest.raises(repsim.CaptureError, match="not in the order of rows"):
        repsim.head_subset_cka(
            model, model, data, layer="block.self_attn", layers_y=["map"], **QUIET
        )
    found = repsim.attention_distance(Ordered(range(16)), data, **QUIET)
    assert found.grid_width.values.tolist() == [4, 2]


def test_tokens_behind_the_patches_are_no_prefix():
    """As in GroupViT: three group tokens follow the normalised patches."""
    model, data = Ordered(range(16), behind=3, norm=nn.LayerNorm), [images(24)]
    for analysis in (repsim.token_localization, repsim.effective_receptive_field):
        with pytest.raises(repsim.CaptureError, match="3 of its tokens follow the patches"):
            analysis(model, data, ["block"], **QUIET)
    for grid in (None, 4):  # a grid puts patches in order, and other tokens before them
        with pytest.raises(repsim.CaptureError, match="3 of its tokens follow the patches"):
            repsim.attention_distance(model, data, layers="block.self_attn", grid=grid, **QUIET)
    with pytest.raises(repsim.InputError, match="19 tokens of .*\n.* follow the patches"):
        repsim.residual_ratios(model, data, **QUIET)
    labelled = [(images(12), torch.arange(12) % 2)]
    with pytest.warns(repsim.RepsimWarning, match="distinguished from the patches:\n  block"):
        probe = repsim.linear_probe(
            model, labelled, labelled, layers=["block"], tokens=("mean", "mean_without_cls"),
            ridges=[1.0], holdout=0.0, **QUIET,
        )  # fmt: skip
    assert np.isnan(probe.accuracy.values).ravel().tolist() == [False, True]


class ClassTokenLast(nn.Module):
    """4×4 patches without a convolution, and a class token behind them, as in Llama 4."""

    def __init__(self):
        super().__init__()
        self.embed, self.class_embedding = nn.Linear(48, 8), nn.Parameter(torch.randn(8))
        self.block = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)

    def forward(self, x):
        patches = self.embed(nn.functional.unfold(x, 4, stride=4).mT)
        return self.block(torch.cat([patches, self.class_embedding.expand(len(x), 1, -1)], 1))


def test_class_token_behind_the_patches():
    model, data = ClassTokenLast().eval(), [images(24)]
    follows = "its last token follows the patches"
    with pytest.raises(repsim.CaptureError, match=rf"{follows}\n.*transform=\"last\""):
        repsim.compare(model, model, data, layers=["block"], transform="cls", **QUIET)
    recorder = repsim.capture.Recorder(model, ["block"], transform="cls")
    with torch.no_grad(), pytest.raises(repsim.CaptureError, match=follows), recorder:
        model(data[0])
    for analysis in (repsim.token_localization, repsim.effective_receptive_field):
        with pytest.raises(repsim.CaptureError, match=follows):
            analysis(model, data, ["block"], grid=4, **QUIET)
    with pytest.raises(repsim.CaptureError, match=follows):
        repsim.attention_distance(model, data, grid=4, **QUIET)
    # A grid of all tokens gives the class token a place too.
    line = repsim.attention_distance(model, data, grid=(1, 17), patch_size=4, **QUIET)
    assert line.prefix.item() == 0


# -- steps are strides -----------------------------------------------------------------------------


def measured(model, size, layers="*"):
    """Attention distances of one image: no NaN, and only warnings of left-out layers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", repsim.RepsimWarning)
        return repsim.attention_distance(model, [images(1, size)], layers=layers, **QUIET)


def test_sizes_that_strides_do_not_divide():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    vit = timm.create_model(
        "vit_tiny_patch16_224", dynamic_img_size=True, dynamic_img_pad=True, depth=1, embed_dim=24,
        num_heads=2,
    )  # fmt: skip
    assert at(measured(vit, 97), "grid_height", "patch_height", "prefix") == (7, 16, 1)
    parts = timm.models.metaformer
    caformer = parts.MetaFormer(
        depths=[1, 1, 1, 1], dims=[8, 16, 32, 64], num_classes=2, drop_path_rate=0.0,
        token_mixers=[parts.SepConv, parts.SepConv, parts.Attention, parts.Attention],
        norm_layers=[parts.LayerNorm2dNoBias] * 2 + [parts.LayerNormNoBias] * 2,
    )  # fmt: skip
    assert at(measured(caformer, 250), "grid_height", "patch_height") == (8, 32)
    nextvit = timm.models.nextvit.NextViT(
        in_chans=3, stem_chs=(64, 32, 64), depths=(1, 1, 5, 1), head_dim=32, num_classes=2
    )
    assert at(measured(nextvit, 250), "grid_height", "patch_height") == (8, 32)


def test_forwards_that_look_for_the_samples_show_no_maps():
    """As in Depth Anything: the last map is larger, and a third of it is as wide as channels."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 3, 2, 2), nn.Upsample(scale_factor=2), nn.Conv2d(3, 3, 1), nn.LayerNorm(12)
    )
    data = [torch.randn(4, 3, 8, 12) for _ in range(2)]
    options = {"layers": ["0"], "progress": False}
    for result in (
        repsim.token_localization(model, data, **options),
        repsim.effective_receptive_field(model, data, **options),
    ):
        assert at(result, "grid_height", "grid_width") == (4, 6)


# -- windows: padding is neither a query nor a key -------------------------------------------------


def uniform_over(board, window, step):
    """The mean distance of uniform attention among the true positions of each window, by loops."""
    rows, columns = board.shape
    distances = grid_distances(window, step)
    total = count = 0
    for top in range(0, rows, window):
        for left in range(0, columns, window):
            real = np.flatnonzero(board[top : top + window, left : left + window])
            for i in real:
                total += sum(distances[i, j] for j in real) / len(real)
            count += len(real)
    return total / count


def padded(size, window, shift=0):
    """True where a map of size × size lies once it is padded to whole windows and shifted."""
    whole = -(-size // window) * window
    board = np.zeros((whole, whole), dtype=bool)
    board[:size, :size] = True
    return np.roll(board, (-shift, -shift), axis=(0, 1))


@pytest.fixture(scope="module")
def swin():
    """Two blocks in the last stage, as in Swin-T; narrow, and with few layers before."""
    models = pytest.importorskip("torchvision").models
    torch.manual_seed(0)
    return models.SwinTransformer(
        patch_size=[4, 4], embed_dim=12, depths=[1, 1, 1, 2], num_heads=[1, 1, 1, 2],
        window_size=[7, 7], num_classes=2,
    ).eval()  # fmt: skip


def test_a_map_smaller_than_its_window(swin):
    """100 pixels: 4×4 tokens in a window of 7×7, which the stride of 32 sets 32 pixels apart."""
    result = measured(swin, 100, "features.7.*")
    assert at(result, "grid_height", "patch_height") == (7, 32)
    expected = uniform_over(padded(4, 7), 7, 32)
    assert expected == pytest.approx(uniform_distance(4, 32)) == pytest.approx(64.26, abs=0.01)
    np.testing.assert_allclose(result.uniform_distance, expected, rtol=1e-12)
    np.testing.assert_allclose(result.distance, expected, rtol=0.02)  # untrained: near uniform
    np.testing.assert_allclose(result.entropy, np.log(16), rtol=0.01)
    np.testing.assert_allclose(result.uniform_entropy, np.log(16), rtol=1e-12)


def test_a_map_that_is_not_whole_windows(swin):
    """512 pixels: 16×16 tokens padded to 21×21; the second block shifts by 3."""
    result = measured(swin, 512, "features.7.*")
    plain = uniform_over(padded(16, 7), 7, 32)
    assert plain == pytest.approx(106.1, abs=0.1)
    np.testing.assert_allclose(
        result.uniform_distance, [plain, uniform_over(padded(16, 7, 3), 7, 32)], rtol=1e-12
    )
    np.testing.assert_allclose(result.distance[0], plain, rtol=0.01)
    # Of 3×3 windows, four hold 7×7 tokens, four 7×2, and one 2×2.
    entropy = (196 * np.log(49) + 56 * np.log(14) + 4 * np.log(4)) / 256
    assert result.uniform_entropy.values[0] == pytest.approx(entropy)


def test_weights_by_hand(swin):
    """The weights of real queries over real keys, each row scaled to sum to 1."""
    weights = []

    def keep(call):
        weights.append(torch.cat([rows for _, rows in call.weights()], 2).double().numpy())

    x = images(1, 512)
    name = "features.7.0.attn"
    with repsim.capture.AttentionRecorder(swin, name, handle=keep), torch.no_grad():
        swin(x)
    board, distances = padded(16, 7), grid_distances(7, 32)
    total, entropy = np.zeros(2), np.zeros(2)
    for window in range(9):
        top, left = divmod(window, 3)
        part = board[7 * top : 7 * top + 7, 7 * left : 7 * left + 7]
        real = np.flatnonzero(part)
        for head in range(2):
            rows = weights[0][window, head][np.ix_(real, real)]
            rows = rows / rows.sum(1, keepdims=True)
            total[head] += (rows * distances[np.ix_(real, real)]).sum()
            entropy[head] -= (rows * np.log(rows)).sum()
    result = repsim.attention_distance(swin, [x], layers=name, **QUIET)
    np.testing.assert_allclose(result.distance[0], total / 256, rtol=1e-6)
    np.testing.assert_allclose(result.renormalised[0], total / 256, rtol=1e-6)
    np.testing.assert_allclose(result.entropy[0], entropy / 256, rtol=1e-6)
    assert result.prefix_mass.values.max() == 0


def test_windows_of_fourteen():
    """Segment anything: 16×16 tokens in windows of 14×14, padded to 28×28."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    sam = timm.create_model(
        "samvit_base_patch16", img_size=256, embed_dim=24, depth=2, num_heads=2,
        global_attn_indexes=(1,), neck_chans=0, num_classes=0,
    )  # fmt: skip
    result = measured(sam, 256, ["blocks.0.attn", "blocks.1.attn"])
    assert result.grid_height.values.tolist() == [14, 16]
    expected = uniform_over(padded(16, 14), 14, 16)
    assert expected == pytest.approx(105.9, abs=0.2)
    np.testing.assert_allclose(
        result.uniform_distance, [expected, uniform_distance(16, 16)], rtol=1e-12
    )
    np.testing.assert_allclose(result.distance[0], expected, rtol=0.01)


def test_padding_that_was_not_seen_is_left_out():
    class Windows(nn.Module):
        """Pads by a concatenation of zeros, not by a padding."""

        window_size = 3

        def __init__(self):
            super().__init__()
            self.patches = nn.Conv2d(3, 8, 4, 4)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            x = self.patches(x).permute(0, 2, 3, 1)
            x = torch.cat([x, x.new_zeros(len(x), 2, 4, 8)], 1)
            x = torch.cat([x, x.new_zeros(len(x), 6, 2, 8)], 2)
            x = x.reshape(len(x), 2, 3, 2, 3, 8).transpose(2, 3).reshape(-1, 9, 8)
            return self.attention(x, x, x)[0]

    with pytest.raises(repsim.CaptureError, match="where its padding lies was not seen"):
        repsim.attention_distance(Windows(), [images()], **QUIET)
