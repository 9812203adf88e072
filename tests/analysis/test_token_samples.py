"""Every token a sample: the same tokens for all layers and models, errors by whole sequences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import repsim
from analysis.test_masks import QUIET, texts
from repsim import InputError


def encoder(seed, vocabulary=100, width=8):
    """Embeddings, then mixing along the sequence; (B, N, 8) in layers 0, 1 and 2."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Embedding(vocabulary, width), nn.Linear(width, width), nn.Tanh())


def ids_of(model, batch):
    return model(batch["input_ids"])


def gathered(model, batches, layer, keep=lambda position: True):
    """The real tokens of each batch by a loop, (n, D)."""
    rows = []
    for batch in batches:
        with torch.no_grad():
            hidden = model[: layer + 1](batch["input_ids"]).double()
        rows.append(
            np.stack(
                [
                    vector.numpy()
                    for sequence, mask in zip(hidden, batch["attention_mask"], strict=True)
                    for position, vector in enumerate(sequence[mask.bool()])
                    if keep(position)
                ]
            )
        )
    return rows


def test_values_are_those_of_the_gathered_rows():
    x, y, data = encoder(0), encoder(1, width=5), texts("left", 8)
    options = {"data": data, "forward": ids_of, "samples": "tokens", "pairs": "all", **QUIET}
    with pytest.warns(repsim.RepsimWarning, match="one batch has no spread"):
        one = repsim.compare(x, y, layers=["1"], **{**options, "data": data[:1]})
    rows = gathered(x, data[:1], 1)[0], gathered(y, data[:1], 1)[0]
    assert one.cka.item() == pytest.approx(repsim.cka(*rows, estimator="unbiased"), abs=1e-6)
    for skip in (0, 2):
        keep = lambda position, skip=skip: position >= skip  # noqa: E731
        found = repsim.compare(x, y, layers=["0", "2"], skip_first=skip, **options)
        expected = repsim.MinibatchCKA()
        sides = ((gathered(m, data, k, keep) for k in (0, 2)) for m in (x, y))
        for x0, x2, y0, y2 in zip(*(rows for side in sides for rows in side), strict=True):
            expected.update({"0": x0, "2": x2}, {"0": y0, "2": y2})
        np.testing.assert_allclose(found.cka, expected.compute(), atol=1e-5)
        # Batches hold whole sequences, so the jackknife deletes whole sequences.
        np.testing.assert_allclose(found.standard_error, expected.standard_error(), atol=1e-5)
        assert found.attrs["n_samples"] == sum(int((b["attention_mask"].sum(1) - skip).sum())
                                               for b in data)  # fmt: skip
        assert found.attrs["n_sequences"] == 24
        assert (found.attrs["samples"], found.attrs["skip_first"]) == ("tokens", skip)


def test_the_same_texts_padded_on_either_side(llama):
    data = list(zip(texts("right"), texts("left"), strict=True))
    options = {
        "data": data, "prepare_x": lambda b: b[0], "prepare_y": lambda b: b[1],
        "samples": "tokens", **QUIET,
    }  # fmt: skip
    for most, skip in ((None, 0), (40, 0), (None, 1), (17, 2)):
        found = repsim.compare(llama, llama, max_samples=most, skip_first=skip, **options)
        np.testing.assert_allclose(np.diagonal(found.cka), 1, atol=1e-5)
        assert most is None or found.attrs["n_samples"] == 3 * most


def test_pairs_of_different_inputs():
    """The residual of least squares K_ij ~ a_i + a_j over tokens i, j of different inputs."""
    x, y, data = encoder(0), encoder(1, width=5), texts("left", 5)
    options = {"data": data, "layers": ["1"], "forward": ids_of, "samples": "tokens", **QUIET}
    found = repsim.compare(x, y, **options)
    sums = np.zeros(3)
    for a, b, batch in zip(gathered(x, data, 1), gathered(y, data, 1), data, strict=True):
        of = np.repeat(np.arange(5), batch["attention_mask"].sum(1))
        i, j = np.nonzero(of[:, None] != of)
        design = np.zeros((len(i), len(of)))
        design[np.arange(len(i)), i] += 1
        design[np.arange(len(i)), j] += 1
        rest = []
        for rows in (a, b):
            pairs = (rows @ rows.T)[i, j]
            rest.append(pairs - design @ np.linalg.lstsq(design, pairs, rcond=None)[0])
        sums += [rest[0] @ rest[1], rest[0] @ rest[0], rest[1] @ rest[1]]
    assert found.cka.item() == pytest.approx(sums[0] / np.sqrt(sums[1] * sums[2]), abs=1e-5)
    assert found.attrs["pairs"] == "between"
    # With one token a text, this is the unbiased CKA of these tokens.
    data = [
        {"input_ids": torch.randint(100, (9, 1)), "attention_mask": torch.ones(9, 1).long()}
        for _ in range(3)
    ]
    one, every = (
        repsim.compare(x, y, **{**options, "data": data}, pairs=pairs)
        for pairs in ("between", "all")
    )
    assert one.cka.item() == pytest.approx(every.cka.item(), abs=1e-6)


def test_half_of_the_tokens_in_one_text_and_too_few_texts():
    x, data = encoder(0), texts("left", 4, longest=12, batches=3)
    for batch in data:
        batch["attention_mask"][:] = 0
        for row, length in enumerate((6, 2, 2, 2)):
            batch["attention_mask"][row, -length:] = 1
    options = {"layers": ["0", "1"], "forward": ids_of, "samples": "tokens", **QUIET}
    found = repsim.compare(x, data=data, **options)
    np.testing.assert_allclose(np.diagonal(found.cka), 1, atol=1e-6)
    data.append({name: value[:3] for name, value in data[0].items()})
    with pytest.warns(repsim.RepsimWarning, match=r"1 batch\(es\) of fewer than 4 samples"):
        same = repsim.compare(x, data=data, **options)
    np.testing.assert_array_equal(found.cka, same.cka)


@pytest.mark.slow
def test_independent_texts_of_equal_lengths(llama):
    """Pairs of tokens within a text raise the similarity; pairs between texts do not."""
    torch.manual_seed(5)
    other, means = type(llama)(llama.config).eval(), {}
    for seed in range(8):
        data = []
        for x, y in zip(*(texts("right", 16, batches=6, seed=seed) for _ in "xy"), strict=True):
            y["input_ids"] = torch.randint(1, 100, y["input_ids"].shape) * y["attention_mask"]
            data.append((x, y))
        for pairs in ("between", "all"):
            found = repsim.compare(
                llama, other, data=data, layers=["layers.1"], samples="tokens", pairs=pairs,
                prepare_x=lambda b: b[0], prepare_y=lambda b: b[1], **QUIET,
            )  # fmt: skip
            means.setdefault(pairs, []).append(found.cka.item())
            if pairs == "between":
                assert abs(found.cka.item()) < 3 * found.standard_error.item(), seed
    error = np.std(means["between"]) / np.sqrt(7)
    assert abs(np.mean(means["between"])) < 3 * error
    assert np.mean(means["all"]) > 4 * error


def test_max_samples_draws_by_sequence_and_position():
    """The draw depends neither on the layer nor on the side of padding, and grows with the most."""
    drawn = {}
    for side in ("left", "right"):
        data = [{**b, "input_ids": _numbered(b)} for b in texts(side, 8)]
        for most in (5, 9, 1000):
            seen = []
            model = nn.Sequential(nn.Embedding(10_000, 1), nn.Identity())
            model[0].weight.data = torch.arange(10_000.0)[:, None]

            class Spy(repsim.kernels.Linear):
                def __call__(self, x, seen=seen):
                    seen.append(x.flatten().tolist())
                    return super().__call__(x)

            repsim.compare(
                model, data=data, layers=["0"], kernel=Spy(), forward=ids_of, samples="tokens",
                pairs="all",
                max_samples=most, seed=3, **QUIET,
            )  # fmt: skip
            drawn[side, most] = seen
    assert drawn["left", 9] == drawn["right", 9]
    for few, more, every in zip(*(drawn["left", most] for most in (5, 9, 1000)), strict=True):
        assert len(few) == 5
        assert set(few) < set(more) < set(every)
        assert more == sorted(more)  # in the order of sequences and positions


def _numbered(batch):
    """Ids that say sequence and position among the real tokens: 20 · sequence + position."""
    mask = batch["attention_mask"]
    return (torch.arange(len(mask))[:, None] * 20 + mask.cumsum(1)) * mask


def test_maps_are_samples_by_position():
    torch.manual_seed(0)
    x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.Flatten())
    data = [torch.randn(6, 3, 6, 6) for _ in range(3)]
    with pytest.warns(repsim.RepsimWarning, match=r"3 \(6, 80\): it has no tokens"):
        found = repsim.compare(x, data=data, samples="tokens", pairs="all", **QUIET)
    assert found.layer_x.values.tolist() == ["0", "1", "2"]
    assert found.attrs["n_samples"] == 3 * 6 * 16
    expected = repsim.MinibatchCKA()
    with torch.no_grad():
        for batch in data:
            first, last = (x[: k + 1](batch).movedim(1, -1).reshape(96, -1) for k in (0, 2))
            expected.update({"0": first}, {"2": last})
    np.testing.assert_allclose(found.cka.sel(layer_x="0", layer_y="2"), expected.compute().item(),
                               atol=1e-6)  # fmt: skip


def test_layers_with_other_positions():
    """Most layers decide under a glob; a layer of this name is an error that says its tokens."""
    torch.manual_seed(0)
    x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Conv2d(4, 5, 1), nn.ReLU())
    data = [torch.randn(6, 3, 6, 6) for _ in range(2)]
    with pytest.warns(repsim.RepsimWarning, match=r"0 \(6, 4, 4, 4\): it has 16 positions in each"):
        found = repsim.compare(x, data=data, samples="tokens", **QUIET)
    assert found.layer_x.values.tolist() == ["1", "2", "3"]
    message = (
        r"(?s)layer '0' has other positions.*16 positions in each of 6.*the others: 4 positions"
        r".*Maps get one grid by transform=lambda maps: torch.nn.functional.adaptive_avg_pool2d"
    )
    with pytest.raises(repsim.CaptureError, match=message):
        repsim.compare(x, data=data, layers=["0", "1", "2"], samples="tokens", **QUIET)
    y = nn.Sequential(nn.Conv2d(3, 4, 2))
    with pytest.raises(repsim.CaptureError, match="'0' has other positions"):
        repsim.compare(x, y, data=data, layers="[12]", layers_y=["0"], samples="tokens", **QUIET)
    with pytest.raises(
        repsim.CaptureError, match=r"(?s)nothing is left.*Pass transform=lambda maps"
    ):
        repsim.compare(x, y, data=data, layers="[12]", layers_y="*", samples="tokens", **QUIET)
    found = repsim.compare(
        x, y, data=data, layers="[12]", layers_y="*", samples="tokens",
        transform=lambda maps: torch.nn.functional.adaptive_avg_pool2d(maps, 2), **QUIET,
    )  # fmt: skip
    assert found.attrs["n_samples"] == 12 * 4
    mask = {"*": "attention_mask"}
    batches = [{"input": b, "attention_mask": torch.ones(6, 9)} for b in data]
    with pytest.raises(repsim.CaptureError, match=r"(?s)does not fit layer '0'.*mask: \(6, 9\)"):
        repsim.compare(
            x, data=batches, layers=["0"], samples="tokens", mask=mask,
            forward=lambda m, b: m(b["input"]), **QUIET,
        )  # fmt: skip


def test_heads_of_a_text_are_features():
    """(B, N, heads, d) has the tokens of its mask; so has every layer of Qwen3 but the head."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Qwen3Config(
        vocab_size=100, hidden_size=32, intermediate_size=48, num_hidden_layers=1, head_dim=8,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    model, data = transformers.Qwen3Model(config).eval(), texts("left", 8)
    layers = ["layers.0.self_attn.q_proj", "layers.0.self_attn.q_norm"]
    found = repsim.compare(model, data=data, layers=layers, samples="tokens", **QUIET)
    assert found.attrs["n_samples"] == sum(int(b["attention_mask"].sum()) for b in data)
    assert found.cka[0, 1] > 0.9  # a norm of each head keeps most of it


def test_tokens_in_windows_are_in_another_order():
    """Windows hold the tokens of a map in another order, so equal numbers are not equal tokens."""

    class Windows(nn.Module):
        """A map (n, 4, 4, D) in four windows, and back."""

        def __init__(self):
            super().__init__()
            self.embed, self.attend, self.back = nn.Linear(3, 5), nn.Linear(5, 5), nn.Linear(5, 4)

        def forward(self, x):
            x = self.embed(x).unflatten(1, (2, 2)).unflatten(3, (2, 2)).transpose(2, 3)
            x = self.attend(x.reshape(-1, 4, 5)).reshape(-1, 2, 2, 2, 2, 5)
            return self.back(x.transpose(2, 3).reshape(-1, 4, 4, 5))

    torch.manual_seed(0)
    model, data = Windows(), [torch.randn(6, 4, 4, 3) for _ in range(2)]
    options = {"data": data, "samples": "tokens", **QUIET}
    with pytest.warns(repsim.RepsimWarning, match=r"attend .*: its tokens are in 4 windows or cro"):
        found = repsim.compare(model, **options)
    assert found.layer_x.values.tolist() == ["embed", "back"]
    with pytest.raises(repsim.CaptureError, match="tokens of layer 'attend' are in another order"):
        repsim.compare(model, layers=["embed", "attend"], **options)


def test_data_scale_of_tokens():
    data = texts("left", 8)
    options = {"layers": ["0", "2"], "forward": ids_of, "samples": "tokens", **QUIET}
    found = repsim.data_scale({0.1: encoder(1)}, encoder(0), data, max_samples=30, **options)
    pair = repsim.compare(encoder(1), encoder(0), data=data, max_samples=30, **options)
    np.testing.assert_allclose(found.cka[0], np.diagonal(pair.cka), atol=1e-6)
    assert found.attrs["n_samples"] == 90


def test_ids_of_sequences_choose_their_tokens():
    data = [
        {**b, "ids": [f"text {k} {i}" for i in range(8)]}
        for k, b in enumerate(texts("right", 8, batches=2))
    ]
    options = {"layers": ["1", "2"], "forward": ids_of, "samples": "tokens", **QUIET}
    once = repsim.compare(encoder(0), data=data, **options)
    again = repsim.compare(
        encoder(0), data=[*data, data[0]], sample_ids=lambda batch: batch["ids"], **options
    )
    np.testing.assert_array_equal(once.cka, again.cka)
    assert (again.attrs["n_duplicates"], again.attrs["n_samples"]) == (8, once.attrs["n_samples"])


def test_a_resumed_run_draws_the_same_tokens(tmp_path):
    data = texts("right", 8, batches=4)
    options = {
        "layers": ["0", "2"], "forward": ids_of, "samples": "tokens", "max_samples": 20, **QUIET
    }  # fmt: skip
    whole = repsim.compare(encoder(0), data=data, **options)
    path = tmp_path / "state"

    def fails():
        yield from data[:2]
        raise RuntimeError("the disk of the data")

    with pytest.raises(RuntimeError, match="the disk"):
        repsim.compare(encoder(0), data=fails(), checkpoint=path, **options)
    resumed = repsim.compare(encoder(0), data=data, checkpoint=path, **options)
    np.testing.assert_array_equal(whole.cka, resumed.cka)
    assert resumed.attrs["n_sequences"] == 32
    with pytest.raises(repsim.StateError, match="skip_first"):
        repsim.compare(encoder(0), data=data, checkpoint=path, **options, skip_first=1)


def test_options_that_do_not_fit():
    model, data = encoder(0), texts("right", 8)
    for options, message in (
        ({"samples": "rows"}, "unknown samples"),
        ({"samples": "tokens", "max_samples": 0}, "max_samples must be a positive integer"),
        ({"samples": "tokens", "skip_first": 1.0}, "skip_first must be an integer of at least 0"),
        ({"max_samples": 5}, "max_samples, skip_first and pairs choose among tokens"),
        ({"samples": "tokens", "transform": "mean"}, "transform='mean' leaves one vector"),
        ({"samples": "tokens", "transform_y": repsim.capture.token(1)}, r"transform='token\(1\)'"),
        ({"samples": "tokens", "pairs": "both"}, "unknown pairs"),
        ({"samples": "tokens", "z_scores": True}, "z_scores need samples that can be exchanged"),
    ):
        with pytest.raises(InputError, match=message):
            repsim.compare(model, data=data, forward=ids_of, **options, **QUIET)


class Unaffordable(repsim.kernels.Linear):
    def gram(self, x):
        raise MemoryError(f"{len(x)} tokens")


def test_many_tokens_are_warned_of_before_the_first_gram():
    options = {"samples": "tokens", "kernel": Unaffordable(), "layers": ["0"], **QUIET}
    maps = [torch.ones(64, 65, 1)]
    with pytest.raises(MemoryError, match="4160"), pytest.warns(match="4160 × 4160.*69 MB") as said:
        repsim.compare(nn.Sequential(nn.Linear(1, 1)), data=maps, **options)
    assert "max_samples=2048" in str(said[0].message)
    with pytest.raises(MemoryError, match="4100"):  # the caller knows how many
        repsim.compare(nn.Sequential(nn.Linear(1, 1)), data=maps, max_samples=4100, **options)
