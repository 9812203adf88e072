"""Tokens on disk: one row per token, or whole texts with their masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import repsim
from analysis.test_masks import QUIET, texts
from analysis.test_token_samples import encoder, gathered, ids_of


def extract(model, data, path, **options):
    options = {"layers": ["0", "2"], "forward": ids_of, **QUIET, **options}
    return repsim.extract(model, data, out=path, **options)


def test_one_row_per_token(tmp_path):
    """Batches of different lengths, padded on different sides."""
    model = encoder(0)
    data = [*texts("left", 5, longest=12), *texts("right", 4, longest=7, seed=2)]
    stored = extract(model, data, tmp_path / "run", samples="tokens")
    rows = np.concatenate(gathered(model, data, 2))
    np.testing.assert_allclose(stored["2"], rows, atol=1e-6)
    lengths = [int(n) for batch in data for n in batch["attention_mask"].sum(1)]
    assert stored["0"].dims == ("sample", "0[1]")
    assert stored.sequence.values.tolist() == np.repeat(np.arange(27), lengths).tolist()
    assert stored.position.values.tolist() == [p for n in lengths for p in range(n)]
    assert stored.sample.values.tolist() == list(range(sum(lengths)))
    assert stored.attrs["n_sequences"] == 27
    assert repsim.cka_matrix(stored).sizes == {"layer_x": 2, "layer_y": 2}
    # A probe of positions needs only the coordinates.
    late = (stored.position.values >= 3).astype(int)
    probe = repsim.probe_activations(stored, late, stored, late)
    assert probe.accuracy.sizes["layer"] == 2


def test_the_draw_is_that_of_compare_and_of_no_batch(tmp_path):
    model, data = encoder(0), texts("left", 6, batches=2)
    options = {"samples": "tokens", "max_samples": 10, "skip_first": 1, "seed": 4}
    stored = extract(model, data, tmp_path / "a", **options)
    assert stored.sizes["sample"] == 20
    assert stored.position.values.min() >= 1
    other = extract(model, texts("right", 6, batches=2), tmp_path / "b", **options)
    for name in ("sequence", "position"):
        np.testing.assert_array_equal(stored[name], other[name])
    expected = repsim.MinibatchCKA()
    for rows in (slice(0, 10), slice(10, 20)):
        expected.update({name: stored[name][rows].values for name in ("0", "2")})
    found = repsim.compare(
        model, data=data, layers=["0", "2"], forward=ids_of, pairs="all", **options, **QUIET
    )
    np.testing.assert_allclose(found.cka, expected.compute(), atol=1e-6)


def test_ids_of_sequences_and_a_resumed_run(tmp_path):
    """Texts with a known id are not stored again; the bits are those of one run."""
    model = encoder(0)
    data = [
        {**batch, "ids": [f"text {(5 * k + i) % 18}" for i in range(6)]}
        for k, batch in enumerate(texts("right", 6, batches=4))
    ]
    options = {"samples": "tokens", "max_samples": 20, "sample_ids": lambda batch: batch["ids"]}
    whole = extract(model, data, tmp_path / "whole", **options)
    assert whole.attrs["n_duplicates"] == 6
    assert set(whole.sequence.values) <= {f"text {i}" for i in range(18)}
    for numbered in (False, True):
        path, used = tmp_path / f"run {numbered}", dict(options)
        if numbered:
            del used["sample_ids"]

        def fails():
            yield from data[:2]
            raise RuntimeError("the disk of the data")

        with pytest.raises(RuntimeError, match="the disk"):
            extract(model, fails(), path, **used)
        resumed = extract(model, data, path, **used)
        again = extract(model, data, tmp_path / f"again {numbered}", **used)
        assert resumed.load().identical(again.load())
        with pytest.raises(repsim.StateError, match="max_samples"):
            extract(model, data, path, **{**used, "max_samples": 21})


def test_masks_are_stored_and_used(tmp_path):
    model, data = encoder(0), texts("left", 8)
    stored = extract(model, data, tmp_path / "run", layers=["0", "1", "2"])
    mask = torch.cat([batch["attention_mask"] for batch in data]).bool().numpy()
    assert stored["2"].dims == ("sample", "token", "2[2]")
    np.testing.assert_array_equal(stored["2"].coords["mask"], mask)
    with pytest.warns(repsim.RepsimWarning, match="padding is compared as if it were data"):
        flat = repsim.cka_matrix(stored)
    rows = stored["2"].values
    take = {
        "mean": lambda x, real: x[real].mean(0), "first": lambda x, real: x[real][0],
        "last": lambda x, real: x[real][-1],
    }  # fmt: skip
    for transform, one in take.items():
        pooled = repsim.open_activations(tmp_path / "run", transform=transform)
        expected = np.stack([one(x, real) for x, real in zip(rows, mask, strict=True)])
        np.testing.assert_allclose(pooled["2"], expected, atol=1e-6)
        np.testing.assert_allclose(pooled["2"][5:9, 1], expected[5:9, 1], atol=1e-6)
        np.testing.assert_allclose(pooled["2"][-1], expected[-1], atol=1e-6)
        np.testing.assert_allclose(pooled["2"][[7, 2]], expected[[7, 2]], atol=1e-6)
        assert pooled["2"].dims == ("sample", "2[2]")
        assert pooled.attrs["transform"] == transform
        direct = extract(model, data, tmp_path / transform, transform=transform)
        np.testing.assert_allclose(pooled["2"], direct["2"], atol=1e-6)
        assert abs(repsim.cka_matrix(pooled) - flat).max() > 0.01
        labels = np.arange(24) % 2
        assert repsim.probe_activations(pooled, labels, pooled, labels).accuracy.size == 3
    right = texts("right", 8)
    rows = extract(model, right, tmp_path / "right", layers="2")["2"].values
    real = [row for batch in right for row in batch["attention_mask"].bool().numpy()]
    last = repsim.open_activations(tmp_path / "right", transform="last")["2"]
    np.testing.assert_array_equal(last, [x[m][-1] for x, m in zip(rows, real, strict=True)])
    extract(model, data, tmp_path / "half", layers="2", dtype="float16")
    for transform, dtype in (("mean", "float32"), ("first", "float16")):
        half = repsim.open_activations(tmp_path / "half", transform=transform)["2"]
        assert half.dtype == half.values.dtype == dtype
    with pytest.warns(repsim.RepsimWarning, match="probe_activations: padding is compared"):
        repsim.probe_activations(stored, labels, stored, labels)
    with pytest.raises(repsim.InputError, match="unknown transform"):
        repsim.open_activations(tmp_path / "run", transform="cls")


class Normed(torch.nn.Module):
    """Tokens normed over their positions, so that every text has the mean 0."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.last = torch.nn.Embedding(100, 8), torch.nn.Identity()

    def forward(self, ids):
        tokens = self.tokens(ids).transpose(1, 2)
        return self.last(torch.nn.functional.instance_norm(tokens).transpose(1, 2))


def test_stored_means_that_differ_by_rounding_alone_are_equal(tmp_path):
    """A CKA of what rounding leaves of them was 1 with itself, where a run of means gives NaN."""
    torch.manual_seed(0)
    model = Normed()
    data = [
        {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        for ids in torch.randint(0, 100, (5, 8, 37))
    ]
    options = {"layers": ["tokens", "last"]}
    whole = extract(model, data, tmp_path / "whole", **options)
    direct = extract(model, data, tmp_path / "means", transform="mean", **options)
    assert np.unique(whole["last"].values.mean(1)).size > 100
    pooled = repsim.open_activations(tmp_path / "whole", transform="mean")
    rows = pooled["last"].values
    assert (rows == rows[0]).all()
    assert abs(rows).max() < 1e-6
    np.testing.assert_array_equal(pooled["last"][11].values, rows[0])
    np.testing.assert_array_equal(pooled["last"][9:30:4, 2].values, rows[:6, 2])
    np.testing.assert_allclose(pooled["tokens"], whole["tokens"].values.mean(1), atol=1e-6)
    for stored in (pooled, direct):
        with pytest.warns(repsim.DegenerateWarning, match="constant over the samples"):
            found = repsim.cka_matrix(stored)
        assert np.isnan(found.loc["last"]).all()
        assert abs(found[0, 0] - 1) < 1e-6


def test_masks_of_several_sequences(tmp_path):
    data = [{**b, "other": b["attention_mask"].flip(1)} for b in texts("left", 8, batches=2)]
    stored = extract(encoder(0), data, tmp_path / "run", mask={"0": "other", "2": "attention_mask"})
    assert set(stored.coords) == {"sample", "mask:other", "mask:attention_mask"}
    assert stored["0"].dims[1] == "token:other"
    other = torch.cat([batch["other"] for batch in data]).bool()
    np.testing.assert_array_equal(stored["0"].coords["mask:other"], other)
    assert repsim.open_activations(tmp_path / "run", transform="last")["0"].shape == (16, 8)


def test_a_layer_with_the_name_of_a_coordinate(tmp_path):
    model = torch.nn.Sequential()
    model.add_module("position", torch.nn.Embedding(100, 4))
    with pytest.raises(repsim.InputError, match="'position' is a coordinate"):
        extract(model, texts("left", 4), tmp_path / "run", layers="*", samples="tokens")
