"""Attention distances of text, in tokens and over real tokens, for every kernel and padding."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import repsim
from repsim.capture import AttentionRecorder

QUIET = {"progress": False}
NAMES = ("distance", "renormalised", "prefix_mass", "entropy", "sink_mass")


def texts(side, batches=2, n=4, longest=9, seed=1):
    """Texts of 3 to 9 tokens, padded on one side; the same texts for both sides."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(batches):
        ids = torch.zeros(n, longest, dtype=torch.long)
        mask = torch.zeros(n, longest, dtype=torch.long)
        for row in range(n):
            length = int(torch.randint(3, longest + 1, (1,), generator=generator))
            real = slice(length) if side == "right" else slice(longest - length, None)
            ids[row, real] = torch.randint(1, 50, (length,), generator=generator)
            mask[row, real] = 1
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        made.append({"input_ids": ids, "attention_mask": mask, "position_ids": positions})
    return made


@pytest.fixture(scope="module")
def llama():
    transformers = pytest.importorskip("transformers")

    def build(kernel="sdpa"):
        torch.manual_seed(0)
        config = transformers.LlamaConfig(
            vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2,
        )  # fmt: skip
        return transformers.LlamaModel._from_config(config, attn_implementation=kernel).eval()

    return build


def by_hand(model, data, layer, prefix):
    """Loops over texts, real queries and real keys, in float64."""
    calls = []

    def keep(call):
        calls.append(torch.cat([rows for _, rows in call.weights()], 2).double().numpy())

    sums, rows = np.zeros((5, 4)), 0
    uniform = 0.0
    for batch in data:
        calls.clear()
        with AttentionRecorder(model, layer, handle=keep), torch.no_grad():
            model(**batch)
        for text, mask in zip(calls[0], batch["attention_mask"].bool(), strict=True):
            real = np.flatnonzero(mask)
            for i in range(prefix, len(real)):
                seen = [j for j in range(len(real)) if text[:, real[i], real[j]].max() > 0]
                uniform += sum(abs(i - j) for j in seen if j >= prefix) / len(seen)
                rows += 1
                for head in range(4):
                    w = text[head, real[i], real]
                    far = sum(w[j] * abs(i - j) for j in range(prefix, len(real)))
                    sums[:, head] += (
                        far, far / w[prefix:].sum(), w[:prefix].sum(),
                        -sum(p * np.log(p) for p in w if p > 0), w[0],
                    )  # fmt: skip
    return dict(zip(NAMES, sums / rows, strict=True)), uniform / rows


def test_the_kernel_and_the_side_of_the_padding_do_not_matter(llama):
    results = [
        repsim.attention_distance(llama(kernel), texts(side), prefix=1, **QUIET)
        for kernel in ("sdpa", "eager")
        for side in ("right", "left")
    ]
    for other in results[1:]:
        for name in (*NAMES, "uniform_distance", "uniform_entropy"):
            np.testing.assert_allclose(other[name], results[0][name], rtol=1e-5, err_msg=name)
    values, uniform = by_hand(llama(), texts("left"), "layers.1.self_attn", 1)
    last = results[0].sel(layer="layers.1.self_attn")
    for name in NAMES:
        np.testing.assert_allclose(last[name], values[name], rtol=1e-5, err_msg=name)
    assert last.uniform_distance.item() == pytest.approx(uniform)
    assert last.distance.units == "tokens"
    assert (last.grid_height.item(), last.patch_width.item()) == (1, 1)


def test_uniform_attention_under_a_causal_mask(llama):
    """(T − 1)/4: the mean over i of the mean of i − j over j ≤ i; log(T!)/T: that of log i."""
    model = llama()
    for layer in model.layers:
        nn.init.zeros_(layer.self_attn.q_proj.weight)
    for length in (2, 7, 12):
        data = [{"input_ids": torch.randint(1, 50, (3, length))} for _ in range(2)]
        result = repsim.attention_distance(model, data, **QUIET)
        np.testing.assert_allclose(result.distance, (length - 1) / 4, rtol=1e-6)
        np.testing.assert_allclose(result.uniform_distance, (length - 1) / 4, rtol=1e-12)
        entropy = math.lgamma(length + 1) / length
        np.testing.assert_allclose(result.entropy, entropy, rtol=1e-6)
        np.testing.assert_allclose(result.uniform_entropy, entropy, rtol=1e-12)


def test_batches_of_different_lengths_are_one_result(llama):
    model = llama()
    parts = [texts("left", 1, longest=7), texts("left", 1, longest=12, seed=2)]
    whole = repsim.attention_distance(model, [*parts[0], *parts[1]], **QUIET)
    each = [repsim.attention_distance(model, part, **QUIET) for part in parts]
    rows = [float(part[0]["attention_mask"].sum()) for part in parts]
    for name in ("distance", "entropy", "sink_mass", "uniform_distance", "uniform_entropy"):
        mean = sum(r * found[name] for r, found in zip(rows, each, strict=True)) / sum(rows)
        np.testing.assert_allclose(whole[name], mean, rtol=1e-6, err_msg=name)
    assert whole.grid_width.values.tolist() == [12, 12]


def test_both_directions():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=4,
        intermediate_size=48,
    )  # fmt: skip
    bert = transformers.BertModel(config).eval()
    right = [{k: v for k, v in b.items() if k != "position_ids"} for b in texts("right")]
    result = repsim.attention_distance(bert, right, **QUIET)
    expected, uniform = by_hand(bert, right, "encoder.layer.0.attention.self", 0)
    np.testing.assert_allclose(result.distance[0], expected["distance"], rtol=1e-5)
    assert result.uniform_distance.item() == pytest.approx(uniform)


def test_cross_attention_is_a_kind_of_its_own():
    """Source and target of one length: it has an entropy over real queries, and no distance."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=50, d_model=32, d_ff=48, num_layers=1, num_heads=4, d_kv=8
    )
    model = transformers.T5Model(config).eval()
    ids = torch.randint(1, 50, (4, 9))
    masks = torch.ones(2, 4, 9, dtype=torch.long)
    masks[0, 0, 6:] = masks[1, 1, :4] = 0
    data = [{"input_ids": ids, "decoder_input_ids": ids.flip(1), "attention_mask": masks[0],
             "decoder_attention_mask": masks[1]}]  # fmt: skip
    keys = {"decoder.*": "decoder_attention_mask", "encoder.*": "attention_mask"}
    result = repsim.attention_distance(model, data, **QUIET)
    chosen = repsim.attention_distance(model, data, mask=keys, **QUIET)
    assert result.kind.values.tolist() == ["self", "self", "cross"]
    cross, kept = result.isel(layer=2), []
    for name in ("distance", "renormalised", "prefix_mass", "sink_mass", "uniform_distance"):
        assert np.isnan(cross[name]).all(), name
        assert np.isfinite(result[name][0]).all(), name
    layer = "decoder.block.0.layer.1.EncDecAttention"
    keep = lambda call: kept.extend(rows for _, rows in call.weights(100))  # noqa: E731
    with AttentionRecorder(model, layer, handle=keep), torch.no_grad():
        model(**data[0])
    rows = kept[0].movedim(1, -1)[masks[1].bool()].double()  # of real queries
    entropy = -(rows * rows.clamp_min(1e-30).log()).sum(1).mean(0)
    np.testing.assert_allclose(cross.entropy, entropy, rtol=1e-5)
    np.testing.assert_allclose(chosen.entropy[2], entropy, rtol=1e-5)
    keys_of = masks[0].sum(1)[masks[1].bool().nonzero()[:, 0]]  # real keys of each real query
    assert cross.uniform_entropy.item() == pytest.approx(keys_of.double().log().mean().item())
    repsim.plot.attention_distance(result)
    decoder = nn.TransformerDecoderLayer(8, 2, batch_first=True)
    x = torch.randn(2, 5, 8)
    found = repsim.attention_distance(
        decoder, [x], layers=["multihead_attn"], grid=(1, 5), patch_size=1,
        forward=lambda model, batch: model(batch, batch + 1), **QUIET,
    )  # fmt: skip
    assert found.kind.item() == "cross"
    assert np.isnan(found.distance).all()
    assert np.isfinite(found.entropy).all()


class Reader(nn.Module):
    """Its second sequence may be passed by position, as in Dia."""

    def forward(self, hidden_states, cross_attention_states):
        x, y = (each[:, None] for each in (hidden_states, cross_attention_states))
        return nn.functional.scaled_dot_product_attention(x, y, y)[:, 0]


class Perceiver(Reader):
    """The name in LXMERT; the context of its self-attention is its own tokens."""

    def forward(self, hidden_states, context):
        return super().forward(hidden_states, context)


class Block(nn.Module):
    """Its own tokens attend to one another beside a memory, which another part reads."""

    def forward(self, x, memory):
        x = x[:, None]
        return nn.functional.scaled_dot_product_attention(x, x, x)[:, 0] + memory.mean(1)[:, None]


def test_a_second_sequence_by_position_or_by_name():
    """Of the same length, it had been given distances; a module's own tokens are no second one."""
    model = nn.Sequential(Reader(), Block(), Perceiver())
    ways = {
        "cross": [
            lambda model, x: model[0](x, x + 1),
            lambda model, x: model[0](cross_attention_states=x + 1, hidden_states=x),
            lambda model, x: model[2](x, x + 1),
        ],
        "self": [
            lambda model, x: model[0](x, x),
            lambda model, x: model[1](x, memory=x + 1),
            lambda model, x: model[2](x, x),
        ],
    }
    data = [torch.randn(2, 5, 8)]
    for kind, forwards in ways.items():
        for forward in forwards:
            found = repsim.attention_distance(
                model, data, forward=forward, grid=(1, 5), patch_size=1, **QUIET
            )
            assert found.kind.item() == kind
            assert np.isnan(found.distance).all() == (kind == "cross")


class Captioner(nn.Module):
    """Its texts read an image, as those of BLIP do."""

    def __init__(self):
        super().__init__()
        self.words, self.patches = nn.Embedding(50, 8), nn.Conv2d(3, 8, 4, stride=4)
        self.read = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, input_ids, attention_mask, pixel_values):
        patches = self.patches(pixel_values).flatten(2).mT
        return self.read(3 * self.words(input_ids), patches, 3 * patches)[0]


def test_texts_that_read_an_image_are_the_queries():
    """Their padding had counted, with a warning about a decoder."""
    torch.manual_seed(0)
    model = Captioner().eval()
    data = [{"input_ids": b["input_ids"], "attention_mask": b["attention_mask"],
             "pixel_values": torch.randn(4, 3, 8, 8)} for b in texts("right")]  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = repsim.attention_distance(model, data, **QUIET)
    entropies = []
    for batch in data:
        patches = model.patches(batch["pixel_values"]).flatten(2).mT
        words = 3 * model.words(batch["input_ids"])
        weights = model.read(words, patches, patches, average_attn_weights=False)[1].double()
        entropy = -(weights * weights.log()).sum(-1).movedim(1, -1)
        entropies.append(entropy[batch["attention_mask"].bool()])
    expected = torch.cat(entropies).mean(0).detach()
    np.testing.assert_allclose(result.entropy[0], expected, rtol=1e-6)


def test_a_mask_of_another_length(llama):
    batch = texts("left", 1)[0]
    with pytest.raises(repsim.InputError, match="the mask does not fit layer"):
        repsim.attention_distance(llama(), [batch], mask=lambda b: torch.ones(4, 3), **QUIET)


def test_frames_of_speech_with_a_grid():
    """One row of a sequence is a text: masks hold, and uniform attention has its closed form."""
    from analysis.coverage_batches import frames, waveforms
    from analysis.multimodal_models import wav2vec2

    model, batch = wav2vec2(), waveforms(1, 0)
    with torch.no_grad():
        for layer in model.encoder.layers:
            layer.attention.q_proj.weight.zero_()
            layer.attention.q_proj.bias.zero_()
    given = {"grid": (1, 14), "patch_size": 1, "prefix": 0, "mask": frames, "progress": False}
    result = repsim.attention_distance(model, [batch], **given)
    lengths = frames(batch).sum(1).double()
    expected = (lengths * (lengths**2 - 1) / (3 * lengths)).sum() / lengths.sum()
    np.testing.assert_allclose(result.distance, expected.item(), rtol=1e-6)
    np.testing.assert_allclose(result.uniform_distance, expected.item(), rtol=1e-6)
    np.testing.assert_allclose(result.entropy - result.uniform_entropy, 0, atol=1e-6)
