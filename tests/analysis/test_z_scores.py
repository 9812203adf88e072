"""compare's z-scores are those of its accumulator, and cost no other result."""

import math

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import repsim


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def nets():
    x = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3))
    return x, nn.Sequential(nn.Linear(6, 5), nn.ReLU())


def batches(count=3, n=7):
    return [torch.randn(n, 6) for _ in range(count)]


def test_not_asked_for_there_are_none():
    assert set(repsim.compare(nets()[0], data=batches(), progress=False)) == {
        "cka",
        "standard_error",
    }


@pytest.mark.parametrize("two", [False, True])
def test_are_those_of_the_accumulator(two):
    x, y = nets()
    data = batches()
    found = repsim.compare(x, y if two else None, data, z_scores=True, progress=False)
    acc = repsim.MinibatchCKA()
    with torch.no_grad():
        for batch in data:
            outputs = []
            for net in (x, y):
                h, named = batch, {}
                for name, layer in net.named_children():
                    h = named[name] = layer(h)
                outputs.append(named)
            acc.update(outputs[0], outputs[1] if two else None)
    np.testing.assert_allclose(found.z, acc.z_scores(), rtol=1e-4)
    assert found.z.dims == found.cka.dims
    assert found.z.attrs["units"] == "1"
    assert "z-score" in found.z.attrs["long_name"]
    plain = repsim.compare(x, y if two else None, data, progress=False)
    xr.testing.assert_identical(found.drop_vars("z"), plain)


def test_passes_over_the_same_samples_are_no_more_evidence():
    x, _ = nets()
    data = batches()
    one = repsim.compare(x, data=data, z_scores=True, progress=False)
    with pytest.warns(repsim.RepsimWarning, match="all 4 passes saw the same batches"):
        four = repsim.compare(x, data=data, passes=4, z_scores=True, progress=False)
    np.testing.assert_allclose(four.z, one.z, rtol=1e-9)


def test_the_result_before_an_error_has_them():
    x, _ = nets()
    data = [*batches(2), torch.full((7, 6), math.nan)]
    with pytest.raises(repsim.NonFiniteError) as raised:
        repsim.compare(x, data=data, z_scores=True, progress=False)
    whole = repsim.compare(x, data=data[:2], z_scores=True, progress=False)
    np.testing.assert_allclose(raised.value.partial.z, whole.z, rtol=1e-9)


def test_a_picture_of_it():
    pytest.importorskip("matplotlib")
    found = repsim.compare(*nets(), batches(), z_scores=True, progress=False)
    ax = repsim.plot.heatmap(found, above_chance=float(found.z.median()))
    assert len(ax.images) == 2
