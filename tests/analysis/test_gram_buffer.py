"""Grams lie in the memory of the Grams of the batch before."""

import itertools
import weakref

import numpy as np
import pytest
import torch
from torch import nn

import repsim


class Wide(nn.Module):
    """Layers of one feature, in float32 and float64."""

    def __init__(self, layers, double=0):
        super().__init__()
        self.of_32 = nn.ModuleList(nn.Linear(2, 1) for _ in range(layers))
        self.of_64 = nn.ModuleList(nn.Linear(2, 1).double() for _ in range(double))

    def forward(self, x):
        return [f(x) for f in self.of_32] + [f(x.double()) for f in self.of_64]


@pytest.fixture
def kept(monkeypatch):
    """The Grams of each batch, as they lie in memory while the batch is counted."""
    seen = []
    update_grams = repsim.MinibatchCKA.update_grams

    def update(self, xs, ys=None):
        seen.append(
            [(g.data_ptr(), g.nbytes, tuple(g.shape), weakref.ref(g._base)) for g in xs.values()]
        )
        return update_grams(self, xs, ys)

    monkeypatch.setattr(repsim.MinibatchCKA, "update_grams", update)
    return seen


def batches(*sizes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, 2, generator=generator) for n in sizes]


def compared(model, data):
    """The map, and that of the outputs themselves."""
    found = repsim.compare(model, data=data, progress=False).cka
    outputs = [[np.asarray(y.detach()) for y in model(batch)] for batch in data]
    acc = repsim.MinibatchCKA()
    for ys in outputs:
        acc.update(dict(zip(found.layer_x.values, ys, strict=True)))
    return found.values, acc.compute().values


def apart(grams):
    """Whether no two Grams share a byte."""
    ends = sorted((start, start + size) for start, size, *_ in grams)
    return all(end <= start for (_, end), (start, _) in itertools.pairwise(ends))


def test_values_hold_until_the_batch_is_counted(kept):
    """Of 19 Grams of 256 samples, 16 fit into one block of 4 MiB; one of 1100 does not."""
    for layers, n in ((19, 256), (2, 1100)):
        found, expected = compared(Wide(layers), batches(n, n))
        np.testing.assert_allclose(found, expected, atol=1e-5)
        grams = kept[0]
        assert len(grams) == layers
        assert apart(grams)
        kept.clear()


def test_the_next_batch_takes_the_same_memory(kept):
    compared(Wide(20), batches(8, 8, 8))
    places = [[place for place, *_ in grams] for grams in kept]
    assert places[0] == places[1] == places[2]
    assert len(set(places[0])) == 20


def test_kinds_do_not_mix(kept):
    found, expected = compared(Wide(3, double=2), batches(8, 6))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert all(apart(grams) for grams in kept)
    assert [size for _, size, *_ in kept[0]] == [256] * 3 + [512] * 2


def test_memory_of_a_kind_that_no_longer_comes_is_given_back(kept):
    def data():
        for i, batch in enumerate(batches(8, 8, 4, 6, 7)):
            # The Grams of the last batch are still there, and those of the batch before it if
            # they are of the same size.
            for old in kept[: max(0, i - 1)]:
                if all(old[0][2] != new[0][2] for new in kept[i - 2 :]):
                    assert all(block() is None for *_, block in old)
            yield batch

    repsim.compare(Wide(2), data=data(), progress=False)
    assert len(kept) == 5
    assert all(block() is None for *_, block in kept[0])
