"""Stitched models: against plain regressions, on models of packages, with controls, restored."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import repsim
from analysis.plain import unchanged
from cases import each
from measures.checks import refuses
from packages import timm, torchvision, transformers
from repsim.results import STITCHING

quiet = {"progress": False}


def mlp(seed=0, width=16, classes=4):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 12), nn.Tanh(),
                         nn.Linear(12, classes))  # fmt: skip


def vectors(batches=4, n=20, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 6, generator=generator) for _ in range(batches)]


def images(batches=4, n=6, side=32, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 3, side, side, generator=generator) for _ in range(batches)]


def cnn(seed=0, width=8, stride=1):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1, stride=stride), nn.ReLU(),
        nn.Conv2d(width, 10, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 5),
    ).eval()  # fmt: skip


def plain(rows_x, rows_y, ridge):
    """The ridge regression in NumPy: weights and intercept."""
    x, y = (np.concatenate(rows).astype(np.float64) for rows in (rows_x, rows_y))
    mean_x, mean_y = x.mean(0), y.mean(0)
    xc, yc = x - mean_x, y - mean_y
    penalty = ridge * (xc**2).sum() / x.shape[1]
    weights = np.linalg.solve(xc.T @ xc + penalty * np.eye(x.shape[1]), xc.T @ yc)
    return torch.tensor(weights), torch.tensor(mean_y - mean_x @ weights)


def scores(own, other, labels=None):
    p, q = (z.double().log_softmax(-1) for z in (own, other))
    out = {
        "kl": float((p.exp() * (p - q)).sum(-1).mean()),
        "disagreement": float((own.argmax(-1) != other.argmax(-1)).double().mean()),
    }
    if labels is not None:
        out["loss"] = float(nn.functional.cross_entropy(other.double(), labels))
        out["accuracy"] = float((other.argmax(-1) == labels).double().mean())
    return out


def agrees(result, expected, stitch="fitted", **at):
    found = result.sel(stitch=stitch, **at)
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value, abs=1e-5), name


@torch.no_grad()
def test_vectors_with_labels():
    x, y = mlp(), mlp(1, width=10)
    inputs = vectors()
    labels = [torch.arange(20) % 4 for _ in inputs]
    result = repsim.stitch(x, "1", y, "1", list(zip(inputs, labels, strict=True)), **quiet)
    rows = [[net[:2](b).numpy() for b in inputs[:2]] for net in (x, y)]
    weights, bias = plain(*rows, 1e-4)
    measured, right = torch.cat(inputs[2:]), torch.cat(labels[2:])
    stitched = y[2:]((x[:2](measured).double() @ weights + bias).float())
    agrees(result, scores(y(measured), stitched, right))
    own = scores(y(measured), y(measured), right)
    assert result.own_accuracy.item() == pytest.approx(own["accuracy"])
    assert result.own_loss.item() == pytest.approx(own["loss"], abs=1e-6)
    assert (result.attrs["n_fitted"], result.attrs["n_measured"]) == (40, 40)
    assert result.stitch.values.tolist() == ["fitted", "identity", "random", "untrained"]
    assert np.isnan(result.kl.sel(stitch="identity").item())  # 16 features for 10
    for name in ("disagreement", "accuracy"):
        value = result[name].sel(stitch="fitted").item()
        error = result[f"{name}_standard_error"].sel(stitch="fitted").item()
        assert error == pytest.approx((value * (1 - value) / 39) ** 0.5)


class Token(nn.Module):
    """Logits (n, T, 3) of tokens; they are NaN where a feature that it takes the root of is < 0."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.hidden = nn.Sequential(nn.Linear(6, 8), nn.Softplus())
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.hidden(x).sqrt())


def test_samples_without_a_label_are_no_samples_of_the_loss():
    """However they are batched, they are not in its standard error."""
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(6, 4, 6, generator=generator)
    labels = torch.randint(0, 3, (6, 4), generator=generator)
    labels[[1, 3, 4]], labels[0, 2:] = -100, -100
    fit = [(torch.randn(5, 4, 6, generator=generator), labels[:5])]
    y = Token(0)
    options = {"labels": lambda batch: batch[1], "forward": lambda net, batch: net(batch[0])}
    found = [
        repsim.stitch(
            y, "hidden", y, "hidden", list(zip(inputs.split(n), labels.split(n), strict=True)),
            fit=fit, controls=["identity"], **options, **quiet,
        ).sel(stitch="identity")
        for n in (1, 2, 6)
    ]  # fmt: skip
    with torch.no_grad():
        losses = nn.functional.cross_entropy(
            y(inputs).double().movedim(-1, 1), labels, reduction="none"
        ).numpy()
    some = [row for row in range(6) if (labels[row] != -100).any()]
    sums = np.array([losses[row].sum() for row in some])
    counts = np.array([int((labels[row] != -100).sum()) for row in some])
    mean, n = sums.sum() / counts.sum(), len(some)
    error = np.sqrt(n / (n - 1) * ((sums - mean * counts) ** 2).sum()) / counts.sum()
    for result in found:
        assert result.loss.item() == pytest.approx(mean, abs=1e-6)
        assert result.loss_standard_error.item() == pytest.approx(error, abs=1e-6)


def test_no_answer_counts_where_stitched_logits_are_nan():
    x, y, data = mlp(), Token(0), vectors()
    labels = [torch.arange(20) % 3 for _ in data]
    with pytest.warns(repsim.DegenerateWarning, match="stitched outputs of 1 pairs of layers"):
        result = repsim.stitch(
            x, "1", y, "hidden", list(zip(data, labels, strict=True)), controls=["random"], **quiet
        )
    lost = result.sel(stitch="random").squeeze()
    for name in ("kl", "disagreement", "loss", "accuracy"):
        assert np.isnan([lost[name], lost[f"{name}_standard_error"]]).all(), name
    assert 0 <= result.own_accuracy.item() <= 1


@torch.no_grad()
def test_maps_of_two_sizes():
    """A 1×1 convolution after a bilinear resize, from 8×8 to 16×16 and back."""
    big, small = cnn(), cnn(1, stride=2)
    data = images(side=16)
    for x, y, size in ((small, big, 16), (big, small, 8)):
        result = repsim.stitch(x, "1", y, "1", data, controls=[], **quiet)

        def resized(batch, net=x, size=size):
            return nn.functional.interpolate(
                net[:2](batch), (size, size), mode="bilinear", antialias=True
            )

        rows = [
            [z.movedim(1, -1).flatten(0, 2).numpy() for z in map(f, data[:2])]
            for f in (resized, y[:2])
        ]
        weights, bias = plain(*rows, 1e-4)
        measured = torch.cat(data[2:])
        mapped = resized(measured).movedim(1, -1).double() @ weights + bias
        agrees(result, scores(y(measured), y[2:](mapped.movedim(-1, 1).float())))


def test_a_layer_in_its_own_place():
    y = mlp()
    data = vectors()
    for layer in ("0", "1", "3", "4"):
        result = repsim.stitch(y, layer, y, layer, data, ridge=0, **quiet)
        assert result.kl.sel(stitch="identity").item() == 0
        assert result.disagreement.sel(stitch="identity").item() == 0
        said = {each.what: each.value for each in STITCHING.findings(result)}
        assert said["least disagreement, identity"] == "0.000"  # an error of zero is no bound
        agrees(result, {"kl": 0, "disagreement": 0})
        assert result.kl.sel(stitch="random").item() > 0.001
    before = repsim.stitch(y, "1", y, "2", data, ridge=0, controls=[], **quiet)
    agrees(before, {"kl": 0, "disagreement": 0})  # the layer between is linear


def test_controls():
    x, y = mlp(), mlp()
    data = vectors(8, 50)
    result = repsim.stitch(x, "1", y, "3", data, **quiet)
    again = repsim.stitch(x, "1", y, "3", data, **quiet)
    np.testing.assert_array_equal(result.kl, again.kl)
    other = repsim.stitch(x, "1", y, "3", data, seed=1, **quiet)
    changed = (result.kl != other.kl).squeeze().values.tolist()
    assert changed == [False, True, True, True]  # identity is undefined: NaN is not NaN
    own = repsim.stitch(x, "1", y, "3", data, untrained=mlp(7), **quiet)
    given = repsim.stitch(mlp(7), "1", y, "3", data, controls=[], **quiet)
    assert own.kl.sel(stitch="untrained").item() == given.kl.sel(stitch="fitted").item()
    few = repsim.stitch(x, "1", y, "3", data, controls=["random"], **quiet)
    assert few.stitch.values.tolist() == ["fitted", "random"]
    assert few.kl.sel(stitch="random").item() == result.kl.sel(stitch="random").item()


def test_a_copy_without_memory_is_no_model_that_cannot_be_copied():
    class Wide(nn.Sequential):
        def __deepcopy__(self, memo):
            raise self.error

    x, y, data = Wide(mlp(0)), mlp(1), vectors()
    for x.error, expected in (
        (torch.OutOfMemoryError("CUDA out of memory."), torch.OutOfMemoryError),
        (RuntimeError("not for copying"), repsim.InputError),
    ):
        with pytest.raises(expected):
            repsim.stitch(x, "0.1", y, "3", data, controls=["untrained"], **quiet)


def test_an_untrained_copy_has_other_weights_and_the_model_keeps_its_own():
    """In a model with modules that reset themselves, statistics, and a parameter of its own."""

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.norm = nn.Linear(6, 8), nn.BatchNorm1d(8)
            self.scale = nn.Parameter(torch.full((8,), 3.0) + torch.arange(8))
            self.act, self.head = nn.Tanh(), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.act(self.norm(self.linear(x)) * self.scale))

    torch.manual_seed(0)
    net = Scaled()
    net.train()
    for batch in vectors():
        net(batch)  # statistics of the norm
    net.eval()
    before = copy.deepcopy(net.state_dict())
    with unchanged(net):
        result = repsim.stitch(net, "act", net, "act", vectors(6), **quiet)
    for name, value in before.items():
        torch.testing.assert_close(net.state_dict()[name], value, rtol=0, atol=0)
    kl = result.kl.squeeze().to_series()
    assert kl["fitted"] < 1e-6
    assert 0.001 < kl["untrained"] < kl["random"]


def test_every_pair_of_layers():
    x, y = mlp(), mlp(1)
    result = repsim.stitch(x, ["1", "3"], y, "[013]", vectors(), **quiet)
    assert result.kl.dims == ("stitch", "layer_x", "layer_y")
    assert result.layer_x.values.tolist() == ["1", "3"]
    assert result.layer_y.values.tolist() == ["0", "1", "3"]
    one = repsim.stitch(x, "3", y, "1", vectors(), controls=[], **quiet)
    for name in ("kl", "disagreement"):
        found = result[name].sel(stitch="fitted", layer_x="3", layer_y="1").item()
        assert found == pytest.approx(one[name].item(), abs=1e-6)


def test_pairs_that_do_not_fit_are_left_out_or_an_error():
    net = cnn()
    with pytest.warns(repsim.RepsimWarning, match="3 pairs of layers are left out") as caught:
        result = repsim.stitch(net, ["1", "3", "6"], net, ["3", "6"], images(), **quiet)
    assert "positions of a map 32×32 cannot take the place of a vector" in str(caught[0].message)
    known = np.isfinite(result.kl.sel(stitch="fitted").values)
    np.testing.assert_array_equal(known, [[True, False], [True, False], [False, True]])
    with refuses(repsim.InputError, "no layer of x can take the place", "a vector"):
        repsim.stitch(net, "1", net, "6", images(), **quiet)


def vit(**options):
    torch.manual_seed(0)
    return timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2, num_classes=5, **options
    ).eval()


@pytest.mark.slow
def test_vision_transformers_and_convolutional_networks():
    torch.manual_seed(1)
    resnet = torchvision.models.resnet18(num_classes=5).eval()
    other = vit()
    with unchanged(resnet, other):
        same = repsim.stitch(other, "blocks.0", other, "blocks.0", images(n=20), ridge=0, **quiet)
        agrees(same, {"kl": 0, "disagreement": 0})
        # The patches of a sequence are a map 4×4, resized to 8×8.
        to_map = repsim.stitch(other, "blocks.1", resnet, "layer1", images(), **quiet)
        assert np.isfinite(to_map.kl.sel(stitch="fitted").item())
        with refuses(repsim.InputError, "have nothing for the 1 first of 17 tokens"):
            repsim.stitch(resnet, "layer1", other, "blocks.0", images(), **quiet)
    pooled = vit(class_token=False, global_pool="avg")
    result = repsim.stitch(resnet, "layer1", pooled, ["blocks.0", "blocks.1"], images(), **quiet)
    assert np.isfinite(result.kl.sel(stitch="fitted", layer_y="blocks.0").item())


def test_tokens_of_other_numbers_are_refused():
    finer = timm.models.VisionTransformer(
        img_size=32, patch_size=16, embed_dim=24, depth=1, num_heads=2, num_classes=5
    )
    with refuses(repsim.InputError, "17 tokens", "5 tokens"):
        repsim.stitch(vit(), "blocks.0", finer, "blocks.0", images(), **quiet)


def causal(seed=0, kind="GPT2"):
    torch.manual_seed(seed)
    if kind == "GPT2":
        config = transformers.GPT2Config(vocab_size=30, n_embd=16, n_layer=2, n_head=2,
                                         n_positions=16, resid_pdrop=0, embd_pdrop=0)  # fmt: skip
        return transformers.GPT2LMHeadModel(config).eval()
    config = transformers.LlamaConfig(
        vocab_size=30, hidden_size=24, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def texts(side="right", batches=4, n=6, longest=8):
    generator = torch.Generator().manual_seed(3)
    made = []
    for _ in range(batches):
        ids = torch.randint(1, 30, (n, longest), generator=generator)
        lengths = torch.randint(3, longest + 1, (n,), generator=generator)
        lengths[0] = longest
        mask = (torch.arange(longest) < lengths[:, None]).long()
        if side == "left":
            mask = mask.flip(1)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        made.append({"input_ids": ids * mask, "attention_mask": mask, "position_ids": positions})
    return made


def next_tokens(batch):
    moved = batch["input_ids"].roll(-1, dims=1)
    real = (batch["attention_mask"] * batch["attention_mask"].roll(-1, dims=1)).bool()
    real[:, -1] = False
    return moved.masked_fill(~real, -100)


def test_language_models_over_real_tokens():
    x, y = causal(), causal(1, "Llama")
    data = texts()
    with unchanged(x, y):
        result = repsim.stitch(
            x, "transformer.h.0", y, "model.layers.0", data, next_tokens, **quiet
        )
    with torch.no_grad():
        own, other, labels = spliced_by_hand(x, y, data)
    agrees(result, scores(own, other))
    known = labels != -100
    expected = scores(own[known], other[known], labels[known])
    agrees(result, {name: expected[name] for name in ("loss", "accuracy")})


def spliced_by_hand(x, y, data):
    """The logits of y and of the stitched model at real tokens, and the next tokens."""

    def hidden(net, layer, batch):
        kept = []
        handle = net.get_submodule(layer).register_forward_hook(
            lambda _m, _a, out: kept.append(out[0] if isinstance(out, tuple) else out)
        )
        net(**batch)
        handle.remove()
        return kept[0]

    real = [batch["attention_mask"].bool() for batch in data]
    rows = [
        [hidden(net, layer, b)[r].numpy() for b, r in zip(data[:2], real[:2], strict=True)]
        for net, layer in ((x, "transformer.h.0"), (y, "model.layers.0"))
    ]
    weights, bias = plain(*rows, 1e-4)
    own, other, labels = [], [], []
    for batch, mask in zip(data[2:], real[2:], strict=True):
        new = (hidden(x, "transformer.h.0", batch).double() @ weights + bias).float()
        own.append(y(**batch).logits[mask])
        block = y.model.layers[0]
        handle = block.register_forward_hook(
            lambda _m, _a, out, new=new: (new, *out[1:]) if isinstance(out, tuple) else new
        )
        other.append(y(**batch).logits[mask])
        handle.remove()
        labels.append(next_tokens(batch)[mask])
    return map(torch.cat, (own, other, labels))


def test_texts_that_are_padded_on_the_left():
    x = causal()
    same = repsim.stitch(x, "transformer.h.0", x, "transformer.h.0", texts("left"), **quiet)
    agrees(same, {"kl": 0, "disagreement": 0}, stitch="identity")
    assert same.kl.sel(stitch="random").item() > 1e-3


def test_encoders_with_decoders():
    """The logits follow the decoder, and the labels in the batch make its input."""
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=30, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2,
        decoder_start_token_id=0,
    )  # fmt: skip
    net = transformers.T5ForConditionalGeneration(config).eval()
    for batch in (data := texts()):
        del batch["position_ids"]
        batch["labels"] = batch["input_ids"][:, :5].clamp(min=1)
    for part in ("encoder", "decoder"):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "stitch: all positions of the decoder")
            result = repsim.stitch(
                net, f"{part}.block.0", net, f"{part}.block.0", data, controls=["random"], ridge=0,
                **quiet,
            )  # fmt: skip
        agrees(result, {"kl": 0, "disagreement": 0})
        assert result.kl.sel(stitch="random").item() > 1e-7
        assert "loss" not in result


def test_sequence_first_models_and_compiled_ones():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(16, 2, 16, dropout=0.0)
            self.head = nn.Linear(16, 3)

        def forward(self, x):  # (n, T, 16)
            return self.head(self.layer(x.transpose(0, 1)).mean(0))

    torch.manual_seed(0)
    net = Encoder().eval()
    data = [torch.randn(7, 5, 16) for _ in range(6)]
    result = repsim.stitch(net, "layer", net, "layer", data, ridge=0, **quiet)
    agrees(result, {"kl": 0, "disagreement": 0})
    agrees(result, {"kl": 0, "disagreement": 0}, stitch="identity")
    assert result.kl.sel(stitch="random").item() > 1e-4


def test_one_call_of_several():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.step, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x):
            return {"logits": self.head(torch.tanh(self.step(torch.tanh(self.step(x)))))}

    torch.manual_seed(0)
    net = Twice()
    result = repsim.stitch(net, "step:1", net, "step:1", vectors(), ridge=0, **quiet)
    agrees(result, {"kl": 0, "disagreement": 0})
    first = repsim.stitch(net, "step:0", net, "step:1", vectors(), ridge=0, **quiet)
    assert first.layer_x.item() == "step:0"
    assert first.kl.sel(stitch="identity").item() > 1e-4


@torch.no_grad()
def test_other_batches_to_fit_on():
    x, y = mlp(), mlp(1)
    data, other = vectors(3), vectors(2, seed=9)
    result = repsim.stitch(x, "1", y, "1", iter(data), fit=iter(other), controls=[], **quiet)
    assert (result.attrs["n_fitted"], result.attrs["n_measured"]) == (40, 60)
    halves = repsim.stitch(x, "1", y, "1", [*other, *data], controls=[], **quiet)
    assert halves.attrs["n_fitted"] == 40
    assert halves.kl.item() == pytest.approx(result.kl.item(), abs=1e-7)


def test_models_and_random_state_are_as_found():
    x, y = mlp(), mlp(1)
    x.train()
    y[1].eval()
    with unchanged(x, y):
        repsim.stitch(x, "1", y, "1", vectors(), **quiet)

    class Counts(nn.Module):
        """A model that answers differently each time."""

        def __init__(self):
            super().__init__()
            self.inner = mlp()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return self.inner(x) * (1 + self.calls)

    model = Counts()
    result = repsim.stitch(model, "inner.1", model, "inner.1", vectors(), ridge=0, **quiet)
    assert float(model.calls) == 0
    assert result.disagreement.sel(stitch="identity").item() == 0
    with unchanged(x, y), pytest.raises(repsim.NonFiniteError):
        repsim.stitch(x, "1", y, "1", [*vectors(3), vectors()[0] * torch.nan], **quiet)


def test_the_result_is_drawn_stored_and_shown(tmp_path):
    pytest.importorskip("matplotlib")
    x, y = mlp(), mlp(1)
    labelled = [(batch, torch.arange(20) % 4) for batch in vectors()]
    result = repsim.stitch(x, "[13]", y, "[13]", labelled, names=("a", "b"), **quiet)
    ax = repsim.plot.heatmap(result.disagreement.sel(stitch="fitted"))
    assert ax.images[0].get_array().shape == (2, 2)
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("a layer", "b layer")
    assert ax.images[0].get_clim() == (0, 1)
    repsim.report.save_result(tmp_path, "stitching", result)
    back = repsim.report.load_results(tmp_path)["stitching"]
    np.testing.assert_array_equal(back.kl, result.kl)
    assert back.attrs == result.attrs


def test_errors():
    x, y, data = mlp(), mlp(1), vectors()

    def call(*args, **options):
        return repsim.stitch(*args, **{**quiet, **options})

    with refuses(repsim.InputError, "stitch: data must have at least two batches", "fit="):
        call(x, "1", y, "1", data[:1])
    with refuses(repsim.InputError, "without a length", "fit="):
        call(x, "1", y, "1", (batch for batch in data))
    with refuses(repsim.LayerNotFoundError, "no layer is called '9'"):
        call(x, "9", y, "1", data)
    with refuses(repsim.InputError, "unknown controls", "'untrained'", "'none'"):
        call(x, "1", y, "1", data, controls=["none"])
    with refuses(repsim.InputError, "controls must be a list"):
        call(x, "1", y, "1", data, controls="random")
    with refuses(repsim.InputError, "controls must be a list"):
        call(x, "1", y, "1", data, controls=np.array(3))
    with refuses(repsim.InputError, "ridge must be a finite number of at least 0"):
        call(x, "1", y, "1", data, ridge=-1)
    with refuses(repsim.InputError, "untrained must be a torch.nn.Module"):
        call(x, "1", y, "1", data, untrained="yes")
    with refuses(repsim.InputError, "model_y must be a torch.nn.Module"):
        call(x, "1", "1", y, data)
    with refuses(repsim.InputError, "labels must be classes from 0 and below 4", "3 to 22"):
        call(x, "1", y, "1", data, lambda batch: torch.arange(20) + 3)
    with refuses(repsim.InputError, "must describe the same samples", "(20, 1, 4)"):
        call(x, "1", y, "1", data, lambda batch: torch.zeros(3, dtype=torch.long))
    with refuses(repsim.InputError, "logits of at least two classes", "pad"):
        call(x, "1", mlp(classes=1), "1", data)
    with refuses(repsim.InputError, "output of model_y must have logits", "'hidden'"):
        call(x, "1", nn.Sequential(y, Named()), "0.1", data)
    fixed = call(x, "1", nn.Sequential(y, Named()), "0.1", data, logits=lambda out: out["hidden"])
    assert np.isfinite(fixed.kl.sel(stitch="fitted").item())
    with refuses(repsim.InputError, "both models must see the same samples"):
        call(x, "1", y, "1", data, prepare_y=lambda batch: batch[:-1])
    with refuses(repsim.CaptureError, "cannot be replaced", "select="):
        call(x, "1", y, "1", data, select_y=lambda output: output * 2)


class Named(nn.Module):
    def forward(self, x):
        return {"hidden": x}


@each("sorted_", [False, True])
def test_halves_without_a_common_class(sorted_):
    x, y = mlp(), mlp(1)
    labels = torch.arange(80) // 20 if sorted_ else torch.arange(80) % 4
    data = list(zip(vectors(), labels.chunk(4), strict=True))
    if sorted_:
        with pytest.warns(repsim.RepsimWarning, match="other classes than they are measured on"):
            repsim.stitch(x, "1", y, "1", data, controls=[], **quiet)
    else:
        repsim.stitch(x, "1", y, "1", data, controls=[], **quiet)
