"""RV2: its published form, loops over pairs of samples, and data without a value."""

from itertools import permutations

import numpy as np
import pytest

import repsim
from measures.checks import half, lives_with_its_inputs, refuses, same_gradient, undefined
from reference import hsic as reference
from reference.data import oracle, related


def test_oracle():
    assert float(repsim.rv2(*oracle())) == pytest.approx(0.6882502007, abs=1e-10)
    assert reference.rv2(*oracle()) == pytest.approx(0.6882502007, abs=1e-10)


def test_values(backend):
    x, y = related(12, 5, 7)
    lives_with_its_inputs(backend, repsim.rv2, x, y, reference.rv2(x, y), 1e-11)


def test_one_and_many_features():
    for p in (1, 40):
        x, y = related(10, p, 3)
        assert float(repsim.rv2(x, y)) == pytest.approx(reference.rv2(x, y), abs=1e-12)


def test_a_large_mean_in_float32(eager):
    x, y = ((z + 1e4).astype(np.float32) for z in related(20, 6, 7))
    out = repsim.rv2(eager.array(x), eager.array(y))
    assert float(out) == pytest.approx(reference.rv2(x, y), abs=1e-5)


def test_half_precision():
    half(repsim.rv2, *related(12, 6, 5), reference.rv2, 1e-6)


def test_gradients():
    same_gradient(repsim.rv2, *related(6, 3, 4, 2))


def test_the_warning_has_the_mean_over_all_permutations():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((5, 40)), rng.standard_normal((5, 30))
    mean = np.mean([reference.rv2(x, y[list(order)]) for order in permutations(range(5))])
    assert mean > 0.2
    with pytest.warns(repsim.ChanceWarning, match=f"RV2 of independent data is about {mean:.1f} "):
        repsim.rv2(x, y)


def test_constant():
    x, y = np.full((9, 3), 0.1), related(9, 3, 4)[1]
    undefined(lambda: repsim.rv2(x, y), "x", about="constant")
    undefined(lambda: repsim.rv2(y, x), "y", about="constant")
    undefined(lambda: repsim.rv2(x, x), "x", "y", about="constant")


def test_errors():
    x, y = related(9, 4, 5)
    with refuses(repsim.InputError, "rv2", "at least 2 samples"):
        repsim.rv2(x[:1], y[:1])
    with refuses(repsim.InputError, "rv2", "same samples"):
        repsim.rv2(x, y[:-1])
