"""Layers that share a tensor share a Gram; no activation is kept."""

import gc
import weakref

import numpy as np
import pytest
import torch
from torch import nn

import repsim
from analysis.plain import (
    agrees,
    inputs,
    net,
    reference,
    without_versions,
)
from repsim import compare

quiet = {"progress": False, "all_modules": True}


def matrix(model_x, model_y, batches, **options):
    return compare(model_x, model_y, data=batches, **quiet, **options).cka


class Aliases(nn.Module):
    """Every way in which two layers return one tensor, or seem to."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.same = nn.Identity()
        self.drop = nn.Dropout(0.5)
        self.flat = nn.Flatten()
        self.again = nn.ReLU(inplace=True)
        self.box = nn.Sequential(nn.Identity(), nn.Sequential(nn.Linear(64, 64)))
        self.turn = nn.Identity()
        self.tanh = nn.Hardtanh(-0.2, 0.2, inplace=True)

    def forward(self, x):
        x = self.drop(self.same(self.relu(self.norm(self.conv(x)))))
        x = self.flat(x)
        x = self.box(self.again(x))
        x = self.turn(x.view(-1, 8, 8).transpose(1, 2))  # not contiguous
        x = x.contiguous().view(-1, 64)
        x = self.same(x)
        return self.tanh(x)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_sharing_grams_changes_no_value(kernel):
    model = Aliases().eval()
    with torch.no_grad():
        model.norm.running_mean += 0.1
        model.norm.weight.copy_(torch.tensor([0.2, 1.0, 3.0, 0.5]))
    data = [torch.randn(8, 3, 6, 6) for _ in range(3)]
    shared = compare(model, data=data, kernel=kernel, **quiet)
    own = compare(model, data=data, kernel=kernel, forward=without_versions, **quiet)
    assert shared.layer_x.equals(own.layer_x)
    np.testing.assert_allclose(shared.cka.values, own.cka.values, rtol=1e-11)
    if kernel == "linear":
        agrees(shared, *reference(model, model, data, all_modules=True))
    cka = shared.cka
    for x, y in (("relu", "same:0"), ("relu", "drop"), ("relu", "flat"), ("box.1", "box"),
                 ("box.1.0", "box.1"), ("turn", "same:1")):  # fmt: skip
        assert cka.sel(layer_x=x, layer_y=y).item() == pytest.approx(1, abs=1e-6), (x, y)
    for x, y in (("norm", "relu"), ("same:1", "tanh"), ("conv", "norm"), ("flat", "box.1.0")):
        assert cka.sel(layer_x=x, layer_y=y).item() < 0.9999, (x, y)


def test_grams_are_in_fact_shared(monkeypatch):
    """Without this the tests of sharing could pass although nothing is shared."""
    made = []
    original = repsim.kernels.Linear.gram
    monkeypatch.setattr(
        repsim.kernels.Linear, "gram", lambda self, x: (made.append(x.shape), original(self, x))[1]
    )
    model = Aliases()
    result = compare(model, data=[torch.randn(8, 3, 6, 6) for _ in range(2)], **quiet)
    assert len(made) / 2 <= len(result.layer_x) - 5


def test_memory_used_again_is_not_taken_for_the_same_tensor():
    """Tensors that die make room for others at the same address, with the same version."""

    class Reuse(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(12))

        def forward(self, x):
            return sum(layer(x).sum() for layer in self.layers)  # none of the outputs survives

    model = Reuse()
    result = compare(model, data=inputs(), **quiet)
    agrees(result, *reference(model, model, inputs()))
    off = result.cka.values[~np.eye(12, dtype=bool)]
    assert (off < 0.999).all()


@pytest.mark.parametrize("mode", ["grad", "inference"])
def test_sharing_in_other_modes(mode):
    model = Aliases()
    data = [torch.randn(8, 3, 6, 6) for _ in range(2)]

    def forward(m, batch):
        with torch.enable_grad() if mode == "grad" else torch.inference_mode():
            return m(batch)

    agrees(
        compare(model, data=data, forward=forward, **quiet),
        *reference(model, model, data, all_modules=True),
    )


@pytest.mark.slow
def test_no_activation_outlives_its_batch():
    """Only Grams are kept: hooks see every activation, and all are gone when the forward is."""
    alive: list[weakref.ref] = []
    largest = []

    class Watch(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(*(nn.Linear(500, 500) for _ in range(5)))

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
                alive.append(weakref.ref(x))
                largest.append(sum(ref() is not None for ref in alive))
            return

    def data():
        for b in range(3):
            gc.collect()
            assert all(ref() is None for ref in alive), f"kept when batch {b} began"
            yield torch.randn(8, 500)

    compare(Watch(), data=data(), layers="layers.*", **quiet)
    assert len(alive) == 5 * (2 + 3)  # two forwards find the samples
    # The current one and its predecessor, which has just been replaced; the others are freed.
    assert max(largest) <= 2


def test_kept_arrays_are_n_by_n(monkeypatch):
    shapes = []
    original = repsim.MinibatchCKA.update_grams

    def update(self, xs, ys=None):
        shapes.extend(v.shape for side in (xs, ys or {}) for v in side.values())
        return original(self, xs, ys)

    monkeypatch.setattr(repsim.MinibatchCKA, "update_grams", update)
    compare(net(), net(seed=1), data=inputs(2), **quiet)
    assert set(shapes) == {(8, 8)}
    assert len(shapes) == 20
