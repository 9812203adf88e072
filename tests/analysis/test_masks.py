"""Padding is never compared: masks of real positions, from the batch to every transform."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import repsim
from repsim import InputError, RepsimWarning
from repsim.capture import REDUCERS, Recorder, token

QUIET = {"progress": False}
REAL = ("mean", "first", "last", token(2), token(-3))


def texts(side, n=24, longest=12, batches=3, seed=1):
    """Batches of texts of 4 to 12 tokens, padded on one side; the same texts for both sides."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(batches):
        ids = torch.zeros(n, longest, dtype=torch.long)
        mask = torch.zeros(n, longest, dtype=torch.long)
        for row in range(n):
            length = int(torch.randint(4, longest + 1, (1,), generator=generator))
            real = slice(length) if side == "right" else slice(longest - length, None)
            ids[row, real] = torch.randint(1, 100, (length,), generator=generator)
            mask[row, real] = 1
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        made.append({"input_ids": ids, "attention_mask": mask, "position_ids": positions})
    return made


@pytest.fixture(scope="module")
def gpt2():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    config = transformers.GPT2Config(vocab_size=100, n_embd=32, n_layer=2, n_head=4)
    return transformers.GPT2Model(config).eval()


def test_the_same_texts_padded_on_either_side(llama):
    data = list(zip(texts("right"), texts("left"), strict=True))
    options = {
        "data": data, "layers": "layers.?", "prepare_x": lambda b: b[0],
        "prepare_y": lambda b: b[1], **QUIET,
    }  # fmt: skip
    for transform in REAL:
        cka = repsim.compare(llama, llama, transform=transform, **options).cka
        np.testing.assert_allclose(np.diagonal(cka), 1, atol=1e-5, err_msg=str(transform))
    with pytest.warns(repsim.RepsimWarning, match="padding is compared as if it were data"):
        flat = repsim.compare(llama, llama, **options).cka
    assert np.all(np.diagonal(flat) < 0.95)


def test_independent_texts_of_the_same_lengths(llama, gpt2):
    """Without masks they score high, because padding tells the lengths."""
    data = []
    for x, y in zip(texts("right", 48, batches=6), texts("right", 48, batches=6), strict=True):
        y["input_ids"] = torch.randint(1, 100, y["input_ids"].shape) * y["attention_mask"]
        data.append((x, y))
    options = {
        "data": data, "layers": ["layers.1"], "layers_y": ["h.1"], "prepare_x": lambda b: b[0],
        "prepare_y": lambda b: b[1], "z_scores": True, **QUIET,
    }  # fmt: skip
    for transform in ("mean", "last"):
        masked = repsim.compare(llama, gpt2, transform=transform, **options)
        assert abs(masked.cka.item()) < 3 * masked.standard_error.item(), transform
        unmasked = repsim.compare(llama, gpt2, transform=transform, mask=None, **options)
        assert unmasked.z.item() > 5, transform


@pytest.mark.parametrize("side", ["right", "left"])
def test_padded_texts_without_a_mask_give_a_warning(llama, side):
    """Padding had made two unrelated models alike: .98 in place of .52."""
    data = texts(side)
    for forms in (
        [{"input_ids": batch["input_ids"]} for batch in data],
        [(batch["input_ids"], batch["attention_mask"]) for batch in data],
        [batch["input_ids"] for batch in data],
    ):
        for options in ({"transform": "mean"}, {"samples": "tokens"}, {}):
            with pytest.warns(RepsimWarning, match="has no attention_mask, so padding counts"):
                repsim.compare(llama, data=forms, layers=["norm"], **options, **QUIET)
    # A tokeniser that pads to a fixed length, or a short batch of one array: no text is whole.
    more = (0, 3) if side == "right" else (3, 0)
    fixed = [functional.pad(batch["input_ids"], more) for batch in data]
    with pytest.warns(RepsimWarning, match="has no attention_mask, so padding counts"):
        repsim.compare(llama, data=fixed, layers=["norm"], **QUIET)


class Padded(nn.Module):
    """Takes its mask by the name that torch has for it: true where a position is padding."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.block = nn.TransformerEncoderLayer(8, 2, 8, dropout=0.0, batch_first=True)

    def forward(self, src, src_key_padding_mask=None, pixel_mask=None):
        return self.block(src, src_key_padding_mask=src_key_padding_mask)


def test_a_mask_by_another_name_gives_a_warning():
    torch.manual_seed(0)
    model, lengths = Padded(), torch.tensor([[6], [3], [4], [5], [6]])
    padding = torch.arange(6) >= lengths
    data = [{"src": torch.randn(5, 6, 8), "src_key_padding_mask": padding} for _ in range(2)]
    found = {}
    with pytest.warns(repsim.RepsimWarning, match=r"~batch\['src_key_padding_mask'\]"):
        found["auto"] = compare_mean(model, data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found["none"] = compare_mean(model, data, mask=None)
        compare_mean(model, data, mask=lambda batch: ~batch["src_key_padding_mask"])
        real = [{**batch, "src_key_padding_mask": torch.zeros_like(padding)} for batch in data]
        compare_mean(model, real)
    np.testing.assert_array_equal(found["auto"].cka, found["none"].cka)
    parts = [[{"src": batch["src"], "attention_mask": ~padding}, 0] for batch in data]
    with pytest.warns(repsim.RepsimWarning, match=r"Pass mask=lambda batch: batch\[0\]\['att"):
        compare_mean(model, parts, forward=lambda model, batch: model(batch[0]["src"]))
    images = [{"src": batch["src"], "pixel_mask": torch.eye(4).expand(5, 4, 4)} for batch in data]
    with pytest.warns(repsim.RepsimWarning, match=r"batch\['pixel_mask'\] is not read"):
        compare_mean(model, images)


def test_texts_that_only_seem_padded(llama):
    """No warning: mask=None, equal lengths, words that repeat, and one short batch."""
    data = texts("right")
    ids = [{"input_ids": batch["input_ids"]} for batch in data]
    options = {"layers": ["norm"], "transform": "mean", **QUIET}
    repsim.compare(llama, data=ids, mask=None, **options)
    for change in (
        lambda ids: ids.clamp(min=1),  # the token is inside of texts too
        lambda ids: torch.randint(1, 9, ids.shape),
        lambda ids: torch.cat([ids[:, :4], torch.zeros_like(ids[:, :4])], dim=1),  # all end alike
    ):
        same = [{"input_ids": change(batch["input_ids"])} for batch in data]
        repsim.compare(llama, data=same, **options)


class Longer(nn.Module):
    """Its layers have more positions than a text: 12 for 9 and 10 tokens."""

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.kind, self.words, self.read = kind, nn.Embedding(50, 8), nn.Linear(8, 8)
        self.own = nn.Parameter(torch.randn(12 if kind == "queries" else 2, 8))

    def forward(self, input_ids):
        if self.kind == "padding":  # to a multiple of the window, as Longformer
            return self.read(self.words(functional.pad(input_ids, (0, -input_ids.shape[1] % 4))))
        words = self.words(input_ids)
        if self.kind == "prompt":
            return self.read(torch.cat([self.own.expand(len(words), -1, -1), words], 1))
        return self.read(torch.softmax(self.own @ words.mT, -1) @ words)


def test_a_model_that_pads_texts_itself_gives_a_warning():
    """Its padding had counted without a word."""
    for kind, length, warns in (
        ("padding", 10, True), ("padding", 9, True), ("padding", 8, False), ("prompt", 10, False),
        ("queries", 10, False),
    ):  # fmt: skip
        data = [torch.randint(1, 50, (4, length)) for _ in range(2)]
        for form in (data, [(each, 0) for each in data], [{"input_ids": each} for each in data]):
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                own = compare_mean(Longer(kind), form, layers=["read"])
            found = [f"has 12 positions for {length} tokens" in str(each.message) for each in seen]
            assert found == [True] * warns, (kind, length)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                same = compare_mean(Longer(kind), form, layers=["read"], mask=None)
            np.testing.assert_array_equal(own.cka, same.cka)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no padding is among the first tokens
        repsim.compare(Longer("padding"), data=data, transform=lambda x: x[:, 0], **QUIET)


def test_series_that_a_model_pads_give_a_warning():
    """As in TimesFM, which takes a list of series."""

    class Series(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.embed = nn.Linear(1, 8)

        def forward(self, past_values):
            padded = nn.utils.rnn.pad_sequence(past_values, batch_first=True)
            return self.embed(padded[..., None])

    for lengths, warns in (((9, 7, 8, 9, 5), True), ((9,) * 5, False)):
        data = [{"past_values": [torch.randn(n) for n in lengths]} for _ in range(2)]
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            own = compare_mean(Series(), data)
        found = ["5 to 9 values, first seen at layer 'embed'" in str(each.message) for each in seen]
        assert found == [True] * warns
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            same = compare_mean(Series(), data, mask=None)
        np.testing.assert_array_equal(own.cka, same.cka)


class Context(nn.Module):
    """Series as TimesFM takes them: zeros before each fill its context, and then it is scaled."""

    def __init__(self, length):
        super().__init__()
        torch.manual_seed(0)
        self.length, self.decoder = length, nn.Sequential(nn.Unflatten(1, (-1, 4)), nn.Linear(4, 8))

    def forward(self, past_values):
        padded = [functional.pad(x, (self.length - len(x), 0)) for x in past_values]
        return self.decoder((torch.stack(padded) - 1) / 2)


def test_series_of_one_length_that_a_model_pads_give_a_warning():
    data = [{"past_values": [torch.randn(8) for _ in range(5)]} for _ in range(2)]
    for length, warns in ((12, True), (8, False)):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            compare_mean(Context(length), data, layers=["decoder"])
        found = ["'decoder' is given 12 values for 8" in str(each.message) for each in seen]
        assert found == [True] * warns
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare_mean(Context(12), data, layers=["decoder"], mask=None)


def test_values_by_hand(llama):
    """Every reducer over real tokens, against a loop over the samples."""
    batch = texts("left", batches=1)[0]
    with torch.no_grad():
        hidden = llama(**batch).last_hidden_state
    take = {
        "mean": lambda rows: rows.mean(0), "first": lambda rows: rows[0],
        "last": lambda rows: rows[-1], "cls": lambda rows: rows[0],
        token(2): lambda rows: rows[2], token(-3): lambda rows: rows[-3],
    }  # fmt: skip
    for transform, one in take.items():
        expected = torch.stack(
            [one(h[m.bool()]) for h, m in zip(hidden, batch["attention_mask"], strict=True)]
        )
        with Recorder(llama, ["norm"], transform=transform) as rec, torch.no_grad():
            llama(**batch)
        torch.testing.assert_close(rec["norm"], expected, msg=str(transform))


def test_where_masks_come_from(llama):
    batch = texts("left", batches=1)[0]
    real = batch["attention_mask"].bool()

    def recorded(mask, **more):
        with Recorder(llama, ["norm"], transform="mean", mask=mask) as rec, torch.no_grad():
            llama(**{**batch, **more})
        return rec["norm"]

    auto = recorded("auto")
    for mask in (
        "attention_mask",
        {"norm": "attention_mask"},
        {"nor*": "attention_mask"},
        lambda inputs: inputs["attention_mask"],
        lambda inputs: real,
    ):
        assert torch.equal(recorded(mask), auto)
    assert not torch.equal(recorded(None), auto)
    assert torch.equal(recorded({"other": "attention_mask"}), recorded(None))
    for mask, message in (
        (3, "mask must say which positions are real"),
        ({"*": 3}, "mask must say which positions are real"),
        ("padding", "mask='padding' is not in the batch"),
        (lambda inputs: real[0], "a mask must be a tensor"),
        (lambda inputs: torch.zeros(24, 12), "every sample needs a real position"),
    ):
        with pytest.raises(repsim.InputError, match=message):
            recorded(mask)
    with pytest.raises(repsim.LayerNotFoundError, match="mask names 'nothing'"):
        repsim.compare(
            llama, data=[batch], layers=["norm"], transform="mean",
            mask={"norm": "attention_mask", "nothing": None}, **QUIET,
        )  # fmt: skip


class TextsAndImages(nn.Module):
    """Texts and images in one model, as in CLIP; the images have no padding."""

    def __init__(self):
        super().__init__()
        self.text = nn.Sequential(nn.Embedding(100, 6), nn.Linear(6, 4))
        self.image = nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 4))

    def forward(self, input_ids, attention_mask, pixel_values):
        return self.text(input_ids).mean(1), self.image(pixel_values).mean(1)


def test_two_towers_of_one_model():
    torch.manual_seed(0)
    model = TextsAndImages()
    data = [{**batch, "pixel_values": torch.randn(24, 9, 5)} for batch in texts("right")]
    for batch in data:
        del batch["position_ids"]
    towers = {"data": data, "layers": "text.1", "layers_y": "image.1", "transform": "mean", **QUIET}
    found = repsim.compare(model, mask={"text*": "attention_mask"}, **towers)
    expected = repsim.compare(model, mask_y=None, **towers)
    assert found.cka.item() == expected.cka.item()
    with pytest.raises(repsim.LayerNotFoundError, match=r"mask names 'sound\*'"):
        repsim.compare(model, mask={"text*": "attention_mask", "sound*": None}, **towers)
    with pytest.raises(repsim.CaptureError, match=r'Pass mask=\{"text_model\*": "attention_mask"'):
        repsim.compare(model, **towers)


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 4)

    def forward(self, x, attention_mask=None):
        return self.b(self.a(x).relu())


def test_masks_that_do_not_say_what_is_real():
    x, real = torch.randn(8, 7, 5), torch.arange(7) < torch.arange(2, 10)[:, None]
    added = torch.where(real, 0.0, -1e9)
    for mask in (added, added - 1, torch.where(real, 1.0, torch.nan)):
        with pytest.raises(InputError, match="got values below 0, or NaN"):
            compare_mean(Tokens(), [{"x": x, "attention_mask": mask}])
    pairs = (real[:, None, :] & real[:, :, None])[:, None]
    with pytest.warns(
        RepsimWarning, match=r"(?s)\(8, 1, 7, 7\) is of pairs of positions"
    ) as caught:
        compare_mean(Tokens(), [{"x": x, "attention_mask": pairs}] * 2)
    assert sum("pairs of positions" in str(each.message) for each in caught) == 1
    # Segments of packed texts are numbered from 1.
    model, numbered = Tokens(), real.long() * torch.arange(1, 9)[:, None]
    expected, found = (
        compare_mean(model, [{"x": x, "attention_mask": mask}]) for mask in (real, numbered)
    )
    np.testing.assert_array_equal(expected.cka, found.cka)


def compare_mean(model, data, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "MinibatchCKA.standard_error")
        return repsim.compare(model, data=data, transform="mean", progress=False, **options)


def test_padding_may_hold_anything(llama):
    batch = texts("right", batches=1)[0]
    mask = batch["attention_mask"].bool()
    hidden = torch.randn(24, 12, 8)
    spoilt = hidden.masked_fill(~mask[..., None], torch.nan)
    for name in ("mean", "first", "last"):
        reduce = REDUCERS[name]
        assert torch.equal(reduce(spoilt, mask=mask), reduce(hidden, mask=mask)), name


class TwoTowers(nn.Module):
    """A text of 6 tokens and an image of 4 patches; each keeps its own number of positions."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.text, self.image = nn.Embedding(9, 8), nn.Linear(3, 8)
        self.head = nn.Linear(8, 8)

    def forward(self, ids, patches, attention_mask):
        return self.head(self.text(ids).mean(1) + self.image(patches).mean(1))


def test_another_number_of_positions():
    model = TwoTowers()
    mask = torch.ones(8, 6)
    mask[:, 4:] = 0
    batch = {"ids": torch.randint(0, 9, (8, 6)), "patches": torch.randn(8, 4, 3)}
    data = [{**batch, "attention_mask": mask}] * 2
    with pytest.raises(repsim.CaptureError, match=r"does not fit layer 'image'.*\n.*\n.*mask="):
        repsim.compare(model, data=data, layers=["image"], transform="mean", **QUIET)
    with pytest.warns(repsim.RepsimWarning, match=r"image \(8, 4, 8\): its positions are not"):
        found = repsim.compare(model, data=data, transform="mean", **QUIET)
    assert found.layer_x.values.tolist() == ["text", "head"]
    by_layer = repsim.compare(
        model, data=data, transform="mean", mask={"text": "attention_mask"}, **QUIET
    )
    assert by_layer.layer_x.values.tolist() == ["text", "image", "head"]


class ManyAxes(nn.Module):
    """Streams as in Gemma 3n, pairs of tokens as in ESMFold, a number for each token as in BLT."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(100, 8)
        self.streams, self.pairs, self.one = (nn.Linear(8, 8) for _ in range(3))
        self.weights, self.scores = nn.Softmax(-1), nn.Tanh()

    def forward(self, input_ids, attention_mask):
        x = self.embed(input_ids)
        self.streams(torch.stack([x, 2 * x, x + 1], dim=1))
        pairs = self.pairs(x[:, :, None] + x[:, None])
        self.weights(pairs.sum(-1))
        return self.scores(self.one(x)[..., 0])


def test_positions_behind_another_axis_and_pairs_of_positions():
    model, data = ManyAxes().eval(), texts("right", batches=2)
    for each in data:
        del each["position_ids"]
    batch = data[0]
    mask = batch["attention_mask"].bool()
    with torch.no_grad(), Recorder(model, ["streams", "scores"]) as whole:
        model(**batch)
    with torch.no_grad(), Recorder(model, ["streams"], transform="mean") as found:
        model(**batch)
    for row, values, real in zip(found["streams"], whole["streams"], mask, strict=True):
        torch.testing.assert_close(row, values[:, real].mean(1))
    for layer, why in (
        ("pairs", "axes 1 and 2 of layer 'pairs' may be its positions"),
        ("weights", "axes 1 and 2 of layer 'weights' may be its positions"),
        ("scores", "layer 'scores' returns a number for each token, and some tokens are padding"),
    ):
        with pytest.raises(repsim.CaptureError, match=why):
            compare_mean(model, [batch], layers=[layer])
    with pytest.raises(repsim.CaptureError, match="axes 1 and 2 of layer 'pairs' may be"):
        repsim.compare(model, data=[batch], layers=["pairs"], samples="tokens", **QUIET)
    with pytest.warns(RepsimWarning, match="a number for each token, padding too"):
        left = compare_mean(model, [batch])
    assert left.layer_x.values.tolist() == ["embed", "streams", "one"]
    with pytest.warns(RepsimWarning, match="from layer 'scores' on"):
        repsim.compare(model, data=data, layers=["scores"], **QUIET)
    # Without padding these are features, and so is a vector that is as wide as the text is long.
    whole_texts = {**batch, "attention_mask": torch.ones_like(batch["attention_mask"])}
    compare_mean(model, [whole_texts], layers=["scores"])
    model.embed, model.scores = nn.Embedding(100, 12), nn.Sequential(nn.Linear(12, 12), nn.Tanh())
    forward = lambda model, batch: model.scores(model.embed(batch["input_ids"])[:, 0])  # noqa: E731
    compare_mean(model, [batch], layers=["scores.0", "scores.1", "scores"], forward=forward)


def test_each_side_has_its_own_options(llama):
    """The last token of a text against the mean of an image's patches."""
    data = [{**text, "patches": torch.randn(24, 4, 3)} for text in texts("left")]
    image = nn.Sequential(nn.Linear(3, 5), nn.Tanh())
    prepare = {
        "prepare_x": lambda b: {k: v for k, v in b.items() if k != "patches"},
        "prepare_y": lambda b: b["patches"],
    }
    found = repsim.compare(
        llama, image, data, layers=["norm"], layers_y=["0"], transform="last",
        transform_y="mean", mask_y=None, **prepare, **QUIET,
    )  # fmt: skip
    vectors, means = [], []
    for batch in data:
        with torch.no_grad():
            vectors.append(llama(**prepare["prepare_x"](batch)).last_hidden_state[:, -1])
            means.append(image[0](batch["patches"]).mean(1))
    acc = repsim.MinibatchCKA()
    for x, y in zip(vectors, means, strict=True):
        acc.update({"norm": x}, {"0": y})
    np.testing.assert_allclose(found.cka, acc.compute(), rtol=1e-5)
    assert (found.attrs["transform"], found.attrs["transform_y"]) == ("last", "mean")


def test_layers_without_tokens_are_left_out_under_a_glob():
    net = nn.Sequential(nn.Linear(3, 4), nn.Flatten(), nn.Linear(16, 2))
    data = [torch.randn(8, 4, 3) for _ in range(2)]
    for transform in ("first", "last", token(0)):
        with pytest.warns(repsim.RepsimWarning, match=r"1 \(8, 16\)"):
            found = repsim.compare(net, data=data, transform=transform, **QUIET)
        assert found.layer_x.values.tolist() == ["0"]
        with pytest.raises(repsim.CaptureError, match="and this takes tokens"):
            repsim.compare(net, data=data, layers=["1"], transform=transform, **QUIET)


def test_the_map_of_a_one_dimensional_convolution():
    net, x = nn.Sequential(nn.Conv1d(3, 5, 2)), torch.randn(6, 3, 9)
    with Recorder(net, ["0"], transform="mean") as rec, torch.no_grad():
        out = net(x)
    torch.testing.assert_close(rec["0"], out.mean(2))


def test_a_callable_that_wants_the_batch():
    def weighted(tensor, batch):
        return (tensor * batch["weights"][..., None]).sum(1)

    weighted.wants_batch = True

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, x, weights):
            return self.layer(x)

    net = Net()
    batch = {"x": torch.randn(8, 5, 3), "weights": torch.rand(8, 5)}
    with Recorder(net, ["layer"], transform=weighted) as rec, torch.no_grad():
        out = net(**batch)
    torch.testing.assert_close(rec["layer"], weighted(out, batch))
    found = repsim.compare(net, data=[batch] * 2, transform=weighted, **QUIET)
    expected = repsim.cka(rec["layer"], rec["layer"], estimator="unbiased").item()
    assert found.cka.item() == pytest.approx(expected)


def test_extract_stores_real_tokens(llama, tmp_path):
    batches = texts("left")
    stored = repsim.extract(
        llama, batches, ["norm"], out=tmp_path / "run.zarr", transform="mean", **QUIET
    )
    with torch.no_grad():
        expected = [
            (llama(**b).last_hidden_state * b["attention_mask"][..., None]).sum(1)
            / b["attention_mask"].sum(1, keepdim=True)
            for b in batches
        ]
    np.testing.assert_allclose(stored["norm"], torch.cat(expected), rtol=1e-4, atol=1e-6)
    with pytest.raises(repsim.StateError, match="mask"):
        repsim.extract(
            llama, batches, ["norm"], out=tmp_path / "run.zarr", transform="mean", mask=None,
            **QUIET,
        )  # fmt: skip


def test_texts_without_padding_give_no_warning(llama):
    batch = {"input_ids": torch.randint(1, 99, (8, 6)), "attention_mask": torch.ones(8, 6)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        repsim.compare(llama, data=[batch] * 2, layers=["norm"], **QUIET)


@pytest.mark.parametrize("key", ["pixel_attention_mask", "patch_valid"])
def test_padding_among_patches_of_images(key):
    """As in SigLIP 2 of transformers and NaFlexViT of timm: images of several sizes in a batch."""

    class Patches(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Linear(6, 5)

        def forward(self, pixel_values, **_masks):
            return self.embed(pixel_values)

    torch.manual_seed(0)
    model, mask = Patches(), torch.arange(7) < torch.tensor([[7], [3], [5], [4], [7], [2]])
    x = torch.randn(6, 7, 6)
    other = torch.where(mask[..., None], x, torch.randn(6, 7, 6))
    maps = [
        repsim.extract(model, [{"pixel_values": each, key: mask}], out=f"memory://{key}{i}.zarr",
                       transform="mean", progress=False)["embed"].values
        for i, each in enumerate((x, other))
    ]  # fmt: skip
    expected = [model.embed(each[real]).mean(0) for each, real in zip(x, mask, strict=True)]
    for found in maps:
        torch.testing.assert_close(torch.from_numpy(found), torch.stack(expected).detach())
