"""A value of NumPy arrays is a NumPy scalar, which works where Python's numbers do."""

from __future__ import annotations

import inspect
import json

import numpy as np
import pytest

import repsim
from repsim.measures import MEASURES

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((2, 40, 3))


def test_of_every_measure_for_numpy():
    for name, measure in MEASURES.items():
        options = {"k": 3} if "k" in inspect.signature(measure.function).parameters else {}
        value = measure.function(X, Y, **options, **measure.preset)
        assert isinstance(value, float), name
        assert isinstance(value, np.float64), name
        assert json.loads(json.dumps({"value": value})) == {"value": value}, name
        assert f"{value:.3f}" == f"{float(value):.3f}", name
        narrow = measure.function(
            X.astype(np.float32), Y.astype(np.float32), **options, **measure.preset
        )
        assert isinstance(narrow, np.float32), name
        assert narrow.shape == (), name


def test_other_functions():
    gram = X @ X.T
    for value in (
        repsim.cka_from_gram(gram, Y @ Y.T),
        repsim.hsic(X, Y),
        repsim.rsa_from_rdm(repsim.rdm(X), repsim.rdm(Y)),
        repsim.effective_dimension(X),
    ):
        assert isinstance(value, np.float64)
        json.dumps(value)


def test_other_frameworks_keep_arrays():
    torch = pytest.importorskip("torch")
    value = repsim.cka(torch.asarray(X), torch.asarray(Y))
    assert isinstance(value, torch.Tensor)
    assert value.shape == ()
