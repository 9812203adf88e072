"""trajectory is the diagonal of compare, at every step, with one reference or with each other."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

import repsim
from analysis.plain import Counted, inputs, net, unchanged
from analysis.text_models import language_model, texts
from repsim import DegenerateWarning, InputError, NonFiniteError, compare, trajectory
from repsim.measures import MEASURES

quiet = {"progress": False, "all_modules": True}


def trained(steps=(0, 10, 20, 40), seed=0):
    """Copies of one network whose weights drift."""
    model, kept = net(seed=seed), {}
    for step in steps:
        kept[step] = copy.deepcopy(model)
        with torch.no_grad():
            for weight in model.parameters():
                weight += 0.2 * torch.randn(weight.shape, generator=torch.manual_seed(step))
    return kept


def diagonal(x, y, data, **options):
    want = compare(x, y, data=data, **options, **quiet)
    return np.diagonal(want.cka), np.diagonal(want.standard_error)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_every_step_is_the_diagonal_of_compare(kernel):
    models, other, data = trained(), net(seed=5), inputs()
    for against, reference in (("last", models[40]), ("first", models[0]), (other, other)):
        with unchanged(other, *models.values()):
            result = trajectory(models, data, against=against, kernel=kernel, **quiet)
        assert result.step.values.tolist() == [0, 10, 20, 40]
        assert result.layer.values.tolist() == ["0", "1", "2", "3", "4"]
        for step, model in models.items():
            got = result.sel(step=step)
            for variable, want in zip(
                ("cka", "standard_error"),
                diagonal(model, reference, data, kernel=kernel),
                strict=True,
            ):
                np.testing.assert_allclose(got[variable], want, rtol=0, atol=1e-9)
    assert np.ptp(result.cka.values, axis=0).min() > 0.01


def test_each_other_is_the_diagonal_of_every_pair():
    models, data = trained(), inputs()
    result = trajectory(models, data, against="each other", **quiet)
    assert result.cka.dims == ("step_x", "step_y", "layer")
    for a, x in models.items():
        for b, y in models.items():
            got, want = result.sel(step_x=a, step_y=b), diagonal(x, y, data)
            np.testing.assert_allclose(got.cka, want[0], rtol=0, atol=1e-9)
            np.testing.assert_allclose(got.standard_error, want[1], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(result.cka, result.cka.transpose("step_y", "step_x", "layer"))


@pytest.mark.slow
def test_any_measure_is_the_diagonal_of_compare():
    models, data = trained((0, 10)), inputs(count=3)
    options = {"layers": ["0", "4"], **quiet}
    for name, measure in MEASURES.items():
        k = {"k": 3} if "k" in measure.options("", {}) else {}
        result = trajectory(models, data, measure=name, **k, **options)
        want = compare(models[0], models[10], data=data, measure=name, **k, **options)
        got = result[name].sel(step=0)
        np.testing.assert_allclose(got, np.diagonal(want[name]), rtol=1e-9, atol=1e-9)
        if name != "cka":
            kind = "similarity" if measure.similarity else "dissimilarity"
            assert result[name].attrs["kind"] == kind
            assert list(result.data_vars) == [name]
        repsim.plot.trajectory(result, Figure().subplots())


def test_another_measure_of_all_pairs_and_of_functions_that_load():
    models, data = trained(), inputs()
    loads = {step: lambda m=model: copy.deepcopy(m) for step, model in models.items()}
    options = {"measure": "mutual_knn", "k": 3, "metric": "euclidean", **quiet}
    each = trajectory(models, data, against="each other", **options).mutual_knn
    for against, step in (("last", 40), ("first", 0)):
        for checkpoints in (models, loads):
            result = trajectory(checkpoints, data, against=against, **options)
            np.testing.assert_array_equal(result.mutual_knn, each.sel(step_y=step))
    assert result.attrs["n_samples"] == 32
    one_sided = {"measure": "linear_regression_r2", "layers": ["4"], **quiet}
    each = trajectory(models, data, against="each other", **one_sided).linear_regression_r2
    got = trajectory(models, data, against="first", **one_sided).linear_regression_r2
    np.testing.assert_allclose(got, each.sel(step_y=0), rtol=1e-12)
    assert abs(each.sel(step_x=0, step_y=40) - each.sel(step_x=40, step_y=0)) > 1e-6


@pytest.mark.slow
def test_functions_that_load_give_the_values_of_the_models():
    models, data = trained(), inputs()
    loads = {step: lambda m=model: copy.deepcopy(m) for step, model in models.items()}
    mixed = {**loads, 10: models[10], 20: models[20]}
    for against in ("last", "first", "each other", models[20]):
        want = trajectory(models, data, against=against, **quiet)
        for checkpoints in (loads, mixed):
            got = trajectory(checkpoints, data, against=against, **quiet)
            assert got.equals(want)
            assert got.attrs == want.attrs


def test_few_models_are_alive_at_a_time():
    alive, most = set(), []

    class Net(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Linear(6, 4))
            alive.add(id(self))
            most.append(len(alive))

        def __del__(self):
            alive.discard(id(self))

    trajectory(dict.fromkeys(range(6), Net), inputs(), **quiet)
    assert len(most) == 6
    assert max(most) == 2
    assert not alive


def test_one_pass_and_one_forward_of_each_model():
    models = {step: Counted(net(seed=step)) for step in (1, 2, 3)}
    data = iter(inputs())  # once is enough
    trajectory(models, data, layers="inner.*", **quiet)
    assert [model.forwards for model in models.values()] == [4, 4, 4]


def test_steps_are_sorted_and_keep_their_type():
    models = trained()
    shuffled = {step: models[step] for step in (20, 0, 40, 10)}
    result = trajectory(shuffled, inputs(), **quiet)
    assert result.step.values.tolist() == [0, 10, 20, 40]
    assert result.step.dtype.kind == "i"
    assert result.attrs["compared_with"] == "step 40"
    halves = trajectory({0.5: models[0], np.float32(1.5): models[10]}, inputs(), **quiet)
    assert halves.step.values.tolist() == [0.5, 1.5]
    one = trajectory({3: models[0]}, inputs(), **quiet)
    np.testing.assert_allclose(one.cka, 1.0)


def test_steps_of_more_tokens_than_32_bits_hold_can_be_saved(tmp_path):
    models = dict(zip((0, 3_000_000_000), trained((0, 1)).values(), strict=True))
    for options in ({}, {"against": "each other"}, {"measure": "nbs"}):
        result = trajectory(models, inputs(), **options, **quiet)
        repsim.report.save_result(tmp_path, "it", result)
        back = repsim.report.load_results(tmp_path)["it"]
        assert back.identical(result)
        assert 3_000_000_000 in back[next(dim for dim in back.dims if "step" in dim)]


def test_steps_that_differ_in_late_digits_are_different_models():
    """Both are 10000.2 in six digits: one model had been compared in the place of the other."""
    models, data = trained((0, 10)), inputs()
    close = {10000.21: models[0], 10000.24: models[10]}
    for options in ({}, {"measure": "mutual_knn", "k": 3, "metric": "euclidean"}):
        name = options.get("measure", "cka")
        want = trajectory(models, data, against="each other", **options, **quiet)[name]
        got = trajectory(close, data, against="each other", **options, **quiet)[name]
        np.testing.assert_array_equal(got.values, want.values)
        last = trajectory(close, data, against="last", **options, **quiet)[name]
        np.testing.assert_allclose(last.values, want.values[:, 1], atol=1e-12)
        assert (last.values[0] < 1).any()


def test_tokens_of_texts_are_samples_of_every_step():
    models = {}
    for step in (0, 1):
        torch.manual_seed(step)
        models[step] = language_model("llama")
    data = texts("right")
    options = {"layers": ["layers.0", "layers.1"], "samples": "tokens", **quiet}
    result = trajectory(models, data, against="first", **options)
    want = np.diagonal(compare(models[1], models[0], data=data, **options).cka)
    np.testing.assert_allclose(result.cka.sel(step=1), want, atol=1e-9)


def test_pictures_pages_and_files(tmp_path):
    models, data = trained(), inputs()
    for against in ("last", "each other"):
        result = trajectory(models, data, against=against, name="mlp", **quiet)
        repsim.plot.trajectory(result).figure.savefig(tmp_path / "it.png")
        result.to_netcdf(tmp_path / "it.nc", engine="scipy")
        assert result.cka.attrs["units"] == "1"
        assert result.attrs["model"] == "mlp"
        assert result.attrs["n_samples"] == 32


def test_a_constant_layer_is_undefined_at_its_step():
    models = trained()
    with torch.no_grad():
        models[10][4].weight.zero_()
    with pytest.warns(DegenerateWarning, match=r"4 \(step 10\)") as caught:
        result = trajectory(models, inputs(), **quiet)
    assert len(caught) == 1
    assert np.argwhere(np.isnan(result.cka.values)).tolist() == [[1, 4]]
    with pytest.warns(DegenerateWarning, match=r"4 \(step 10\)"):
        result = trajectory(models, inputs(), against="each other", **quiet)
    undefined = np.isnan(result.cka.sel(layer="4").values)
    assert undefined[1].all()
    assert undefined[:, 1].all()
    assert undefined.sum() == 7


def test_a_layer_that_is_not_finite_is_named():
    models = trained()
    with torch.no_grad():
        models[20][4].weight.fill_(float("nan"))
    for against in ("last", "each other"):
        with pytest.raises(NonFiniteError, match=r"(?s)^trajectory: .*4 \(step 20\)"):
            trajectory(models, inputs(), against=against, layers=["0", "4"], **quiet)


class TestErrors:
    def test_a_function_that_returns_one_model_again(self):
        """Its weights are those of the last step that was loaded, so every CKA would be 1."""
        models, one = trained(), net()

        def load(step):
            one.load_state_dict(models[step].state_dict())
            return one

        loads = {step: lambda s=step: load(s) for step in models}
        for against in ("last", "first", one, "each other"):
            with pytest.raises(InputError, match="returned a model that was returned before"):
                trajectory(loads, inputs(), against=against, **quiet)
            wrapped = {step: lambda s=step: nn.Sequential(load(s)) for step in models}
            with pytest.raises(InputError, match="returned a model that was returned before"):
                trajectory(wrapped, inputs(), against=against, **quiet)

    def test_one_model_at_two_steps(self):
        model = net()
        for again in (model, nn.Sequential(model)):
            with pytest.raises(InputError, match=r"(?s)one model stands at several steps.*copy"):
                trajectory({0: model, 1: net(seed=1), 2: again}, inputs(), **quiet)

    @pytest.mark.parametrize(
        ("checkpoints", "message"),
        [
            ({}, "must map training steps"),
            ([net()], "must map training steps"),
            ({"last": net()}, "must be finite numbers"),
            ({True: net()}, "must be finite numbers"),
            ({float("nan"): net()}, "must be finite numbers"),
            ({0: "step0.pt"}, r"checkpoints\[0\] must be a torch.nn.Module, or a function"),
            ({0: lambda: {"weight": 1}}, r"must return a torch.nn.Module"),
        ],
    )
    def test_checkpoints(self, checkpoints, message):
        with pytest.raises(InputError, match=rf"(?s)^trajectory: .*{message}"):
            trajectory(checkpoints, inputs(), **quiet)

    def test_other_arguments(self):
        models = trained()
        for against in ("final", None, 3, "each_other"):
            with pytest.raises(InputError, match="^trajectory: against must be 'last', 'first'"):
                trajectory(models, inputs(), against=against, **quiet)
        loads = {0: net, 1: lambda: net(seed=1)}
        with pytest.raises(InputError, match="can be iterated only once, and there are 2 passes"):
            trajectory(loads, iter(inputs()), **quiet)
        with pytest.raises(InputError, match="no batch"):
            trajectory(models, [], **quiet)
        for options, message in (
            ({"measure": "knn"}, "unknown measure"),
            ({"measure": "mutual_knn", "n": 3}, "unknown options"),
            ({"k": 3}, "unknown options"),
            ({"measure": "nbs", "memory": 100}, "do not fit in memory"),
        ):
            with pytest.raises(InputError, match=f"(?s)^trajectory.*{message}"):
                trajectory(models, inputs(), **options, **quiet)
        other = nn.Sequential(nn.Linear(6, 8), nn.ReLU())
        with pytest.raises(InputError, match=r"(?s)same layers.*step 0 has 5, step 50 has 2"):
            trajectory({**models, 50: other}, inputs(), **quiet)

    def test_data_that_differ_between_passes(self):
        class Shrinking:
            def __init__(self):
                self.passes = 0

            def __iter__(self):
                self.passes += 1
                return iter(inputs()[self.passes - 1 :])

        with pytest.raises(InputError, match="every pass must give the same number"):
            trajectory({0: net, 1: lambda: net(seed=1)}, Shrinking(), **quiet)
