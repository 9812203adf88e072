"""linear_probe against plain loops on cloned activations, on real models, and how it behaves."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import repsim
from analysis.plain import Counted, unchanged
from packages import timm, torchvision, transformers
from reference import ridge as reference
from repsim import InputError, NonFiniteError, linear_probe
from repsim.capture.tokens import Declared

quiet = {"progress": False}
RIDGES = (0.1, 10.0, 1000.0)
NAMED = ("cls", "mean", "mean_without_cls")


def classes_of_images(n, classes=3, size=32, seed=0):
    """Images whose classes differ by a faint pattern: neither trivial nor hopeless."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randn(classes, 3, size, size, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(n) % classes
    return 0.3 * patterns[labels] + torch.randn(n, 3, size, size, generator=generator), labels


def batched(inputs, labels, *cuts):
    sizes = np.diff([0, *cuts, len(labels)]).tolist()
    return list(zip(inputs.split(sizes), labels.split(sizes), strict=True))


def stream(n=30, *cuts, seed=0, **options):
    return batched(*classes_of_images(n, seed=seed, **options), *cuts)


def activations(model, batches, layer):
    """What a layer returned over all batches, cloned in a plain hook, float64."""
    model = copy.deepcopy(model).eval()
    module = dict(model.named_modules())[layer]
    seen = []

    def clone(_module, _args, output):
        output = output if isinstance(output, torch.Tensor) else next(iter(output.values()))
        seen.append(output.detach().clone().double())

    module.register_forward_hook(clone)
    with torch.no_grad():
        for images, _ in batches:
            model(images)
    return torch.cat(seen)


def expected(train, test, reduce, options=None):
    """accuracy, ridge and held-out accuracy by the plain loops."""
    (x, labels), (new, truth) = train, test
    return reference.probe(
        reduce(x).numpy(), labels.tolist(), reduce(new).numpy(), truth.tolist(),
        **{"ridges": RIDGES, "part": 0.2, "n_classes": 3, **(options or {})},
    )  # fmt: skip


def labels_of(batches):
    return torch.cat([labels for _, labels in batches])


def tiny_vit(**options):
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=16, depth=2, embed_dim=24, num_heads=2,
        num_classes=3, **options,
    )  # fmt: skip


def gap_vit(**options):
    return tiny_vit(class_token=False, global_pool="avg", **options)


def hf_vit():
    config = transformers.ViTConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        image_size=32, patch_size=16, num_labels=3,
    )  # fmt: skip
    return transformers.ViTForImageClassification(config)


def hf_registers():
    config = transformers.Dinov2WithRegistersConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=16,
        num_register_tokens=3,
    )  # fmt: skip
    return transformers.Dinov2WithRegistersModel(config)


def tv_vit():
    return torchvision.models.VisionTransformer(
        image_size=32, patch_size=16, num_layers=2, num_heads=2, hidden_dim=24, mlp_dim=48,
        num_classes=3,
    )  # fmt: skip


TOKENS = {
    "cls": lambda x: x[:, 0],
    "mean": lambda x: x.mean(1),
    "mean_without_cls": lambda x: x[:, 1:].mean(1),
    "2": lambda x: x[:, 2],
}


@pytest.mark.parametrize(
    ("make", "layer"),
    [
        (tiny_vit, "blocks.1"),
        (hf_vit, "vit.layernorm"),
        (tv_vit, "encoder.layers.encoder_layer_0"),
    ],
)
def test_tokens_of_a_transformer_equal_the_loops(make, layer):
    model = make()
    train, test = stream(30, 7, 20), stream(24, 10, seed=1)
    with unchanged(model):
        result = linear_probe(
            model, train, test, layers=[layer], tokens=[*NAMED, 2], ridges=RIDGES, **quiet
        )
    assert result.token.values.tolist() == [*NAMED, "2"]
    x, new = activations(model, train, layer), activations(model, test, layer)
    for token, reduce in TOKENS.items():
        want = expected((x, labels_of(train)), (new, labels_of(test)), reduce)
        got = result.sel(layer=layer, token=token)
        assert got.accuracy.item() == pytest.approx(want[0]), token
        assert got.ridge.item() == want[1], token
        assert got.holdout_accuracy.item() == pytest.approx(want[2]), token
    assert len(np.unique(result.accuracy)) > 1


@pytest.mark.slow
@pytest.mark.parametrize("standardize", [True, False])
def test_maps_of_a_resnet_equal_the_loops(standardize):
    """64 channels, 24 samples to fit: the dual; 90: the primal."""
    model = torchvision.models.resnet18(num_classes=3)
    for n in (30, 120):
        train, test = stream(n, 10), stream(24, seed=1)
        result = linear_probe(
            model, train, test, layers=["conv1", "layer1", "fc"], tokens=NAMED, ridges=RIDGES,
            standardize=standardize, **quiet,
        )  # fmt: skip
        options = {"standardize": standardize}
        for layer in ("conv1", "layer1"):
            want = expected(
                (activations(model, train, layer), labels_of(train)),
                (activations(model, test, layer), labels_of(test)),
                lambda x: x.mean((2, 3)), options,
            )  # fmt: skip
            for token in ("mean", "mean_without_cls"):
                got = result.sel(layer=layer, token=token)
                assert (got.accuracy.item(), got.ridge.item()) == (pytest.approx(want[0]), want[1])
        # A vector is its own mean.
        want = expected(
            (activations(model, train, "fc"), labels_of(train)),
            (activations(model, test, "fc"), labels_of(test)),
            lambda x: x, options,
        )  # fmt: skip
        assert result.accuracy.sel(layer="fc", token="mean").item() == pytest.approx(want[0])
        assert np.isnan(result.accuracy.sel(layer="fc", token="mean_without_cls"))
        assert np.isnan(result.accuracy.sel(token="cls")).all()


def test_each_token_and_each_position():
    vit, resnet = tiny_vit(), torchvision.models.resnet18(num_classes=3)
    train, test = stream(30, 11), stream(24, seed=1)
    result = linear_probe(
        vit, train, test, layers=["patch_embed", "blocks.0", "norm"], tokens=["each", "cls"],
        ridges=RIDGES, **quiet,
    )  # fmt: skip
    assert result.token.values.tolist() == ["cls", "0", "1", "2", "3", "4"]
    # Before CLS is added there are four tokens and no CLS; afterwards CLS is the first token.
    before = result.accuracy.sel(layer="patch_embed").values
    assert np.isnan(before).tolist() == [True, False, False, False, False, True]
    for layer in ("blocks.0", "norm"):
        own = result.sel(layer=layer)
        assert own.accuracy.sel(token="cls").item() == own.accuracy.sel(token="0").item()
        assert own.ridge.sel(token="cls").item() == own.ridge.sel(token="0").item()
    x, new = activations(vit, train, "blocks.0"), activations(vit, test, "blocks.0")
    for token in range(5):
        want = expected((x, labels_of(train)), (new, labels_of(test)), lambda v: v[:, token])
        got = result.sel(layer="blocks.0", token=str(token))
        assert (got.accuracy.item(), got.ridge.item()) == (pytest.approx(want[0]), want[1])

    result = linear_probe(
        resnet, train, test, layers=["layer3"], tokens="each", ridges=RIDGES, **quiet
    )
    assert result.token.values.tolist() == ["0", "1", "2", "3"]
    x, new = activations(resnet, train, "layer3"), activations(resnet, test, "layer3")
    for token in range(4):
        row, column = divmod(token, 2)
        want = expected(
            (x, labels_of(train)), (new, labels_of(test)), lambda v: v[:, :, row, column]
        )
        assert result.accuracy.sel(token=str(token)).item() == pytest.approx(want[0])


class TestCLS:
    """Where there is no CLS token, no other one stands in for it."""

    def test_a_transformer_without(self):
        result = linear_probe(
            gap_vit(), stream(), stream(seed=1), layers=["blocks.1"], ridges=RIDGES, **quiet
        )
        values = result.accuracy.sel(layer="blocks.1")
        assert np.isnan(values.sel(token="cls"))
        assert values.sel(token="mean").item() == values.sel(token="mean_without_cls").item()

    @pytest.mark.parametrize(
        ("make", "count", "has_cls"),
        [
            (tiny_vit, 1, True),
            (gap_vit, 0, False),
            (lambda: gap_vit(reg_tokens=3), 3, False),
            (lambda: tiny_vit(reg_tokens=3), 4, True),
            (hf_vit, 1, True),
            (hf_registers, 4, True),
            (tv_vit, 1, True),
            (lambda: torchvision.models.resnet18(), 0, False),
            (lambda: nn.Linear(2, 2), 0, False),
        ],
    )
    def test_prefixes(self, make, count, has_cls):
        model = make()
        for each in (model, nn.Sequential(model)):
            declared = Declared.by(each)
            assert (declared.named or 0, declared.has_cls) == (count, has_cls)

    def test_registers_are_no_cls_and_no_patches(self):
        model, train, test = gap_vit(reg_tokens=3), stream(30, 10), stream(24, seed=1)
        result = linear_probe(model, train, test, layers=["blocks.1"], ridges=RIDGES, **quiet)
        assert np.isnan(result.accuracy.sel(token="cls")).all()
        x, new = activations(model, train, "blocks.1"), activations(model, test, "blocks.1")
        assert x.shape[1] == 7
        want = expected((x, labels_of(train)), (new, labels_of(test)), lambda v: v[:, 3:].mean(1))
        got = result.sel(layer="blocks.1", token="mean_without_cls")
        assert (got.accuracy.item(), got.ridge.item()) == (pytest.approx(want[0]), want[1])

    def test_registers_of_transformers(self):
        model, train, test = hf_registers(), stream(30, 10), stream(24, seed=1)
        result = linear_probe(model, train, test, layers=["layernorm"], ridges=RIDGES, **quiet)
        x, new = activations(model, train, "layernorm"), activations(model, test, "layernorm")
        assert x.shape[1] == 8
        for token, reduce in {
            "cls": lambda v: v[:, 0],
            "mean_without_cls": lambda v: v[:, 4:].mean(1),
        }.items():
            want = expected((x, labels_of(train)), (new, labels_of(test)), reduce)
            assert result.accuracy.sel(token=token).item() == pytest.approx(want[0])

    def test_blocks_before_it_is_added(self):
        """CaiT: num_prefix_tokens is 1, and most of its blocks see patches only."""
        model = timm.create_model(
            "cait_xxs24_224", img_size=32, patch_size=8, depth=2, embed_dim=24, num_heads=2,
            num_classes=3,
        )  # fmt: skip
        layers = ["blocks.1", "norm"]
        train, test = stream(30, 10), stream(24, seed=1)
        result = linear_probe(model, train, test, layers=layers, ridges=RIDGES, **quiet)
        assert np.isnan(result.accuracy.sel(layer="blocks.1", token="cls"))
        own = result.accuracy.sel(layer="blocks.1")
        assert own.sel(token="mean").item() == own.sel(token="mean_without_cls").item()
        x, new = activations(model, train, "norm"), activations(model, test, "norm")
        assert x.shape[1] == 17
        for token in ("cls", "mean_without_cls"):
            want = expected((x, labels_of(train)), (new, labels_of(test)), TOKENS[token])
            assert result.accuracy.sel(layer="norm", token=token).item() == pytest.approx(want[0])

    def test_unknown_tokens_are_reported(self):
        class Odd(nn.Module):
            """CLS, four patches, and two more tokens somewhere."""

            def __init__(self):
                super().__init__()
                self.vit = tiny_vit()
                self.tap = nn.Identity()

            def forward(self, x):
                x = self.vit.forward_features(x)
                return self.tap(torch.cat([x, x[:, :2]], 1))

        with pytest.warns(repsim.RepsimWarning, match=r"tap \(30, 7, 24\)"):
            result = linear_probe(
                Odd(), stream(), stream(seed=1), layers=["tap"], ridges=RIDGES, **quiet
            )
        assert np.isnan(result.accuracy.sel(layer="tap", token=["cls", "mean_without_cls"])).all()
        assert not np.isnan(result.accuracy.sel(layer="tap", token="mean"))
        model = Odd()
        told = linear_probe(
            model, stream(), stream(seed=1), layers=["tap"], prefix=1, ridges=RIDGES, **quiet
        )
        x, new = (activations(model, stream(seed=s), "tap") for s in (0, 1))
        want = expected(
            (x, labels_of(stream())), (new, labels_of(stream(seed=1))), TOKENS["mean_without_cls"]
        )
        assert told.accuracy.sel(token="mean_without_cls").item() == pytest.approx(want[0])
        assert not np.isnan(told.accuracy).any()

    def test_a_declared_prefix_goes_before_the_models(self):
        result = linear_probe(
            tiny_vit(), stream(), stream(seed=1), layers=["blocks.1"], prefix=0, ridges=RIDGES,
            **quiet,
        )  # fmt: skip
        own = result.accuracy.sel(layer="blocks.1")
        assert np.isnan(own.sel(token="cls"))
        assert own.sel(token="mean").item() == own.sel(token="mean_without_cls").item()

    def test_no_hook_stays(self):
        model = tiny_vit()
        linear_probe(model, stream(), stream(seed=1), layers=["blocks.1"], ridges=RIDGES, **quiet)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())

    def test_text_has_the_prefix_that_is_declared(self):
        config = transformers.BertConfig(
            vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=32,
        )  # fmt: skip
        bert = transformers.BertModel(config)
        ids = torch.randint(0, 20, (30, 6))
        data = [{"input_ids": ids, "labels": torch.arange(30) % 2}]
        options = {"layers": ["encoder.layer.0"], "ridges": RIDGES, **quiet}
        with pytest.warns(repsim.RepsimWarning, match=r"encoder\.layer\.0 \(30, 6, 16\)"):
            unknown = linear_probe(bert, data, data, **options).accuracy
        assert np.isnan(unknown.sel(token=["cls", "mean_without_cls"])).all()
        assert not np.isnan(unknown.sel(token="mean")).any()
        told = linear_probe(bert, data, data, prefix=1, **options)
        assert not np.isnan(told.accuracy).any()


class TestMaps:
    def test_channels_last_are_seen_as_such(self):
        swin = timm.create_model(
            "swin_tiny_patch4_window7_224", img_size=32, patch_size=4, window_size=4, embed_dim=12,
            depths=(1, 1), num_heads=(2, 2), num_classes=3,
        )  # fmt: skip
        train, test = stream(30, 10), stream(24, seed=1)
        layers = ["patch_embed.proj", "layers.0", "layers.1"]
        result = linear_probe(
            swin, train, test, layers=layers, tokens="mean", ridges=RIDGES, **quiet
        )
        for layer, axes in (
            ("patch_embed.proj", (2, 3)),
            ("layers.0", (1, 2)),
            ("layers.1", (1, 2)),
        ):
            x, new = activations(swin, train, layer), activations(swin, test, layer)
            assert x.shape[axes[0]] == x.shape[axes[1]]
            want = expected(
                (x, labels_of(train)), (new, labels_of(test)), lambda v, a=axes: v.mean(a)
            )
            got = result.sel(layer=layer, token="mean")
            assert (got.accuracy.item(), got.ridge.item()) == (pytest.approx(want[0]), want[1])

    def test_unknown_axes_are_an_error(self):
        vit = tiny_vit()
        with pytest.raises(repsim.CaptureError, match=r"'blocks.0.attn.q_norm'.*\n.*positions"):
            linear_probe(vit, stream(), stream(), layers=["blocks.0.attn.q_norm"], **quiet)
        result = linear_probe(
            vit, stream(), stream(seed=1), layers=["blocks.0.attn.q_norm"], tokens="mean",
            select=lambda x: x.transpose(1, 2).flatten(2), ridges=RIDGES, **quiet,
        )  # fmt: skip
        assert not np.isnan(result.accuracy).any()

    def test_other_shapes_are_an_error(self):
        net = nn.Sequential(nn.Unflatten(1, (3, 1, 1, 1, 2)), nn.Flatten())
        data = batched(torch.randn(20, 6), torch.arange(20) % 2)
        with pytest.raises(repsim.CaptureError, match=r"layer '0' returned \(20, 3, 1, 1, 1, 2\)"):
            linear_probe(net, data, data, layers=["0"], **quiet)


class TestLearning:
    def net(self):
        return nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 5))

    def vectors(self, n, separation, seed):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(n) % 4
        means = separation * torch.eye(6)[:4]
        return means[labels] + torch.randn(n, 6, generator=generator), labels

    def test_separable_classes_are_separated(self):
        train, test = self.vectors(80, 30.0, 0), self.vectors(100, 30.0, 1)
        result = linear_probe(
            nn.Sequential(nn.Identity()), [train], [test], layers="0", tokens="mean", **quiet
        )
        assert result.accuracy.item() == 1.0
        assert result.holdout_accuracy.item() == 1.0
        assert result.standard_error.item() == 0.0

    def test_random_labels_are_at_chance(self):
        x, labels = self.vectors(4000, 3.0, 0)
        labels = labels[torch.randperm(4000, generator=torch.Generator().manual_seed(1))]
        result = linear_probe(
            self.net(), batched(x[:2000], labels[:2000]), batched(x[2000:], labels[2000:]),
            layers="*", tokens="mean", **quiet,
        )  # fmt: skip
        # Four standard errors of 2000 draws at 1/4.
        np.testing.assert_allclose(result.accuracy, 0.25, atol=4 * np.sqrt(0.25 * 0.75 / 2000))
        np.testing.assert_allclose(
            result.standard_error,
            np.sqrt(result.accuracy * (1 - result.accuracy) / 2000),
        )

    def test_more_noise_wants_more_ridge(self):
        def chosen(separation):
            train, test = self.vectors(60, separation, 0), self.vectors(60, separation, 1)
            return linear_probe(
                nn.Sequential(nn.Identity()), [train], [test], layers="0", tokens="mean", **quiet
            ).ridge.item()

        assert chosen(0.5) > chosen(30.0)


class TestStreams:
    def setup_method(self):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 5))
        self.inputs, self.labels = torch.randn(90, 6), torch.arange(90) % 3
        self.inputs[:, 0] += self.labels

    def probe(self, train, test=None, **options):
        test = [(self.inputs[60:], self.labels[60:])] if test is None else test
        options = {"layers": "*", "tokens": "mean", "ridges": RIDGES, **quiet, **options}
        return linear_probe(self.model, train, test, **options)

    def train(self, *cuts):
        return batched(self.inputs[:60], self.labels[:60], *cuts)

    def same(self, a, b):
        for name in ("accuracy", "ridge", "holdout_accuracy"):
            np.testing.assert_allclose(a[name], b[name], rtol=1e-12)

    @pytest.mark.parametrize("cuts", [(1,), (7, 30, 58), tuple(range(1, 60))])
    def test_batches_do_not_matter(self, cuts):
        test = batched(self.inputs[60:], self.labels[60:], 3, 22)
        self.same(self.probe(self.train(*cuts), test), self.probe(self.train()))

    def test_mappings_and_functions(self):
        want = self.probe(self.train(20))
        for key in ("labels", "label"):
            data = [{"input": x, key: y} for x, y in self.train(20)]
            test = [{"input": x, key: y} for x, y in batched(self.inputs[60:], self.labels[60:])]
            self.same(self.probe(data, test), want)
        data = [(x, {"class": y.tolist()}) for x, y in self.train(20)]
        test = [(x, {"class": y.tolist()}) for x, y in batched(self.inputs[60:], self.labels[60:])]
        self.same(self.probe(data, test, labels=lambda batch: batch[1]["class"]), want)

    def test_the_model_does_not_get_the_labels(self):
        """Given labels, a Hugging Face model computes a loss and a bare encoder raises."""
        seen = []

        def forward(model, batch):
            seen.append(set(batch))
            return model(batch["input"])

        data = [{"input": x, "labels": y} for x, y in self.train()]
        test = [{"input": self.inputs[60:], "labels": self.labels[60:]}]
        self.probe(data, test, forward=forward)
        assert seen == [{"input"}] * (2 + 2)  # on 2 and on 3 samples, and two batches
        assert set(data[0]) == {"input", "labels"}

    def test_prepare_and_forward(self):
        want = self.probe(self.train(20))
        shifted = [(x - 1, y) for x, y in self.train(20)]
        test = [(self.inputs[60:] - 1, self.labels[60:])]
        self.same(self.probe(shifted, test, prepare=lambda b: (b[0] + 1, b[1])), want)
        self.same(self.probe(shifted, test, forward=lambda m, b: m(b[0] + 1)), want)

    def test_each_stream_is_iterated_once(self):
        counted = Counted(self.model)
        result = linear_probe(
            counted, iter(self.train(10, 20)), iter(self.train(30)), layers="inner.*",
            tokens="mean", ridges=RIDGES, **quiet,
        )  # fmt: skip
        assert counted.forwards == 5
        assert result.attrs["n_train"] == result.attrs["n_test"] == 60

    def test_shots_are_the_first_of_each_class(self):
        order = torch.argsort(self.labels[:60], stable=True)
        first = torch.cat([order[i : i + 10] for i in (0, 20, 40)])
        want = self.probe([(self.inputs[first], self.labels[first])])
        got = self.probe(self.train(7, 33), shots=10)
        self.same(got, want)
        assert (got.attrs["n_train"], got.attrs["n_holdout"], got.attrs["shots"]) == (30, 6, 10)
        assert self.probe(self.train()).attrs["shots"] == "all"

    @pytest.mark.parametrize("n_classes", [None, 3])
    def test_train_is_left_when_the_shots_are_there(self, n_classes):
        counted = Counted(self.model)
        drawn = []

        def loader():
            for batch in self.train(*range(3, 60, 3)):
                drawn.append(batch)
                yield batch

        linear_probe(
            counted, loader(), self.train(), layers="inner.*", tokens="mean", shots=5,
            n_classes=n_classes, ridges=RIDGES, **quiet,
        )  # fmt: skip
        # Forwards of batches from which nothing is taken are saved in either case.
        assert counted.forwards == 5 + 1
        assert len(drawn) == (20 if n_classes is None else 5)

    def test_one_ridge_needs_no_holdout(self):
        result = self.probe(self.train(20), ridges=[3.0], holdout=0)
        assert np.isnan(result.holdout_accuracy).all()
        assert (result.ridge == 3.0).all()
        assert result.attrs["n_holdout"] == 0
        np.testing.assert_array_equal(
            result.accuracy, self.probe(self.train(20), ridges=[3.0]).accuracy
        )

    def test_holdout(self):
        result = self.probe(self.train(20), holdout=0.5)
        assert result.attrs["n_holdout"] == 30
        x = activations(self.model, self.train(), "0")
        new = activations(self.model, [(self.inputs[60:], None)], "0")
        want = expected((x, self.labels[:60]), (new, self.labels[60:]), lambda v: v, {"part": 0.5})
        got = result.sel(layer="0", token="mean")
        assert got.holdout_accuracy.item() == pytest.approx(want[2])
        assert got.ridge.item() == want[1]

    def test_the_held_out_samples_are_trained_on_in_the_end(self):
        """The test accuracy is that of the fit on all of train."""
        test = [(torch.randn(500, 6), torch.randint(0, 3, (500,)))]
        x = activations(self.model, self.train(), "0").numpy()
        new, labels = activations(self.model, test, "0").numpy(), self.labels[:60].numpy()
        held = reference.held_out(labels.tolist(), 0.2)
        some = reference.fit(x[~held], labels[~held], 3, 0.1)
        everything = reference.fit(x, labels, 3, 0.1)
        truth = test[0][1].tolist()
        got = self.probe(self.train(), test, ridges=[0.1]).accuracy.sel(layer="0").item()
        assert got == pytest.approx(reference.accuracy(new, truth, *everything))
        assert got != pytest.approx(reference.accuracy(new, truth, *some))

    def test_float64_and_bfloat16_models(self):
        want = self.probe(self.train(20))
        self.model.double()
        double = [(x.double(), y) for x, y in self.train(20)]
        test = [(self.inputs[60:].double(), self.labels[60:])]
        self.same(self.probe(double, test), want)
        self.model.bfloat16()
        half = [(x.bfloat16(), y) for x, y in self.train(20)]
        test = [(self.inputs[60:].bfloat16(), self.labels[60:])]
        got = self.probe(half, test)
        assert np.abs(got.accuracy - want.accuracy).max() < 0.2
        assert not np.isnan(got.accuracy).any()

    def test_the_model_comes_back(self):
        self.model.train()
        self.model[1].eval()
        self.model[0].weight.requires_grad_(False)
        with unchanged(self.model):
            self.probe(self.train(20))
        wrong = [(torch.randn(4, 5), torch.zeros(4, dtype=torch.long))]
        with unchanged(self.model), pytest.raises(RuntimeError):
            self.probe(self.train(20), wrong)

    def test_results_and_provenance(self, tmp_path):
        xarray = pytest.importorskip("xarray")
        result = self.probe(self.train(20), name="mlp", tokens=NAMED)
        assert result.attrs["model"] == "mlp"
        assert (result.attrs["n_train"], result.attrs["n_test"]) == (60, 30)
        assert (result.attrs["n_classes"], result.attrs["n_holdout"]) == (3, 12)
        assert result.attrs["chance"] == pytest.approx(1 / 3)
        assert result.accuracy.attrs["units"] == "1"
        assert result.layer.values.tolist() == ["0", "1", "2"]
        result.to_netcdf(tmp_path / "probe.nc", engine="scipy")
        with xarray.open_dataset(tmp_path / "probe.nc", engine="scipy") as back:
            np.testing.assert_array_equal(back.accuracy, result.accuracy)
            assert back.token.values.tolist() == list(NAMED)

    def test_chance_is_the_most_frequent_class_of_test(self):
        rows = torch.cat([torch.arange(60, 90), torch.arange(60, 90, 3)])
        result = self.probe(self.train(), [(self.inputs[rows], self.labels[rows])])
        assert result.attrs["chance"] == pytest.approx(20 / 40)

    def test_progress_goes_to_standard_error(self, capsys):
        self.probe(self.train(), progress=True)
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("linear_probe") >= 2


class TestErrors:
    def setup_method(self):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(6, 12), nn.Tanh())
        self.x, self.y = torch.randn(30, 6), torch.arange(30) % 3

    def probe(self, train=None, test=None, **options):
        good = [(self.x, self.y)]
        options = {"layers": "*", "tokens": "mean", **quiet, **options}
        train, test = good if train is None else train, good if test is None else test
        return linear_probe(self.model, train, test, **options)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"ridges": []}, "ridges must be"),
            ({"ridges": [0.0, 1.0]}, r"ridges\[0\] must be"),
            ({"ridges": [float("nan")]}, r"ridges\[0\] must be"),
            ({"holdout": 0.0}, "holdout must be"),
            ({"holdout": 1.0}, "holdout must be"),
            ({"holdout": -0.1}, "holdout must be"),
            ({"shots": 0}, "shots must be"),
            ({"n_classes": 1}, "n_classes must be"),
            ({"n_classes": 2.0}, "n_classes must be"),
            ({"prefix": -1}, "prefix must be"),
            ({"tokens": "clss"}, "tokens must be"),
            ({"tokens": []}, "tokens must be"),
            ({"tokens": [True]}, "tokens must be"),
            ({"tokens": [-1]}, "tokens must be"),
            ({"tokens": ["cls", 3]}, "no layer has any of tokens"),
            ({"n_classes": 2}, r"classes from 0 and below 2.\n  train: 0 to 2"),
            ({"n_classes": 5}, r"to fit of 2 classes: 3, 4"),
            ({"shots": 11}, "fewer than shots=11 samples of 3 classes"),
            ({"layers": "lin"}, "no layer is called 'lin'"),
            ({"train": [torch.randn(8, 6)]}, "must bring its labels"),
            ({"train": [{"input": torch.randn(8, 6)}]}, "must bring its labels"),
            ({"train": []}, "no batch"),
            ({"test": []}, "no batch"),
            ({"train": (torch.randn(8, 6), torch.zeros(8))}, "labels"),
        ],
    )
    def test_options(self, options, message):
        with pytest.raises(repsim.RepsimError, match=message):
            self.probe(**options)

    def test_not_a_model(self):
        with pytest.raises(InputError, match=r"linear_probe: model must be"):
            linear_probe("resnet", [], [], layers="*")

    @pytest.mark.parametrize(
        "labels",
        [torch.randn(30), torch.eye(3)[torch.arange(30) % 3], torch.zeros(30, 1, dtype=torch.long)],
    )
    def test_labels_that_are_no_classes(self, labels):
        with pytest.raises(InputError, match="one class number for each sample"):
            self.probe([(self.x, labels)])

    def test_labels_that_are_names(self):
        with pytest.raises(InputError, match=r"Number all names in one order: labels=lambda"):
            self.probe([(self.x, ["cat", "dog", "owl"] * 10)])

    def test_negative_labels(self):
        with pytest.raises(InputError, match=r"classes from 0.\n  train: -1 to 1"):
            self.probe([(self.x, self.y - 1)])

    def test_labels_of_test_that_train_lacks(self):
        with pytest.raises(InputError, match=r"below 3.\n  test: 0 to 3"):
            self.probe(test=[(self.x, torch.arange(30) % 4)])

    def test_one_class_only(self):
        with pytest.raises(InputError, match="at least two classes"):
            self.probe([(self.x, torch.zeros(30, dtype=torch.long))])

    def test_labels_that_start_at_one(self):
        with pytest.raises(InputError, match="to fit of class 0"):
            self.probe([(self.x, self.y + 1)])

    def test_a_class_that_is_not_held_out(self):
        labels = torch.cat([torch.arange(27) % 2, torch.full((3,), 2)])
        with pytest.raises(InputError, match=r"to hold out of class 2.\n.*train: \[3\]"):
            self.probe([(self.x, labels)])

    def test_labels_of_other_samples(self):
        with pytest.raises(
            InputError, match=r"same samples.\n  layer '0': 30 samples    labels: 29"
        ):
            self.probe([(self.x, self.y[1:])])

    @pytest.mark.parametrize("source", ["train", "test"])
    def test_not_finite(self, source):
        bad = self.x.clone()
        bad[3, 2] = float("nan")
        data = [(self.x, self.y), (bad, self.y)]
        with pytest.raises(
            NonFiniteError, match=rf"layer '0' must be finite.\n  batch 1 of {source}"
        ):
            self.probe(**{source: data})

    def test_tokens_that_vary(self):
        def data(*sizes):
            return [(torch.randn(30, n, 6), self.y) for n in sizes]

        with pytest.raises(
            InputError, match=r"same layers and tokens.\n  layer '0' in batch 1 of tr"
        ):
            self.probe(data(4, 5), data(4), tokens="each")
        with pytest.raises(
            InputError, match=r"same layers and tokens.\n  layer '0' in batch 0 of te"
        ):
            self.probe(data(4, 4), data(5), tokens="each")
        assert self.probe(data(4, 5), data(6)).attrs["n_train"] == 60

    def test_layers_that_vary(self):
        class Sometimes(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b, self.calls = nn.Linear(6, 4), nn.Linear(4, 4), 0

            def forward(self, x):
                self.calls += 1
                return self.a(x) if self.calls > 1 else self.b(self.a(x))

        self.model = Sometimes()
        with pytest.raises(InputError, match=r"did not run in batch 0 of test: \['b'\]"):
            self.probe()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu():
    model, train, test = tiny_vit().double(), stream(60, 20), stream(24, seed=1)
    train, test = ([(x.double(), y) for x, y in data] for data in (train, test))
    options = {"layers": ["blocks.*"], "tokens": [*NAMED, "each"], "ridges": RIDGES, **quiet}
    want = linear_probe(model, train, test, **options)
    got = linear_probe(copy.deepcopy(model).cuda(), train, test, **options)
    np.testing.assert_allclose(got.accuracy, want.accuracy, atol=1 / 24)
    assert got.attrs["n_train"] == 60


@pytest.mark.slow
def test_a_trained_vit_beats_an_untrained_one():
    """The point of a probe: what training has put where."""
    sklearn = pytest.importorskip("sklearn.datasets")
    digits = sklearn.load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1
    labels = torch.tensor(digits.target)
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=8, patch_size=2, in_chans=1, embed_dim=32, depth=3,
        num_heads=2, num_classes=10,
    )  # fmt: skip

    def probe():
        return linear_probe(
            model, batched(images[:800], labels[:800], 400), [(images[1300:], labels[1300:])],
            layers="blocks.?", shots=10, **quiet,
        ).accuracy  # fmt: skip

    before = probe()
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3)
    for _ in range(20):
        for rows in torch.randperm(1300).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimiser.step()
    after = probe()
    assert (
        after.sel(layer="blocks.2", token="cls") > before.sel(layer="blocks.2", token="cls") + 0.2
    )
    assert after.sel(layer="blocks.2", token="cls") > 0.8
