"""The labelled result, its errors, and the progress and warnings during a run."""

import re

import numpy as np
import pytest
import torch
import xarray
from torch import nn

import repsim
from analysis.plain import (
    activations,
    inputs,
    net,
    reference,
)
from reference import kernels, minibatch
from repsim import compare
from repsim.kernels import RBF

quiet = {"progress": False}


def matrix(model_x, model_y, batches, **options):
    return compare(model_x, model_y, data=batches, **quiet, **options).cka


def test_the_result(tmp_path):
    x, y = net(), nn.DataParallel(net(seed=1))
    result = compare(x, y, data=inputs(5), kernel=RBF(0.5), **quiet)
    assert isinstance(result, xarray.Dataset)
    assert set(result.data_vars) == {"cka", "standard_error"}
    for variable in result.data_vars.values():
        assert variable.dims == ("layer_x", "layer_y")
        assert variable.dtype == np.float64
        assert variable.attrs["units"] == "1"
        assert variable.attrs["long_name"]
    assert result.layer_x.values.tolist() == ["0", "1", "2", "4"]  # 3 is a dropout
    assert result.attrs == {
        "model_x": "Sequential",
        "model_y": "Sequential",
        "estimator": "minibatch unbiased",
        "kernel": "RBF(fraction=0.5, median='all', sigma=None)",
        "precision": "highest",
        "transform": "flatten",
        "passes": 1,
        "n_samples": 40,
        "n_batches": 5,
        "n_skipped_batches": 0,
        "n_skipped_samples": 0,
        "torch_version": str(torch.__version__),
        "repsim_version": repsim.__version__,
    }
    result.to_netcdf(tmp_path / "result.nc", engine="scipy")
    back = xarray.load_dataset(tmp_path / "result.nc", engine="scipy")
    assert back.identical(result)


def test_the_standard_error_is_that_of_the_batches():
    x = nn.Sequential(nn.Linear(6, 5), nn.Tanh())
    data = inputs(6)
    acts = [activations(x, lambda m, b=b: m(b), 8) for b in data]
    gram = lambda v: kernels.linear(kernels.centred(v))  # noqa: E731
    expected = minibatch.jackknife_standard_error(*([a[k] for a in acts] for k in "01"), gram)
    error = compare(x, data=data, **quiet).standard_error
    assert error.sel(layer_x="0", layer_y="1").item() == pytest.approx(expected, rel=1e-4)


def test_a_single_batch_has_no_standard_error():
    x, data = net(), inputs(1)
    with pytest.warns(repsim.RepsimWarning, match="one batch has no spread"):
        result = compare(x, data=data, **quiet)
    assert np.isnan(result.standard_error.values).all()
    _, _, values = reference(x, x, data)
    np.testing.assert_allclose(result.cka.values, values, atol=1e-6)


def test_a_constant_layer():
    class Constant(nn.Module):
        def forward(self, x):
            return torch.full_like(x, 0.1)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.still, self.b = nn.Linear(6, 3), Constant(), nn.Linear(3, 2)

        def forward(self, x):
            return self.b(self.a(x)) + self.still(x)[:, :2]

    with pytest.warns(repsim.DegenerateWarning, match="'still'"):
        result = compare(Model(), data=inputs(), **quiet)
    assert np.isnan(result.cka.sel(layer_x="still")).all()
    assert np.isfinite(result.cka.sel(layer_x=["a", "b"], layer_y=["a", "b"])).all()


def test_a_layer_without_features_is_left_out_or_named():
    class Nothing(nn.Module):
        def forward(self, x):
            return x[:, :0]

    model = nn.Sequential(Nothing())
    with pytest.raises(repsim.RepsimError, match="'0'"):
        compare(model, data=inputs(), layers="0", **quiet)


def test_progress(capfd):
    compare(net(), data=inputs(), progress=False)
    assert capfd.readouterr() == ("", "")
    with pytest.warns(repsim.RepsimWarning, match="same batches"):
        compare(net(), data=inputs(), passes=2, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "compare" in err
    assert "8/8" in err
    assert "batch" in err
    compare(net(), data=iter(inputs()), progress=True)
    assert re.search(r"4/4|4\s?batch", capfd.readouterr().err)


def test_the_callers_names_are_those_of_the_result():
    result = compare(net(), net(seed=1), data=inputs(5), names=("first", "second"), **quiet)
    assert (result.attrs["model_x"], result.attrs["model_y"]) == ("first", "second")


@pytest.mark.parametrize("names", ["ab", ("a",), ("a", 1), ("a", "b", "c")])
def test_names_that_do_not_name_two_models(names):
    with pytest.raises(repsim.InputError, match="names must be two strings"):
        compare(net(), data=inputs(5), names=names, **quiet)
