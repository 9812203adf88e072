"""Residual ratios of text, over real tokens, for any padding and batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import repsim
from analysis.text_models import VOCABULARY, Streams, language_model, one_by_one, texts
from packages import transformers
from reference import residual
from repsim import CaptureError, InputError, LayerNotFoundError, NonFiniteError, residual_ratios

QUIET = {"progress": False}
STATISTICS = {
    "ratio": residual.ratio,
    "branch_share": residual.branch_share,
    "cosine": residual.cosine,
}


@pytest.fixture(scope="module")
def llama():
    return language_model("llama")


def same(one, other, rtol=1e-5):
    for name in one.data_vars:
        np.testing.assert_allclose(one[name], other[name], rtol=rtol, atol=1e-6, err_msg=name)


def by_hand(model, data, source, target):
    """The statistics of a site by real token: mean over the texts that have it, and their count."""
    kept = {}
    with torch.no_grad():
        handles = [
            source.register_forward_pre_hook(lambda _m, args: kept.update(z=args[0])),
            target.register_forward_hook(
                lambda _m, _a, out: kept.update(f=out[0] if isinstance(out, tuple) else out)
            ),
        ]
        by_token = {}
        for batch in data:
            model(**batch)
            z, f = kept["z"].double().numpy(), kept["f"].double().numpy()
            for row, mask in enumerate(batch["attention_mask"].numpy()):
                for token, at in enumerate(np.flatnonzero(mask)):
                    values = [
                        statistic(z[row, at], f[row, at]) for statistic in STATISTICS.values()
                    ]
                    by_token.setdefault(token, []).append(values)
        for handle in handles:
            handle.remove()
    means = np.array([np.mean(by_token[t], axis=0) for t in sorted(by_token)]).T
    return dict(zip(STATISTICS, means, strict=True)), by_token


def test_padding_on_either_side_against_loops_over_real_tokens(llama):
    right, left = (residual_ratios(llama, texts(side), **QUIET) for side in ("right", "left"))
    same(right, left)
    same(right, residual_ratios(llama, one_by_one(texts("right")), **QUIET))
    layer = llama.layers[1]
    expected, by_token = by_hand(llama, texts("left"), layer.post_attention_layernorm, layer.mlp)
    row = left.sel(site="layers.1.mlp")
    for name, values in expected.items():
        np.testing.assert_allclose(row[name], values, rtol=1e-4, err_msg=name)
    every = [values[0] for token in by_token.values() for values in token]
    assert row.ratio_spatial.item() == pytest.approx(np.mean(every), rel=1e-5)
    assert np.isnan(row.ratio_prefix.item())
    assert row.n_prefix.item() == 0
    assert row.n_tokens.item() == len(by_token)
    prefixed = residual_ratios(llama, texts("left"), prefix=1, **QUIET).sel(site="layers.1.mlp")
    assert prefixed.ratio_prefix.item() == pytest.approx(row.ratio[0].item())  # the first real one


def test_padding_makes_no_other_text_undefined():
    """The embedding of padding is zero, so its statistics are not defined."""
    model = language_model("llama", pad_token_id=0)
    assert not model.embed_tokens.weight[0].any()
    result = residual_ratios(model, texts("right"), **QUIET)
    assert all(np.isfinite(result[name]).all() for name in STATISTICS)
    with pytest.warns(repsim.DegenerateWarning, match="exactly zero at some tokens"):
        unmasked = residual_ratios(model, texts("right"), mask=None, **QUIET)
    assert np.isnan(unmasked.cosine[0]).any()


def test_values_of_padding_do_not_matter():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.mlp = nn.Linear(4, 4)

        def forward(self, x):
            return x + self.mlp(x)

    torch.manual_seed(0)
    model, x = Block(), torch.randn(3, 5, 4)
    real = torch.tensor([[1, 1, 1, 0, 0], [0, 1, 1, 1, 1], [1, 0, 1, 0, 1]]).bool()
    data = [x.masked_fill(~real[..., None], torch.nan)]
    with pytest.raises(NonFiniteError, match="summand of site 'mlp'"):
        residual_ratios(model, data, prefix=0, **QUIET)
    result = residual_ratios(model, data, prefix=0, mask=lambda _: real, **QUIET)
    alone = [row[keep][None] for row, keep in zip(x, real, strict=True)]
    same(result, residual_ratios(model, alone, prefix=0, **QUIET))
    assert result.n_tokens.item() == 4


def test_batches_of_different_lengths_are_one_result(llama):
    parts = [texts("left", longest=7, batches=1), texts("right", longest=12, batches=1, seed=2)]
    whole = residual_ratios(llama, [*parts[0], *parts[1]], **QUIET)
    same(whole, residual_ratios(llama, one_by_one([*parts[0], *parts[1]]), **QUIET))
    assert whole.attrs["n_samples"] == 8


def test_every_sequence_has_its_own_mask():
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=50, d_model=32, d_ff=48, num_layers=1, num_heads=4, d_kv=8
    )
    model = transformers.T5Model(config).eval()
    batch = texts("right", batches=1)[0]
    target = texts("right", batches=1, longest=6, seed=3)[0]
    data = [
        {
            "input_ids": batch["input_ids"],
            "attention_mask": batch["attention_mask"],
            "decoder_input_ids": target["input_ids"],
            "decoder_attention_mask": target["attention_mask"],
        }
    ]
    with pytest.warns(repsim.RepsimWarning, match=r"decoder.block.0.*, mask \(4, 9\)"):
        encoder = residual_ratios(model, data, mask="attention_mask", **QUIET)
    assert all(site.startswith("encoder") for site in encoder.site.values)
    masks = {"encoder*": "attention_mask", "decoder*": "decoder_attention_mask"}
    both = residual_ratios(model, data, mask=masks, **QUIET)
    same(both.sel(site=encoder.site).isel(token=encoder.token), encoder)
    same(residual_ratios(model, data, **QUIET), both)  # each site follows one of both
    lengths = target["attention_mask"].sum(1).tolist()
    decoder = both.sel(site=[s for s in both.site.values if s.startswith("decoder")])
    assert set(decoder.n_tokens.values) == {max(lengths)}
    with pytest.raises(CaptureError, match="no residual connection has as many tokens as the mask"):
        residual_ratios(model, data, mask=lambda b: b["attention_mask"][:, :5], **QUIET)
    with pytest.raises(LayerNotFoundError, match="mask names 'head'"):
        residual_ratios(model, data, mask={**masks, "head": None}, **QUIET)
    with pytest.raises(InputError, match="mask='other' is not in the batch"):
        residual_ratios(model, data, mask="other", **QUIET)


def test_tokens_of_all_texts_along_one_axis():
    """Some models flatten (samples, tokens, D) to (samples · tokens, D) inside a block."""

    class Flat(nn.Module):
        def __init__(self, flat):
            super().__init__()
            self.embed, self.mlp, self.flat = nn.Embedding(50, 4), nn.Linear(4, 4), flat

        def forward(self, input_ids, attention_mask):
            x = self.embed(input_ids)
            shape = x.shape
            if self.flat:
                x = x.reshape(-1, 4)
            return (x + self.mlp(x)).view(shape)

    data = [
        {key: batch[key] for key in ("input_ids", "attention_mask")}
        for batch in (*texts("left", batches=1, longest=7), *texts("right", batches=1, longest=12))
    ]
    results = []
    for flat in (False, True):
        torch.manual_seed(0)
        results.append(residual_ratios(Flat(flat), data, **QUIET))
    same(*results)
    assert results[1].attrs["n_samples"] == 8


def test_streams_of_a_text_are_positions():
    """As in models with hyper-connections: each vector of 8 features is one token of a stream."""
    model, ids = Streams(), torch.randint(0, VOCABULARY, (4, 5))
    ratios = residual_ratios(model, [ids], **QUIET)
    influence = repsim.block_influence(model, [ids], **QUIET).influence
    x = model.embed(ids).unflatten(2, (3, 8)).detach()
    for at, layer in enumerate(model.layers):
        y = layer(x).detach()
        skips, branches = (z.double().numpy().reshape(-1, 8) for z in (x, y - x))
        by_hand = [residual.ratio(z, f) for z, f in zip(skips, branches, strict=True)]
        np.testing.assert_allclose(ratios.ratio[at].mean(), np.mean(by_hand), rtol=1e-4)
        turned = [1 - residual.cosine(z, z + f) for z, f in zip(skips, branches, strict=True)]
        np.testing.assert_allclose(influence[at], np.mean(turned), rtol=1e-4)
        x = y
