"""Linear probes of text: over real tokens, the last of them, and tokens with their own labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import repsim
from analysis.text_models import VOCABULARY, Streams, language_model, texts
from reference import ridge as reference
from reference.residual import by_sequence
from repsim import CaptureError, InputError, linear_probe

QUIET = {"progress": False}
RIDGES = (0.1, 10.0, 1000.0)
OPTIONS = {"ridges": RIDGES, **QUIET}
LAYER = "layers.1"


@pytest.fixture(scope="module")
def llama():
    return language_model("llama")


def stream(side, seed, batches=3, n=16):
    """Texts whose class is a function of their last token."""
    data = texts(side, batches=batches, n=n, seed=seed)
    for batch in data:
        last = [ids[mask.bool()][-1] for ids, mask in zip(*pair(batch), strict=True)]
        batch["labels"] = torch.stack(last) % 3
    return data


def pair(batch):
    return batch["input_ids"], batch["attention_mask"]


def activations(model, data, layer=LAYER):
    """What the layer returned for the real tokens of each text, float64."""
    kept, out = [], []
    handle = model.get_submodule(layer).register_forward_hook(
        lambda _m, _a, o: kept.append(o if torch.is_tensor(o) else o[0])
    )
    with torch.no_grad():
        for batch in data:
            model(**{k: v for k, v in batch.items() if k != "labels"})
            for row, mask in zip(kept.pop(), batch["attention_mask"], strict=True):
                out.append(row[mask.bool()].double().numpy())
    handle.remove()
    return out


def labels_of(data):
    return torch.cat([batch["labels"] for batch in data]).tolist()


REDUCED = {
    "first": lambda x: x[0],
    "last": lambda x: x[-1],
    "mean": lambda x: x.mean(0),
    "mean_without_cls": lambda x: x[1:].mean(0),
    "2": lambda x: x[2],
}


def same(one, other):
    for name in ("accuracy", "ridge", "holdout_accuracy"):
        np.testing.assert_allclose(one[name], other[name], err_msg=name)


def test_real_tokens_against_the_loops(llama):
    train, test = stream("left", 0), stream("left", 1)
    tokens = list(REDUCED)
    result = linear_probe(llama, train, test, layers=LAYER, tokens=tokens, prefix=1, **OPTIONS)
    x, new = activations(llama, train), activations(llama, test)
    for token, reduce in REDUCED.items():
        want = reference.probe(
            np.stack([reduce(text) for text in x]), labels_of(train),
            np.stack([reduce(text) for text in new]), labels_of(test),
            ridges=RIDGES, part=0.2, n_classes=3,
        )  # fmt: skip
        got = result.sel(layer=LAYER, token=token)
        assert got.accuracy.item() == pytest.approx(want[0]), token
        assert got.ridge.item() == want[1], token
        assert got.holdout_accuracy.item() == pytest.approx(want[2]), token
    assert len(np.unique(result.accuracy)) > 1


def test_the_side_of_the_padding_does_not_matter(llama):
    options = {"layers": "layers.?", "tokens": list(REDUCED), "prefix": 1, **OPTIONS}
    sides = [linear_probe(llama, stream(s, 0), stream(s, 1), **options) for s in ("left", "right")]
    same(*sides)
    mixed = linear_probe(llama, stream("left", 0), stream("right", 1), **options)
    same(mixed, sides[0])
    without = linear_probe(llama, stream("left", 0), stream("right", 1), mask=None, **options)
    assert np.abs(without.accuracy - mixed.accuracy).max() > 0.05
    keyed = linear_probe(
        llama, stream("left", 0), stream("right", 1), mask={"layers.*": "attention_mask"}, **options
    )
    same(keyed, mixed)


def test_the_prefix_is_among_real_tokens():
    bert = language_model("bert")
    train, test = stream("right", 0), stream("right", 1)
    layer = "encoder.layer.1"
    options = {"layers": [layer], "tokens": ["cls", "mean_without_cls"], **OPTIONS}
    with pytest.warns(repsim.RepsimWarning, match="Pass prefix="):
        asked = linear_probe(bert, train, test, **{**options, "tokens": ["cls", "mean"]})
    assert np.isnan(asked.accuracy.sel(token="cls")).all()
    told = linear_probe(bert, train, test, prefix=1, **options)
    x, new = (activations(bert, data, layer) for data in (train, test))
    for token, reduce in (("cls", REDUCED["first"]), ("mean_without_cls", lambda v: v[1:].mean(0))):
        want = reference.probe(
            np.stack([reduce(v) for v in x]), labels_of(train),
            np.stack([reduce(v) for v in new]), labels_of(test),
            ridges=RIDGES, part=0.2, n_classes=3,
        )  # fmt: skip
        assert told.accuracy.sel(token=token).item() == pytest.approx(want[0]), token


# -- one label per token --------------------------------------------------------------------------


def of_tokens(side, seed, ignored=True):
    """The label of a token is a class of its number; some tokens have none."""
    data = texts(side, batches=3, n=10, seed=seed)
    for batch in data:
        labels = batch["input_ids"] % 4
        if ignored:
            labels = labels.masked_fill(batch["input_ids"] % 5 == 0, -100)
        batch["labels"] = labels.masked_fill(batch["attention_mask"] == 0, 99)  # never read
    return data


def by_text(model, data):
    """Vectors and labels of the labelled real tokens of each text."""
    labels = [
        row[mask.bool()].numpy()
        for batch in data
        for row, mask in zip(batch["labels"], batch["attention_mask"], strict=True)
    ]
    pairs = zip(activations(model, data), labels, strict=True)
    return [(x[y != -100], y[y != -100]) for x, y in pairs]


def test_labels_of_tokens_against_the_loops(llama):
    train, test = of_tokens("left", 0), of_tokens("left", 1)
    result = linear_probe(llama, train, test, layers=[LAYER], tokens="all", **OPTIONS)
    got = result.sel(layer=LAYER, token="all")
    fitted, tested = by_text(llama, train), by_text(llama, test)
    held = [int((i + 1) * 0.2) > int(i * 0.2) for i in range(len(fitted))]

    def join(texts):
        return np.concatenate([x for x, _ in texts]), np.concatenate([y for _, y in texts])

    fit = join([t for t, out in zip(fitted, held, strict=True) if not out])
    out = join([t for t, out in zip(fitted, held, strict=True) if out])
    scores = [reference.accuracy(*out, *reference.fit(*fit, 4, ridge)) for ridge in RIDGES]
    best = RIDGES[int(np.argmax(scores))]
    assert got.ridge.item() == best
    assert got.holdout_accuracy.item() == pytest.approx(max(scores))
    solution = reference.fit(*join(fitted), 4, best)
    hits = [
        [reference.accuracy(x[i : i + 1], y[i : i + 1], *solution) for i in range(len(y))]
        for x, y in tested
        if len(y)
    ]
    accuracy, error = by_sequence(hits)
    assert got.accuracy.item() == pytest.approx(accuracy)
    assert got.standard_error.item() == pytest.approx(error)
    assert result.attrs["n_test"] == sum(len(y) for _, y in tested)
    assert result.attrs["n_train"] == sum(len(y) for _, y in fitted)
    assert result.attrs["n_holdout"] == len(out[1])


def test_labels_of_tokens_on_either_side_of_the_padding(llama):
    options = {"layers": "layers.?", "tokens": "all", **OPTIONS}
    sides = [
        linear_probe(llama, of_tokens(s, 0), of_tokens(s, 1), **options) for s in ("left", "right")
    ]
    same(*sides)
    np.testing.assert_allclose(sides[0].standard_error, sides[1].standard_error)
    embedded = linear_probe(
        llama, of_tokens("left", 0), of_tokens("left", 1), layers=["embed_tokens"], tokens="all",
        **OPTIONS,
    )  # fmt: skip
    assert embedded.accuracy.item() > 0.5  # the class is a function of the token, chance is 1/4


def test_batches_of_other_lengths_and_without_labels(llama):
    train = of_tokens("left", 0)
    nothing = {**train[0], "labels": torch.full_like(train[0]["input_ids"], -100)}
    options = {"layers": [LAYER], "tokens": "all", **OPTIONS}
    whole = linear_probe(llama, train, train, **options)
    longer = [
        {
            k: torch.cat(
                [v.new_zeros(len(v), 3) if k != "labels" else v.new_full((len(v), 3), 7), v], 1
            )
            for k, v in batch.items()
        }
        for batch in train
    ]
    same(linear_probe(llama, [train[0], longer[1], train[2]], longer, **options), whole)
    with_empty = linear_probe(llama, [*train, nothing], [nothing, *train], **options)
    same(with_empty, whole)
    np.testing.assert_allclose(with_empty.standard_error, whole.standard_error)


def test_stored_tokens_are_probed_as_those_of_the_model(llama, tmp_path):
    """Rows of a store that are tokens: sequences are held out, errors are by sequence."""
    data = {name: of_tokens("left", seed, ignored=False) for name, seed in (("a", 0), ("b", 1))}
    stored, labels = {}, {}
    for name, batches in data.items():
        inputs = [{k: v for k, v in b.items() if k != "labels"} for b in batches]
        stored[name] = repsim.extract(
            llama, inputs, [LAYER], out=tmp_path / f"{name}.zarr", samples="tokens", progress=False
        )
        labels[name] = np.concatenate([
            row[mask.bool()].numpy()
            for b in batches
            for row, mask in zip(b["labels"], b["attention_mask"], strict=True)
        ])  # fmt: skip
    args = (stored["a"], labels["a"], stored["b"], labels["b"])
    got = repsim.probe_activations(*args, ridges=RIDGES)
    want = linear_probe(llama, data["a"], data["b"], layers=[LAYER], tokens="all", **OPTIONS)
    same(got, want)
    np.testing.assert_allclose(got.standard_error, want.standard_error)
    assert got.attrs["n_holdout"] == want.attrs["n_holdout"]
    with pytest.raises(InputError, match="probe_activations: shots counts samples"):
        repsim.probe_activations(*args, ridges=RIDGES, shots=3)


# -- what can go wrong ----------------------------------------------------------------------------


def test_errors(llama):
    train, tokens = stream("left", 0), of_tokens("left", 0)

    def probe(data, **options):
        return linear_probe(llama, data, data, **{"layers": [LAYER], **OPTIONS, **options})

    for data, options, message in (
        (train, {"tokens": "each"}, 'tokens="each" needs samples without padding'),
        (train, {"tokens": "all"}, r"one class number for each token, \(n, N\)"),
        (tokens, {"tokens": "last"}, r'Labels of tokens \(n, N\) go with tokens="all"'),
        (tokens, {"tokens": ["all", "mean"]}, "or 'all' alone"),
        (tokens, {"tokens": "all", "mask": {LAYER: "attention_mask"}}, "one mask for all layers"),
        (tokens, {"tokens": "all", "n_classes": 2}, "classes from 0 and below 2"),
        (tokens, {"tokens": "all", "holdout": 0.01}, "no sequence of train is held out"),
        (tokens, {"tokens": "all", "shots": 5}, "shots counts samples"),
        (train, {"mask": "other"}, "mask='other' is not in the batch"),
        (train, {"tokens": ["30"]}, "no layer has any of tokens"),
    ):
        with pytest.raises(InputError, match=message):
            probe(data, **options)
    short = [{**batch, "labels": batch["labels"][:, :5]} for batch in tokens]
    with pytest.raises(InputError, match=r"mask: \(10, 9\)    labels: \(10, 5\), batch 0 of train"):
        probe(short, tokens="all")
    nothing = [{**batch, "labels": torch.full_like(batch["labels"], -100)} for batch in tokens]
    with pytest.raises(InputError, match="no token of test has a label"):
        linear_probe(llama, tokens, nothing, layers=[LAYER], tokens="all", **OPTIONS)


def test_layers_that_do_not_fit():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.pool = nn.Embedding(50, 8), nn.AvgPool1d(3)

        def forward(self, input_ids, attention_mask):
            x = self.embed(input_ids)
            return self.pool(x.transpose(1, 2)).transpose(1, 2)

    drop = ("position_ids",)
    train, tokens = (
        [{k: v for k, v in batch.items() if k not in drop} for batch in make("left", 0)]
        for make in (stream, of_tokens)
    )
    model = Pooled()
    pooled = {"select": lambda x: x.transpose(1, 2) if x.shape[1] == 8 else x, **OPTIONS}
    for data, choice, message in (
        (train, "mean", "the mask does not fit layer 'pool'"),
        (tokens, "all", "the labels of tokens do not fit layer 'pool'"),
    ):
        with pytest.raises(CaptureError, match=message):
            linear_probe(model, data, data, layers=["pool"], tokens=choice, **pooled)
        with pytest.warns(repsim.RepsimWarning, match=r"pool \(.*, 3, 8\): its"):
            result = linear_probe(model, data, data, layers="*", tokens=choice, **pooled)
        assert result.layer.values.tolist() == ["embed"]


def test_streams_of_a_text_are_features():
    """(B, N, streams, D): the mean is over tokens, as of (B, N, streams · D)."""
    ids = torch.randint(0, VOCABULARY, (60, 5), generator=torch.Generator().manual_seed(0))
    data = [(ids, ids[:, 0] % 2)]
    given = {
        "layers": "layers.?",
        "tokens": ["mean", "last"],
        "ridges": [1.0],
        "holdout": 0,
        **QUIET,
    }
    found = linear_probe(Streams(), data, data, **given)
    flat = linear_probe(Streams(), data, data, select=lambda x: x.flatten(2), **given)
    assert (found.accuracy.values == flat.accuracy.values).all()
    # Pairs of tokens are no positions.
    pairs = nn.Sequential(nn.Embedding(VOCABULARY, 15), nn.Unflatten(2, (5, 3)))
    with pytest.raises(CaptureError, match="axes 1 and 2 .* may be its positions"):
        linear_probe(pairs, data, data, **{**given, "layers": ["1"]})


def test_several_series_have_their_features_last():
    """As in PatchTST: (B, series, patches, D) of a model with batch norms and no LayerNorm."""
    series = torch.randn(60, 3, 20, generator=torch.Generator().manual_seed(0))
    data = [(series, (series.mean((1, 2)) > 0).long())]
    torch.manual_seed(0)
    patches = nn.Sequential(nn.Unflatten(2, (5, 4)), nn.Linear(4, 16), nn.BatchNorm2d(3))
    model = nn.Sequential(patches, nn.Sequential(nn.Linear(16, 16), nn.GELU())).eval()
    given = {"tokens": "mean", "ridges": [1.0], "holdout": 0, **QUIET}
    found = linear_probe(model, data, data, layers=["1"], **given)
    flat = linear_probe(model, data, data, layers=["1"], select=lambda x: x.flatten(1, 2), **given)
    assert found.accuracy.item() == flat.accuracy.item() > 0.8
