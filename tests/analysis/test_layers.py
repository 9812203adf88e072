"""Which layers, of one model or two, and with which kernel."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import repsim
from analysis.plain import (
    Counted,
    activations,
    inputs,
    net,
    unchanged,
)
from reference import hsic, kernels, minibatch
from repsim import InputError, LayerNotFoundError, compare
from repsim.kernels import RBF

quiet = {"progress": False}


def matrix(model_x, model_y, batches, **options):
    return compare(model_x, model_y, data=batches, **quiet, **options).cka


def test_layers_of_one_model_against_other_layers_of_it():
    inner, data = net(), inputs()
    model = Counted(inner)
    result = compare(model, data=data, layers="inner.0", layers_y=["inner.2", "inner.4"], **quiet)
    assert model.forwards == len(data)  # two recorders, one forward
    expected = compare(inner, data=data, **quiet).cka
    np.testing.assert_allclose(
        result.cka.values, expected.sel(layer_x=["0"], layer_y=["2", "4"]).values, rtol=1e-9
    )
    assert result.layer_x.values.tolist() == ["inner.0"]
    assert result.layer_y.values.tolist() == ["inner.2", "inner.4"]


def test_the_same_model_twice_is_one_model_with_itself():
    inner, data = net(), inputs()
    model = Counted(inner)
    expected = matrix(model, None, data)
    model.forwards = 0
    assert matrix(model, model, data).identical(expected)
    assert model.forwards == len(data)


@pytest.mark.parametrize("kernel", ["linear", "rbf", "laplacian"])
def test_the_same_model_on_two_inputs(kernel):
    x, data = net(), inputs()
    options = {"kernel": kernel, "prepare_y": lambda b: 10 * b + 1}
    expected = matrix(x, copy.deepcopy(x), data, **options)
    np.testing.assert_allclose(matrix(x, x, data, **options).values, expected.values, rtol=1e-9)
    layers = matrix(x, x, data, layers="0", layers_y="4", **options).values
    np.testing.assert_allclose(layers, expected.sel(layer_x=["0"], layer_y=["4"]), rtol=1e-9)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_models_that_share_submodules(kernel):
    """Each recorder sees only the forward of its model, even if modules are shared."""
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
    x = nn.Sequential(backbone, nn.Linear(6, 3))
    y = nn.Sequential(nn.Linear(6, 6), backbone, nn.Linear(6, 2))
    data = inputs()
    apart = copy.deepcopy(x), copy.deepcopy(y)
    for a, b, c, d in ((x, y, *apart), (y, x, *apart[::-1]), (backbone, y, apart[0][0], apart[1])):
        with unchanged(a, b):
            result = matrix(a, b, data, kernel=kernel)
        expected = matrix(c, d, data, kernel=kernel)
        assert result.layer_x.equals(expected.layer_x)
        assert result.layer_y.equals(expected.layer_y)
        np.testing.assert_allclose(result.values, expected.values, rtol=1e-9)


@pytest.mark.parametrize("layers", ["lyer4", ["0", "relu9"], "layer*", nn.Conv2d])
def test_a_layer_that_does_not_exist(layers):
    model = net()
    model.train()

    def never():
        raise AssertionError("the data were touched")
        yield

    with unchanged(model), pytest.raises(LayerNotFoundError):
        compare(model, data=never(), layers=layers, **quiet)
    with unchanged(model), pytest.raises(LayerNotFoundError):
        compare(model, net(), data=never(), layers_y=layers, **quiet)


def test_layers_that_only_model_x_has():
    longer, shorter = net(), net()[:2]
    with pytest.raises(LayerNotFoundError, match="is model_y: choose its layers with layers_y="):
        compare(longer, shorter, data=inputs(), layers="4", **quiet)
    with pytest.raises(LayerNotFoundError) as error:
        compare(shorter, longer, data=inputs(), layers="4", **quiet)
    assert "model_y" not in str(error.value)


def test_numbers_are_no_layers():
    with pytest.raises(InputError, match=r"got int\n  model.named_modules\(\) lists the names"):
        compare(net(), data=inputs(), layers=[1, 2], **quiet)


def test_a_layer_that_never_ran():
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(6, 3), nn.Linear(6, 3)

        def forward(self, x):
            return self.used(x)

    model = Sometimes()
    assert compare(model, data=inputs(), **quiet).layer_x.values.tolist() == ["used"]
    with unchanged(model), pytest.raises(LayerNotFoundError, match="unused"):
        compare(model, data=inputs(), layers=["used", "unused"], **quiet)


def test_a_layer_that_runs_in_some_batches_only():
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.a(x) if x[:, 0].max() > 9 else self.b(self.a(x))

    positive, negative = inputs(2)
    positive[0, 0] = 10
    with pytest.raises(InputError, match=r"new: \['b'\]"):
        compare(Sometimes(), data=[positive, negative], **quiet)


def test_models_that_see_different_numbers_of_samples():
    with pytest.raises(InputError, match="same samples"):
        compare(net(), net(), data=inputs(), prepare_y=lambda b: b[:5], **quiet)


def test_select_and_batch_dim():
    model = nn.Sequential(nn.LSTM(6, 4))
    data = [torch.randn(5, 8, 6) for _ in range(2)]  # sequence first
    result = compare(model, data=data, batch_dim=1, **quiet)
    cell = compare(model, data=data, batch_dim=1, select=lambda out: out[1][1], **quiet)
    assert result.attrs["n_samples"] == cell.attrs["n_samples"] == 16
    x = [model[0](b)[0].movedim(1, 0).flatten(1).detach().double().numpy() for b in data]
    c = [model[0](b)[1][1][0].detach().double().numpy() for b in data]
    both = compare(
        model, model, data=data, batch_dim=1, prepare_y=lambda b: b.flip(2), **quiet
    ).cka.item()
    assert result.cka.item() == pytest.approx(1)
    y = [model[0](b.flip(2))[0].movedim(1, 0).flatten(1).detach().double().numpy() for b in data]
    gram = lambda v: kernels.linear(kernels.centred(v))  # noqa: E731
    assert both == pytest.approx(minibatch.minibatch_cka(x, y, gram), abs=1e-6)
    assert c[0].shape == (8, 4)


@pytest.mark.parametrize("kernel", ["cosine", "polynomial"])
def test_kernels(kernel):
    x, y = nn.Sequential(nn.Linear(6, 5), nn.Tanh()), nn.Sequential(nn.Linear(6, 4))
    data = inputs()
    result = compare(x, y, data=data, kernel=kernel, **quiet)
    acts = [[activations(m, lambda m, b=b: m(b), 8) for b in data] for m in (x, y)]
    for i in result.layer_x.values:
        expected = minibatch.minibatch_cka(
            [a[i] for a in acts[0]], [a["0"] for a in acts[1]], kernels.KERNELS[kernel]
        )
        assert result.cka.sel(layer_x=i, layer_y="0").item() == pytest.approx(expected, abs=1e-5)


def test_rbf_has_the_bandwidth_of_the_first_batch():
    x = nn.Sequential(nn.Linear(6, 5), nn.Tanh())
    data = inputs(3)
    data[1] *= 4
    acts = [activations(x, lambda m, b=b: m(b), 8) for b in data]

    def sigma(v):
        return 0.5 * np.sqrt(np.median(((v[:, None] - v[None]) ** 2).sum(-1)))

    a, b = ([kernels.rbf_fixed(t[k], sigma(acts[0][k])) for t in acts] for k in ("0", "1"))
    sums = [sum(40 * hsic.unbiased_song(k, l) for k, l in zip(*pair, strict=True))  # noqa: E741
            for pair in ((a, b), (a, a), (b, b))]  # fmt: skip
    result = compare(x, data=data, kernel=RBF(0.5), **quiet)
    value = result.cka.sel(layer_x="0", layer_y="1").item()
    assert value == pytest.approx(sums[0] / np.sqrt(sums[1] * sums[2]), abs=1e-5)
    # and keeps it over passes
    with pytest.warns(repsim.RepsimWarning, match="same batches"):
        twice = compare(x, data=data, kernel=RBF(0.5), passes=2, **quiet)
    np.testing.assert_allclose(twice.cka.values, result.cka.values, rtol=1e-12)


def test_an_unknown_kernel():
    with pytest.raises(InputError, match="compare: unknown kernel"):
        compare(net(), data=inputs(), kernel="gauss", **quiet)
