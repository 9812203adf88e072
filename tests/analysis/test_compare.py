"""compare against a float64 reference that clones inside plain hooks, and how it behaves."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import repsim
from analysis.plain import without_versions
from packages import timm, torchvision, transformers
from reference.minibatch import minibatch_cka


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def images(batches=3, n=8, size=32):
    return [torch.randn(n, 3, size, size) + 0.5 for _ in range(batches)]


def activations(model, batches, call=lambda model, batch: model(batch)):
    """What every module computed, cloned in plain hooks, float64, by "name" or "name:k"."""
    model = copy.deepcopy(model).eval()
    seen: dict[str, list[list[np.ndarray]]] = {}

    def hook(name):
        def clone(module, args, output):
            if args and output is args[0] and not getattr(module, "inplace", False):
                return
            if not isinstance(output, torch.Tensor):
                output = next(iter(output.values() if isinstance(output, dict) else output))
            seen.setdefault(name, []).append(output.detach().clone().double().flatten(1).numpy())

        return clone

    for name, module in model.named_modules():
        if name:
            module.register_forward_hook(hook(name))
    stacked: dict[str, list[np.ndarray]] = {}
    with torch.no_grad():
        for batch in batches:
            seen.clear()
            call(model, batch)
            for name, outputs in seen.items():
                for k, output in enumerate(outputs):
                    label = name if len(outputs) == 1 else f"{name}:{k}"
                    stacked.setdefault(label, []).append(output)
    return stacked


def check(result, xs, ys, layers_x, layers_y, atol=1e-6):
    for a in layers_x:
        for b in layers_y:
            expected = minibatch_cka(xs[a], ys[b])
            got = result.cka.sel(layer_x=a, layer_y=b).item()
            assert got == pytest.approx(expected, abs=atol), (a, b)


def tiny_vit():
    return timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=3)


def test_resnet_with_a_vit_equals_the_reference_and_names_every_layer():
    resnet, vit = torchvision.models.resnet18(), tiny_vit()
    data = images()
    result = repsim.compare(resnet, vit, data=data, progress=False)
    xs, ys = activations(resnet, data), activations(vit, data)
    assert set(result.layer_x.values) == set(xs)
    assert set(result.layer_y.values) == set(ys)
    # In execution order: a container after what it contains, the stem first, the head last.
    names = result.layer_x.values.tolist()
    assert names[:4] == ["conv1", "bn1", "relu", "maxpool"]
    assert names[-2:] == ["avgpool", "fc"]
    assert names.index("layer1.0.relu:0") < names.index("layer1.0.conv2") < names.index("layer1.0")
    some_x = ["conv1", "bn1", "relu", "layer1.0.relu:0", "layer1.0.relu:1", "layer3.0.bn2", "fc"]
    some_y = ["patch_embed.proj", "blocks.0.attn.qkv", "blocks.1.mlp.act", "blocks.2", "head"]
    check(result, xs, ys, some_x, some_y)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["densenet121", "resnet18"])
def test_twins_score_one_on_the_diagonal_despite_in_place_relu(name):
    model = getattr(torchvision.models, name)()
    result = repsim.compare(model, copy.deepcopy(model), data=images(2), progress=False)
    np.testing.assert_allclose(np.diagonal(result.cka), 1, atol=1e-6)
    xs = activations(model, [images(1)[0]])
    assert set(xs) == set(result.layer_x.values)


def test_a_dict_batch_is_passed_whole():
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32,
    )  # fmt: skip
    bert = transformers.BertModel(config)
    mask = torch.ones(8, 6, dtype=torch.long)
    mask[:, 4:] = 0
    tokens = torch.randint(0, 50, (8, 6))
    batches = [{"input_ids": tokens, "attention_mask": mask}]
    layers = ["encoder.layer.0.output", "encoder.layer.1.attention.self", "pooler"]
    with pytest.warns(repsim.RepsimWarning, match="one batch|padding is compared"):
        masked = repsim.compare(bert, data=batches, layers=layers, progress=False)
    xs = activations(bert, batches, lambda model, batch: model(**batch))
    check(masked, xs, xs, layers, layers)
    with pytest.warns(repsim.RepsimWarning, match="one batch"):
        bare = repsim.compare(bert, data=[{"input_ids": tokens}], layers=layers, progress=False)
    assert abs(masked.cka - bare.cka).max() > 1e-4


def test_values_stay_with_their_labels():
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    other = copy.deepcopy(model)
    nn.init.normal_(other[2].weight, std=3.0)
    data = [torch.randn(16, 4) for _ in range(3)]
    result = repsim.compare(model, other, data=data, progress=False)
    own = [result.cka.sel(layer_x=name, layer_y=name).item() for name in "01234"]
    assert own[0] == pytest.approx(1, abs=1e-6)
    assert own[1] == pytest.approx(1, abs=1e-6)
    assert max(own[2:]) < 0.999


class CountingLoader:
    def __init__(self, samples, n=8, *, shuffle=True):
        self.samples, self.n, self.shuffle, self.iterations = samples, n, shuffle, 0

    def __len__(self):
        return -(-len(self.samples) // self.n)

    def __iter__(self):
        self.iterations += 1
        order = torch.randperm(len(self.samples)) if self.shuffle else range(len(self.samples))
        yield from self.samples[torch.as_tensor(list(order))].split(self.n)


def net():
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 4))


def test_one_iteration_serves_both_models_even_under_shuffling():
    model = net()
    loader = CountingLoader(torch.randn(64, 6))
    result = repsim.compare(model, copy.deepcopy(model), data=loader, progress=False)
    assert loader.iterations == 1
    np.testing.assert_allclose(np.diagonal(result.cka), 1, atol=1e-6)
    assert result.attrs["n_samples"] == 64


@pytest.mark.slow
def test_passes_converge_to_the_full_data_value():
    model, samples = net(), torch.randn(48, 6)
    with torch.no_grad():
        hidden = model[1](model[0](samples)).numpy(), model(samples).numpy()
    full = float(repsim.cka(*hidden, estimator="unbiased"))

    def error(passes, seed=0):
        torch.manual_seed(seed)  # compare leaves the random state as it was
        loader = CountingLoader(samples)
        result = repsim.compare(model, data=loader, passes=passes, progress=False)
        assert loader.iterations == passes
        assert result.attrs["passes"] == passes
        return abs(result.cka.sel(layer_x="1", layer_y="2").item() - full)

    assert error(60) < 0.02
    assert np.mean([error(1, seed) for seed in range(10)]) > 2 * error(60)


def test_passes_over_the_same_batches_are_reported():
    loader = CountingLoader(torch.randn(32, 6), shuffle=False)
    with pytest.warns(repsim.RepsimWarning, match="saw the same batches"):
        repsim.compare(net(), data=loader, passes=2, progress=False)


def test_every_batch_counts():
    first, last = torch.randn(48, 6), torch.randn(16, 6)
    model = net()
    a = repsim.compare(model, data=torch.cat([first, last]).split(16), progress=False)
    b = repsim.compare(model, data=torch.cat([first**3, last]).split(16), progress=False)
    assert abs(a.cka - b.cka).max() > 1e-3


def test_a_short_last_batch_is_reported_and_no_error():
    with pytest.warns(repsim.RepsimWarning, match="fewer than 4"):
        result = repsim.compare(net(), data=torch.randn(18, 6).split(8), progress=False)
    assert result.attrs["n_samples"] == 16
    assert result.attrs["n_skipped_samples"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": torch.randn(16, 6)}, "iterable of batches"),
        ({"data": None}, "iterable of batches"),
        ({"data": []}, "no batch"),
        ({"data": iter([torch.randn(16, 6)]), "passes": 2}, "only once"),
        ({"data": [torch.randn(16, 6)], "passes": 0}, "positive integer"),
        ({"data": [torch.randn(16, 6)], "kernel": "cubic"}, "unknown kernel"),
        ({"data": [3.0]}, "a batch must be"),
        ({"data": [torch.randn(16, 6)], "layers": "lin"}, "lin"),
        ({"data": [torch.randn(16, 6)], "model_y": "resnet"}, "torch.nn.Module"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(repsim.RepsimError, match=message):
        repsim.compare(net(), progress=False, **options)


def test_prepare_forward_and_layers_of_each_side():
    small, large = net(), nn.Sequential(nn.Linear(3, 5), nn.ReLU())
    data = [{"six": torch.randn(12, 6)} for _ in range(2)]
    result = repsim.compare(
        small, large, data=data, layers=["0", "2"], layers_y=nn.ReLU, progress=False,
        prepare_x=lambda batch: batch["six"], prepare_y=lambda batch: batch["six"][:, :3],
        forward=lambda model, batch: model(batch * 2),
    )  # fmt: skip
    assert result.layer_x.values.tolist() == ["0", "2"]
    assert result.layer_y.values.tolist() == ["1"]
    xs = activations(small, data, lambda model, batch: model(batch["six"] * 2))
    ys = activations(large, data, lambda model, batch: model(batch["six"][:, :3] * 2))
    check(result, xs, ys, ["0", "2"], ["1"])


def test_one_model_with_two_lists_of_layers_runs_once():
    model = net()
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    data = [torch.randn(12, 6) for _ in range(3)]
    result = repsim.compare(model, data=data, layers="0", layers_y=["1", "2"], progress=False)
    assert len(calls) == 2 + 3  # on 2 and on 3 samples, and on each batch
    whole = repsim.compare(model, model, data=data, progress=False)
    assert len(calls) == 2 * (2 + 3)
    np.testing.assert_allclose(result.cka, whole.cka[:1, 1:], atol=1e-12)


def test_models_that_share_submodules_do_not_record_each_other():
    body = nn.Linear(6, 5)
    x, y = nn.Sequential(body, nn.ReLU()), nn.Sequential(nn.Tanh(), body)
    data = [torch.randn(12, 6) for _ in range(2)]
    result = repsim.compare(x, y, data=data, progress=False)
    assert result.layer_x.values.tolist() == ["0", "1"]
    check(result, activations(x, data), activations(y, data), ["0", "1"], ["0", "1"])


def test_layers_that_share_a_tensor_share_a_gram_and_the_values_are_the_same(monkeypatch):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.bn = nn.BatchNorm2d(4)
            self.relu = nn.ReLU(inplace=True)
            self.drop = nn.Dropout(0.5)
            self.flat = nn.Flatten()
            self.same = nn.Identity()
            self.fc = nn.Linear(144, 3)

        def forward(self, x):
            x = self.drop(self.relu(self.bn(self.conv(x))))
            return self.fc(self.same(self.flat(x)))

    model, data = Net(), images(2, size=8)
    model.bn.bias.data.fill_(-0.3)
    made = []
    gram = repsim.kernels.Linear.gram
    monkeypatch.setattr(
        repsim.kernels.Linear, "gram", lambda self, x: made.append(x.shape[1]) or gram(self, x)
    )
    shared = repsim.compare(model, data=data, all_modules=True, progress=False)
    assert made == 2 * [144, 144, 144, 3]  # conv, bn, relu and fc
    made.clear()
    apart = repsim.compare(
        model, data=data, forward=without_versions, all_modules=True, progress=False
    )
    assert len(made) == 2 * 7
    np.testing.assert_allclose(shared.cka, apart.cka, atol=1e-12)
    assert shared.cka.sel(layer_x="bn", layer_y="relu").item() < 0.999
    xs = activations(model, data)
    check(shared, xs, xs, list(xs), list(xs))
    computed = repsim.compare(model, data=data, progress=False)
    assert set(computed.layer_x.values) == set(xs) == {"conv", "bn", "relu", "flat", "fc"}


@pytest.mark.parametrize("transform", ["cls", "mean", lambda x: x[:, 1:].mean(1)])
def test_transforms(transform):
    vit, data = tiny_vit(), images(2)
    layers = ["blocks.0", "blocks.2"]
    result = repsim.compare(vit, data=data, layers=layers, transform=transform, progress=False)
    xs = {
        name: [value.reshape(8, -1, 192) for value in values]
        for name, values in activations(vit, data).items()
        if name in layers
    }
    reduce = {"cls": lambda v: v[:, 0], "mean": lambda v: v.mean(1)}.get(
        transform, lambda v: v[:, 1:].mean(1)
    )
    xs = {name: [reduce(v) for v in values] for name, values in xs.items()}
    check(result, xs, xs, layers, layers)


class Poisoned(nn.Module):
    def __init__(self, at):
        super().__init__()
        self.body, self.head, self.at, self.calls = nn.Linear(6, 4), nn.Tanh(), at, 0

    def forward(self, x):
        self.calls += 1
        return self.head(self.body(x) * (float("nan") if self.calls == self.at else 1.0))


def test_nan_names_layer_and_batch_and_keeps_earlier_results():
    data = [torch.randn(12, 6) for _ in range(5)]
    model = Poisoned(at=4)
    with pytest.raises(repsim.NonFiniteError, match=r"batch 3 .*'head'") as caught:
        repsim.compare(model, data=data, progress=False)
    assert "'body'" not in str(caught.value)
    model.calls = 100
    expected = repsim.compare(model, data=data[:3], progress=False)
    np.testing.assert_array_equal(caught.value.partial.cka, expected.cka)
    assert caught.value.partial.attrs["n_batches"] == 3


def state_of(model):
    return [
        (name, m.training, len(m._forward_hooks), len(m._forward_pre_hooks))
        for name, m in model.named_modules()
    ]


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_and_the_random_state_come_back_as_they_were(fails):
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(), Poisoned(9))
    model[3].body = nn.Linear(8, 4)
    model.train()
    model[1].eval()  # frozen
    before, rng = state_of(model), torch.get_rng_state()
    statistics = model[1].running_mean.clone()
    data = [torch.randn(12, 6) for _ in range(2)]
    rng = torch.get_rng_state()
    if fails:
        with pytest.raises(RuntimeError):
            repsim.compare(model, data=[*data, torch.randn(12, 5)], progress=False)
        rng = torch.get_rng_state()
    else:
        repsim.compare(model, data=data, progress=False)
    assert state_of(model) == before
    assert torch.equal(torch.get_rng_state(), rng)
    assert torch.equal(model[1].running_mean, statistics)


def test_progress_goes_to_standard_error_and_can_be_off(capsys):
    data = [torch.randn(8, 6) for _ in range(2)]
    repsim.compare(net(), data=data, progress=False)
    assert capsys.readouterr() == ("", "")
    repsim.compare(net(), data=data)
    out, err = capsys.readouterr()
    assert out == ""
    assert "2/2" in err
    assert "batch/s" in err or "s/batch" in err


def test_half_precision_models_and_rbf():
    model, data = net(), [torch.randn(32, 6) for _ in range(2)]
    exact = repsim.compare(model, data=data, kernel=repsim.kernels.RBF(0.8), progress=False)
    half = repsim.compare(
        copy.deepcopy(model).bfloat16(), data=[d.bfloat16() for d in data],
        kernel=repsim.kernels.RBF(0.8), progress=False,
    )  # fmt: skip
    assert abs(exact.cka - half.cka).max() < 0.02
    assert exact.attrs["kernel"].startswith("RBF(fraction=0.8")


def test_wrappers_are_looked_through():
    model, data = net(), [torch.randn(12, 6) for _ in range(2)]
    plain = repsim.compare(model, data=data, progress=False)
    for wrapped in (nn.DataParallel(model), torch.compile(model, backend="eager")):
        result = repsim.compare(wrapped, data=data, progress=False)
        assert result.layer_x.values.tolist() == plain.layer_x.values.tolist()
        np.testing.assert_allclose(result.cka, plain.cka, atol=1e-9)


def test_the_result_is_a_file_like_any_other(tmp_path):
    import xarray

    result = repsim.compare(net(), data=[torch.randn(12, 6)] * 2, progress=False)
    result.to_netcdf(tmp_path / "result.nc", engine="scipy")
    with xarray.open_dataset(tmp_path / "result.nc", engine="scipy") as back:
        np.testing.assert_array_equal(back.cka, result.cka)
        assert back.attrs["model_x"] == "Sequential"
        assert back.layer_x.values.tolist() == ["0", "1", "2"]
    assert (result.standard_error >= 0).all()


def test_tokens_are_not_compared_as_samples():
    """A sequence-first encoder raises an error that says so, unless the axis is declared."""
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16), 2, enable_nested_tensor=False
    )
    data = [torch.randn(5, 12, 8) for _ in range(2)]  # (tokens, samples, features)
    with pytest.raises(repsim.CaptureError, match="batch_dim=1"):
        repsim.compare(encoder, data=data, layers="layers.?", progress=False)
    result = repsim.compare(encoder, data=data, layers="layers.?", batch_dim=1, progress=False)
    assert result.attrs["n_samples"] == 24
