"""The labelled result: its dimensions, its attributes, and saving it."""

import numpy as np
import pytest
import xarray

import repsim
from repsim import MinibatchCKA
from repsim.kernels import RBF
from streaming.batches import LAYERS_X, LAYERS_Y, accumulate, data, split


def test_dimensions_coordinates_and_attributes():
    xs, ys = (split(side, [6, 7]) for side in data(13))
    result = accumulate(xs, ys, RBF(0.5)).compute()
    assert isinstance(result, xarray.DataArray)
    assert result.name == "cka"
    assert result.dims == ("layer_x", "layer_y")
    assert result.dtype == np.float64
    assert list(result.layer_x.values) == list(LAYERS_X)
    assert list(result.layer_y.values) == list(LAYERS_Y)
    assert result.attrs == {
        "estimator": "minibatch unbiased",
        "kernel": "RBF(fraction=0.5, median='all', sigma=None)",
        "precision": "highest",
        "n_samples": 13,
        "n_batches": 2,
        "n_skipped_batches": 0,
        "n_skipped_samples": 0,
        "repsim_version": repsim.__version__,
    }


def test_labels_belong_to_values():
    xs, ys = (split(side, [6, 7]) for side in data(13))
    result = accumulate(xs, ys).compute()
    for x in xs[0]:
        for y in ys[0]:
            alone = accumulate([{x: b[x]} for b in xs], [{y: b[y]} for b in ys]).compute()
            value = result.sel(layer_x=x, layer_y=y).item()
            assert value == pytest.approx(alone.item(), rel=1e-12)


@pytest.mark.parametrize("what", ["compute", "standard_error"])
def test_netcdf(tmp_path, what):
    result = getattr(accumulate(split(data(13)[0], [6, 7])), what)()
    result.to_netcdf(tmp_path / "result.nc", engine="scipy")
    back = xarray.load_dataarray(tmp_path / "result.nc", engine="scipy")
    assert back.identical(result)


def test_computing_changes_nothing_and_can_go_on():
    xs, ys = (split(side, [6, 7, 8]) for side in data(21))
    acc = MinibatchCKA()
    for x, y in zip(xs, ys, strict=True):
        acc.update(x, y)
        first = acc.compute()
        first.values[...] = 9
        first.attrs.clear()
    assert acc.compute().identical(accumulate(xs, ys).compute())


def test_names_need_not_be_python_names():
    xs = {"blocks.0:1": data(6)[0]["fc"], "": data(6)[0]["conv"], "π/σ": data(6)[0]["norm"]}
    result = accumulate([xs]).compute()
    assert list(result.layer_x.values) == list(xs)


def test_any_mapping_will_do():
    from types import MappingProxyType

    xs = data(6)[0]
    acc = MinibatchCKA()
    acc.update(MappingProxyType(xs))
    assert acc.compute().identical(accumulate([xs]).compute())
