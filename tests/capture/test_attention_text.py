"""Attention of language models: sinks, replaced NaN, shared heads, packed text."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

import repsim
from repsim.capture import AttentionRecorder


def recorded(model, *args, **kwargs):
    """The weights of each call, with (batch, heads, queries, keys)."""
    calls = []

    def keep(call):
        weights = torch.cat([rows for _, rows in call.weights()], 2)
        assert weights.shape == (call.batch, call.heads, call.queries, call.keys)
        calls.append(weights.clone())
        value = call.value
        torch.testing.assert_close(weights @ value, call.output, rtol=1e-4, atol=1e-5)

    with torch.no_grad(), AttentionRecorder(model, handle=keep):
        model(*args, **kwargs)
    return calls


@pytest.fixture(scope="module")
def gpt_oss():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GptOssConfig(
        vocab_size=50, hidden_size=32, intermediate_size=16, num_hidden_layers=2, head_dim=8,
        num_attention_heads=4, num_key_value_heads=2, num_local_experts=2, num_experts_per_tok=1,
        sliding_window=4,
    )  # fmt: skip
    model = transformers.GptOssModel._from_config(config, attn_implementation="eager").eval()
    for layer in model.layers:
        nn.init.normal_(layer.self_attn.sinks)
    return model


def test_learned_sinks(gpt_oss):
    """gpt-oss cuts the sinks off after the softmax: rows sum to less than 1."""
    ids = torch.randint(1, 50, (3, 7))
    weights = recorded(gpt_oss, input_ids=ids)
    with torch.no_grad():
        expected = gpt_oss(input_ids=ids, output_attentions=True).attentions
    for found, known in zip(weights, expected, strict=True):
        torch.testing.assert_close(found, known)
        assert found.sum(-1).max() < 0.999
    data = [{"input_ids": ids}]
    result = repsim.attention_distance(gpt_oss, data, progress=False)
    for row, found in enumerate(expected):
        to_first, to_learned = found[..., 0], 1 - found.sum(-1)
        sink = (to_first + to_learned).mean((0, 2))
        torch.testing.assert_close(torch.tensor(result.sink_mass.values[row]).float(), sink)
        apart = (torch.arange(7)[:, None] - torch.arange(7)).abs()
        distance = (found * apart).sum(-1).mean((0, 2))
        torch.testing.assert_close(torch.tensor(result.distance.values[row]).float(), distance)


class Hooked(nn.Module):
    """Attention in the manner of TransformerLens, whose masked rows would be NaN."""

    def __init__(self, replace):
        super().__init__()
        torch.manual_seed(0)
        self.project = nn.Linear(8, 24)
        self.hook_pattern = nn.Identity()
        self.num_heads, self.replace = 2, replace

    def forward(self, x, mask):
        q, k, v = self.project(x).unflatten(-1, (3, 2, 4)).unbind(-3)
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k)
        scores = scores.masked_fill(~mask[:, None], -torch.inf)
        pattern = self.hook_pattern(self.replace(scores.softmax(-1)))
        return torch.einsum("bkhd,bhqk->bqhd", v, pattern)


def test_weights_whose_nan_are_replaced():
    mask = torch.ones(3, 5, 5, dtype=torch.bool).tril()
    mask[0, :2] = False
    x = torch.randn(3, 5, 8)
    zeros = torch.zeros(())
    for replace in (
        lambda p: torch.where(torch.isnan(p), torch.zeros_like(p), p),
        lambda p: torch.where(p.isnan(), 0.0, p),
        lambda p: p.where(~p.isnan(), zeros),
    ):
        (weights,) = recorded(Hooked(replace), x, mask)
        assert torch.equal(weights.sum(-1).round(decimals=5), mask.any(-1)[:, None].expand(3, 2, 5)
                           .float())  # fmt: skip
    # Another value in their place is not attention any more.
    other = Hooked(lambda p: torch.where(torch.isnan(p), torch.full_like(p, 0.2), p))
    with (
        pytest.raises(repsim.CaptureError, match="no attention was seen that could be followed"),
        AttentionRecorder(other, handle=lambda call: None),
    ):
        other(x, mask)


def test_one_query_of_shared_heads():
    """Decoding with a mask: transformers packs the heads of a group into the queries."""
    transformers = pytest.importorskip("transformers")
    ids, mask = torch.randint(1, 50, (3, 6)), torch.ones(3, 7, dtype=torch.long)
    mask[0, :2] = 0
    found = {}
    for kernel in ("sdpa", "eager"):
        torch.manual_seed(0)
        config = transformers.LlamaConfig(
            vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2,
        )  # fmt: skip
        model = transformers.LlamaModel._from_config(config, attn_implementation=kernel).eval()
        with torch.no_grad():
            known = model(ids, attention_mask=mask[:, :6], use_cache=True).past_key_values
        cache = (
            "cache"
            if "cache" in inspect.signature(model.forward).parameters
            else ("past_key_values")
        )
        inputs = {"input_ids": ids[:, :1], "attention_mask": mask, cache: known}
        found[kernel] = recorded(model, **inputs)
    assert [weights.shape for weights in found["sdpa"]] == [(3, 4, 1, 7)] * 2
    for fused, eager in zip(found["sdpa"], found["eager"], strict=True):
        torch.testing.assert_close(fused, eager, rtol=1e-4, atol=1e-5)


def test_packed_text_is_refused():
    """Kernels for texts of several lengths in one row keep no weights."""

    class Packed(nn.Module):
        def forward(self, x):
            from torch.nn.attention.varlen import varlen_attn

            ends = torch.tensor([0, 2, 6], dtype=torch.int32)
            return varlen_attn(x, x, x, ends, ends, 4, 4)

    model = Packed()
    with (
        pytest.raises(repsim.CaptureError, match="texts packed into one row"),
        AttentionRecorder(model, handle=lambda call: None),
    ):
        model(torch.randn(6, 2, 4))


def test_modern_bert_padded():
    transformers = pytest.importorskip("transformers")
    mask = torch.ones(3, 7, dtype=torch.long)
    mask[0, 4:] = 0
    data = [{"input_ids": torch.randint(3, 50, (3, 7)), "attention_mask": mask}]
    results = []
    for kernel in ("sdpa", "eager"):
        torch.manual_seed(0)
        config = transformers.ModernBertConfig(
            vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, pad_token_id=0, cls_token_id=1, sep_token_id=2, bos_token_id=1,
            eos_token_id=2, global_attn_every_n_layers=2, local_attention=4,
        )  # fmt: skip
        model = transformers.ModernBertModel._from_config(config, attn_implementation=kernel).eval()
        results.append(repsim.attention_distance(model, data, progress=False))
    for name in ("distance", "entropy", "sink_mass", "uniform_distance"):
        torch.testing.assert_close(*(torch.tensor(r[name].values) for r in results), rtol=1e-5,
                                   atol=1e-6)  # fmt: skip


@pytest.mark.filterwarnings("ignore:flex_attention called without:UserWarning")
def test_flex_attention():
    """Scores that functions of the model change and mask, heads that share keys, any chunk."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, 7, 8), torch.randn(2, 2, 7, 8), torch.randn(2, 2, 7, 8)
    lengths, slopes = torch.tensor([7, 4]), torch.rand(4)
    mask = create_block_mask(
        lambda b, h, i, j: (i >= j) & (j < lengths[b]), 2, None, 7, 7, device="cpu"
    )

    class Flex(nn.Module):
        num_heads = 4

        def forward(self, q):
            closer = lambda s, b, h, i, j: s - slopes[h] * (i - j)  # noqa: E731
            return flex_attention(q, k, v, score_mod=closer, block_mask=mask, enable_gqa=True)

    model, kept = Flex(), {}
    for chunk in (2, 100):

        def keep(call, chunk=chunk):
            kept[chunk] = torch.cat([rows for _, rows in call.weights(chunk)], 2)
            torch.testing.assert_close(kept[chunk] @ call.value, call.output)

        with torch.no_grad(), AttentionRecorder(model, handle=keep):
            model(q)
    torch.testing.assert_close(kept[2], kept[100])
    apart = torch.arange(7)[:, None] - torch.arange(7)
    scores = q @ k.repeat_interleave(2, 1).mT / 8**0.5 - slopes[:, None, None] * apart
    real = (apart >= 0) & (torch.arange(7) < lengths[:, None, None, None])
    torch.testing.assert_close(kept[2], scores.masked_fill(~real, -torch.inf).softmax(-1))


@pytest.mark.filterwarnings("ignore:flex_attention called without:UserWarning")
def test_language_models_with_flex_attention():
    """The same weights as with other kernels, with and without padding."""
    transformers = pytest.importorskip("transformers")
    mask = torch.ones(2, 3, 7, dtype=torch.long)
    mask[0, 0, 4:] = mask[1, 1, :3] = 0
    data = [{"input_ids": torch.randint(1, 50, (3, 7)), "attention_mask": m} for m in mask]
    results = []
    for kernel in ("sdpa", "flex_attention"):
        torch.manual_seed(0)
        config = transformers.LlamaConfig(
            vocab_size=50, hidden_size=64, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2,
        )  # fmt: skip
        model = transformers.LlamaModel._from_config(config, attn_implementation=kernel).eval()
        results.append(repsim.attention_distance(model, data, progress=False))
    for name in ("distance", "entropy", "sink_mass", "uniform_distance"):
        sdpa, flex = (torch.tensor(result[name].values) for result in results)
        torch.testing.assert_close(sdpa, flex, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:flex_attention called without:UserWarning")
def test_flex_attention_with_learned_sinks_is_refused():
    """Sinks are applied to the output of the kernel, so its weights are not those of the model."""
    from torch.nn.attention.flex_attention import flex_attention

    class Flex(nn.Module):
        def __init__(self):
            super().__init__()
            self.sinks = nn.Parameter(torch.zeros(4))

        def forward(self, q):
            return flex_attention(q, q, q)

    model = Flex()
    with (
        pytest.raises(repsim.CaptureError, match=r"(?s)flex_attention, whose weights.*sdpa"),
        AttentionRecorder(model, handle=lambda call: None),
    ):
        model(torch.randn(2, 4, 7, 8))


def test_a_rollout_over_shifted_windows_is_refused():
    """Two blocks of one stage of Swin: as many weights, and windows that do not coincide."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(
        "swin_tiny_patch4_window7_224", depths=(2,), num_heads=(2,), embed_dim=16, img_size=56,
        num_classes=3,
    ).eval()  # fmt: skip
    weights = recorded(model, torch.randn(3, 3, 56, 56))
    assert [w.shape for w in weights] == [(12, 2, 49, 49)] * 2
    with pytest.raises(repsim.InputError, match=r"(?s)12 maps    samples: 3.*windows shift"):
        repsim.attention.rollout(weights, samples=3)
    whole = torch.rand(3, 2, 49, 49).softmax(-1)
    assert repsim.attention.rollout([whole, whole], samples=3).shape == (3, 49, 49)
