"""Models of several sequences: each layer has the mask of the sequence that it follows."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import repsim

QUIET = {"progress": False}
LAYERS = ["encoder.block.1", "decoder.block.1"]
KEYS = {"encoder*": "attention_mask", "decoder*": "decoder_attention_mask"}


def padded(n, longest, seed):
    """Texts (n, longest) of 3 tokens or more, padded on the right, and their mask."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 50, (n, longest), generator=generator)
    lengths = torch.randint(3, longest + 1, (n, 1), generator=generator)
    mask = (torch.arange(longest) < lengths).long()
    return ids * mask, mask


def pairs(source=9, target=9, n=16, batches=2, **left_out):
    """Batches of source and target texts of these lengths."""
    made = []
    for number in range(batches):
        ids, mask = padded(n, source, number)
        decoder_ids, decoder_mask = padded(n, target, 100 + number)
        batch = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": decoder_ids,
                 "decoder_attention_mask": decoder_mask}  # fmt: skip
        made.append({key: value for key, value in batch.items() if key not in left_out})
    return made


@pytest.fixture(scope="module")
def t5():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=50, d_model=32, d_ff=48, num_layers=2, num_heads=4, d_kv=8,
        decoder_start_token_id=0,
    )  # fmt: skip
    return transformers.T5ForConditionalGeneration(config).eval()


@pytest.fixture(scope="module")
def bart():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BartConfig(
        vocab_size=50, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48,
    )  # fmt: skip
    return transformers.BartModel(config).eval()


@pytest.fixture(scope="module")
def clip():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    wide = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4}  # fmt: skip
    config = transformers.CLIPConfig(
        text_config={**wide, "vocab_size": 50, "eos_token_id": 49},
        vision_config={**wide, "image_size": 16, "patch_size": 8},
        projection_dim=16,
    )
    return transformers.CLIPModel(config).eval()


@pytest.mark.slow
def test_a_decoder_has_its_own_mask_where_lengths_are_equal(t5, bart):
    """It had been given the mask of the encoder."""
    for model, layers in ((t5, LAYERS), (bart, ["encoder.layers.0", "decoder.layers.0"])):
        for target in (9, 7):
            data = pairs(9, target)
            for options in ({"transform": "mean"}, {"transform": "last"}):
                own = repsim.compare(model, data=data, layers=layers, **options, **QUIET)
                keys = repsim.compare(
                    model, data=data, layers=layers, mask=KEYS, **options, **QUIET
                )
                np.testing.assert_array_equal(own.cka, keys.cka)
            if target == 9:
                wrong = repsim.compare(model, data=data, layers=layers, transform="mean",
                                       mask="attention_mask", **QUIET)  # fmt: skip
                mean = repsim.compare(model, data=data, layers=layers, transform="mean", **QUIET)
                assert abs(wrong.cka - mean.cka).max() > 0.01


class Translator(nn.Module):
    """One embedding of both sequences."""

    def __init__(self):
        super().__init__()
        self.shared = nn.Embedding(50, 32)

    def forward(self, input_ids, attention_mask, decoder_input_ids, decoder_attention_mask):
        return self.shared(input_ids).mean(1, keepdim=True) + self.shared(decoder_input_ids)


def test_a_module_that_runs_on_both_sequences():
    model, data = Translator(), pairs()
    own = repsim.compare(model, data=data, layers=["shared"], transform="mean", **QUIET)
    assert own.layer_x.values.tolist() == ["shared:0", "shared:1"]
    means = []
    for batch in data:
        each = []
        for ids, mask in (("input_ids", "attention_mask"),
                          ("decoder_input_ids", "decoder_attention_mask")):  # fmt: skip
            x, real = model.shared(batch[ids]).detach().double(), batch[mask][..., None]
            each.append((x * real).sum(1) / real.sum(1))
        means.append(each)
    acc = repsim.MinibatchCKA(kernel="linear")
    for x, y in means:
        acc.update({"x": x}, {"y": y})
    expected = acc.compute().sel(layer_x="x", layer_y="y")
    np.testing.assert_allclose(own.cka[0, 1], expected, rtol=1e-4)


def test_without_a_mask_of_the_decoder(t5):
    """All its positions are real, and a warning says so if the source is padded."""
    data = pairs(decoder_attention_mask=None)
    said = "all positions of the decoder are taken as real"
    with pytest.warns(repsim.RepsimWarning, match=said) as caught:
        own = repsim.compare(t5, data=data, layers=LAYERS, transform="mean", **QUIET)
    assert sum(said in str(each.message) for each in caught) == 1
    keys = {"encoder*": "attention_mask", "decoder*": None}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = repsim.compare(t5, data=data, layers=LAYERS, transform="mean", mask=keys, **QUIET)
    np.testing.assert_array_equal(own.cka, same.cka)


def test_a_source_without_a_mask_is_not_given_that_of_the_decoder(t5):
    data = pairs(attention_mask=None)
    for batch in data:
        batch["input_ids"] = batch["input_ids"].clamp(min=1)  # nothing looks padded
    own = repsim.compare(t5, data=data, layers=LAYERS, transform="mean", **QUIET)
    keys = {"encoder*": None, "decoder*": "decoder_attention_mask"}
    same = repsim.compare(t5, data=data, layers=LAYERS, transform="mean", mask=keys, **QUIET)
    np.testing.assert_array_equal(own.cka, same.cka)
    with (
        pytest.raises(repsim.CaptureError, match=r"both sequences(.|\n)*encoder\*\": None"),
        repsim.Recorder(t5, LAYERS, transform="mean"),
        torch.no_grad(),
    ):
        t5(**data[0])


def test_padded_labels_without_a_mask_of_the_decoder_give_a_warning():
    """The decoder of a speech model makes its sequence of them."""
    transformers = pytest.importorskip("transformers")
    names = ("encoder_layers", "decoder_layers", "d_model", "num_mel_bins", "vocab_size")
    few = dict(zip(names, (1, 1, 16, 4, 50), strict=True))
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    tokens = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0)
    config = transformers.WhisperConfig(
        **few, **heads, **tokens, max_source_positions=9, decoder_start_token_id=1
    )
    model = transformers.WhisperForConditionalGeneration(config).eval()
    layers = ["model.encoder.layers.0", "model.decoder.layers.0"]
    ids, mask = padded(8, 9, seed=0)
    data = [{"input_features": torch.randn(8, 4, 18), "labels": ids.where(mask == 1, -100)}] * 2
    with pytest.warns(repsim.RepsimWarning, match="labels of -100, and no decoder_attention_mask"):
        own = repsim.compare(model, data=data, layers=layers, transform="mean", **QUIET)
    every = repsim.compare(model, data=data, layers=layers, transform="mean", mask=None, **QUIET)
    np.testing.assert_array_equal(own.cka, every.cka)


def test_a_decoder_that_makes_its_sequence_of_labels(t5):
    data = pairs()
    for batch in data:
        batch["labels"] = batch.pop("decoder_input_ids")
    own = repsim.compare(t5, data=data, layers=LAYERS, transform="mean", **QUIET)
    keys = repsim.compare(t5, data=data, layers=LAYERS, transform="mean", mask=KEYS, **QUIET)
    np.testing.assert_array_equal(own.cka, keys.cka)


def test_labels_of_the_source_belong_to_the_source():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=50, hidden_size=32, intermediate_size=48,
                                     num_hidden_layers=2, num_attention_heads=4)  # fmt: skip
    model = transformers.BertForMaskedLM(config).eval()
    plain = [{k: b[k] for k in ("input_ids", "attention_mask")} for b in pairs()]
    with_labels = [{**b, "labels": b["input_ids"]} for b in plain]
    options = {"layers": "bert.encoder.layer.?", "transform": "mean", **QUIET}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        own = repsim.compare(model, data=with_labels, **options)
        expected = repsim.compare(model, data=plain, **options)
    np.testing.assert_array_equal(own.cka, expected.cka)


@pytest.mark.slow
def test_other_analyses_read_the_mask_of_a_decoder(t5, tmp_path):
    data = pairs()
    right = {"mask": KEYS, **QUIET}
    for f, options in (
        (repsim.attention_distance, {"layers": "*SelfAttention"}),
        (repsim.residual_ratios, {}),
        (repsim.block_influence, {}),
    ):
        own, expected = f(t5, data, **options, **QUIET), f(t5, data, **options, **right)
        for name in expected.data_vars:
            np.testing.assert_array_equal(own[name], expected[name], err_msg=f"{f.__name__} {name}")
    scales = {"layers": LAYERS, "transform": "mean", "progress": False}
    models = {0.5: t5}
    own = repsim.data_scale(models, t5, data, **scales)
    np.testing.assert_array_equal(
        own.cka, repsim.data_scale(models, t5, data, **scales, mask=KEYS).cka
    )
    probe = {"layers": LAYERS, "tokens": ["mean"], "labels": lambda batch: torch.arange(16) % 2}
    own, expected = (
        repsim.linear_probe(t5, data, data, **probe, **mask) for mask in (QUIET, right)
    )
    for name in expected.data_vars:
        np.testing.assert_array_equal(own[name], expected[name], err_msg=name)
    repsim.extract(t5, data, LAYERS, out=tmp_path / "own.zarr", **QUIET)
    repsim.extract(t5, data, LAYERS, out=tmp_path / "keys.zarr", **right)
    own, expected = (
        repsim.open_activations(tmp_path / name, transform="mean")
        for name in ("own.zarr", "keys.zarr")
    )
    for name in LAYERS:
        np.testing.assert_array_equal(own[name], expected[name], err_msg=name)


def test_a_tower_without_the_masked_text_is_left_out(clip):
    """5 patches and CLS are 5 tokens: as many as the text has, by accident."""
    data = []
    for seed in range(2):
        ids, mask = padded(16, 5, seed)
        ids[torch.arange(16), mask.sum(1) - 1] = 49
        images = torch.randn(16, 3, 16, 16)
        data.append({"input_ids": ids, "attention_mask": mask, "pixel_values": images})
    text, image = "text_model.encoder.layers.0", "vision_model.encoder.layers.0"
    towers = [f"{tower}.encoder.layers.?" for tower in ("text_model", "vision_model")]
    with pytest.warns(repsim.RepsimWarning, match="has its length by accident"):
        found = repsim.compare(clip, data=data, layers=towers, transform="mean", **QUIET)
    assert all(name.startswith("text_model") for name in found.layer_x.values)
    with pytest.raises(repsim.CaptureError, match="does not follow the sequence"):
        repsim.compare(clip, data=data, layers=[text, image], transform="mean", **QUIET)
    masks = {"text_model*": "attention_mask", "vision_model*": None}
    both = repsim.compare(
        clip, data=data, layers=[text, image], transform="mean", mask=masks, **QUIET
    )
    assert both.layer_x.values.tolist() == [image, text]
    with pytest.warns(repsim.RepsimWarning, match="by accident"):
        ratios = repsim.residual_ratios(clip, data, prefix=0, **QUIET)
    assert all(name.startswith("text_model") for name in ratios.site.values)


def test_packed_patches_are_not_given_the_mask_of_the_text():
    """As in Qwen2-VL. Each image happens to have as many patches as its text has tokens."""

    class Described(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.patches = nn.Embedding(50, 5), nn.Linear(6, 5)

        def forward(self, input_ids, attention_mask, pixel_values, grid_thw):
            images = self.patches(pixel_values).reshape(len(grid_thw), 4, 5)
            return self.words(input_ids) + images.mean(1, keepdim=True)

    torch.manual_seed(0)
    ids, mask = padded(6, 4, seed=0)
    batch = {"input_ids": ids, "attention_mask": mask, "grid_thw": torch.tensor([[1, 2, 2]] * 6)}
    data = [{**batch, "pixel_values": torch.randn(24, 6)} for _ in range(2)]
    with pytest.warns(repsim.RepsimWarning, match=r"patches \(6, 4, 5\).* its length by accident"):
        found = repsim.compare(Described(), data=data, transform="mean", **QUIET)
    assert found.layer_x.values.tolist() == ["words"]


class Regions(nn.Module):
    """Texts beside regions of an image, as in LXMERT; or each token has features of its own."""

    def __init__(self, joined):
        super().__init__()
        torch.manual_seed(0)
        self.joined = joined
        self.words, self.regions = nn.Embedding(50, 8), nn.Linear(4, 8)

    def forward(self, input_ids, attention_mask, visual_feats, visual_attention_mask=None):
        words, regions = self.words(input_ids), self.regions(visual_feats)
        return words + regions if self.joined else torch.cat([words, regions], 1).mean(1)


def test_regions_are_not_given_the_mask_of_a_text_of_the_same_length():
    """They had been, if regions are as many as tokens; and so had their own mask."""
    ids, mask = padded(8, 9, 0)
    batch = {"input_ids": ids, "attention_mask": mask, "visual_feats": torch.randn(8, 9, 4)}
    options = {"transform": "mean", **QUIET}
    with pytest.warns(repsim.RepsimWarning, match=r"regions \(8, 9, 8\).* its length by accident"):
        found = repsim.compare(Regions(False), data=[batch, batch], layers="*", **options)
    assert found.layer_x.values.tolist() == ["words"]
    with pytest.raises(repsim.CaptureError, match="Pass mask={name of a text layer"):
        given = {**batch, "visual_attention_mask": torch.ones(8, 9)}
        repsim.compare(Regions(False), data=[given], layers=["regions"], **options)
    of_tokens = repsim.compare(Regions(True), data=[batch, batch], layers="*", **options)
    assert of_tokens.layer_x.values.tolist() == ["words", "regions"]


def test_learned_queries_are_not_padded():
    """As in Perceiver: here they are as many as the tokens, by accident."""

    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.queries, self.embed = nn.Parameter(torch.randn(5, 4)), nn.Linear(3, 4)
            self.read = nn.Linear(4, 4)

        def forward(self, x, attention_mask):
            keys = self.embed(x).masked_fill(attention_mask[..., None] == 0, 0)
            return self.read(torch.softmax(self.queries @ keys.mT, -1) @ keys)

    torch.manual_seed(0)
    mask = padded(8, 5, seed=0)[1]
    data = [{"x": torch.randn(8, 5, 3), "attention_mask": mask} for _ in range(2)]
    with pytest.warns(repsim.RepsimWarning, match=r"read \(8, 5, 4\).* its length by accident"):
        found = repsim.compare(Reader(), data=data, transform="mean", **QUIET)
    assert found.layer_x.values.tolist() == ["embed"]


def test_the_recorder_alone_asks_where_lengths_are_equal(t5):
    """It runs no additional forward, so there is no evidence."""
    batch = pairs(batches=1)[0]
    with (
        pytest.raises(repsim.CaptureError, match="has the length of both sequences"),
        repsim.Recorder(t5, LAYERS, transform="mean"),
        torch.no_grad(),
    ):
        t5(**batch)
    other = pairs(9, 7, batches=1)[0]
    with repsim.Recorder(t5, LAYERS, transform="mean") as own, torch.no_grad():
        t5(**other)
    with repsim.Recorder(t5, LAYERS, transform="mean", mask=KEYS) as keys, torch.no_grad():
        t5(**other)
    for name in LAYERS:
        torch.testing.assert_close(own[name], keys[name], rtol=0, atol=0)


def test_the_recorder_alone_does_not_ask_where_either_mask_would_do():
    """The masks of both sequences are equal, or the one that there is shows no padding."""

    class Adds(nn.Module):
        def __init__(self):
            super().__init__()
            self.shared = nn.Embedding(99, 4)

        def forward(self, input_ids, decoder_input_ids, **_masks):
            return self.shared(input_ids + decoder_input_ids)

    model, batch = Adds(), pairs(batches=1)[0]
    del batch["decoder_attention_mask"]
    mask, ones = batch.pop("attention_mask"), torch.ones(16, 9)
    for masks, real in (
        ({"attention_mask": mask, "decoder_attention_mask": mask}, mask),
        ({"attention_mask": ones}, ones),
    ):
        with repsim.Recorder(model, ["shared"], transform="mean") as own, torch.no_grad():
            x = model(**batch, **masks)
        expected = (x * real[..., None]).sum(1) / real.sum(1, keepdim=True)
        torch.testing.assert_close(own["shared"], expected)
    with (
        pytest.raises(repsim.CaptureError, match="has the length of both sequences"),
        repsim.Recorder(model, ["shared"], transform="mean"),
        torch.no_grad(),
    ):
        model(**batch, attention_mask=mask)
