"""CKNNA: the published number, its asymmetry and its masks."""

import numpy as np
import pytest

import repsim
from cases import each
from measures.checks import half, lives_with_its_inputs, refuses, same_gradient, undefined
from reference import hsic, kernels
from reference import neighbours as reference
from reference.data import oracle, related


def test_oracle():
    x, y = oracle()
    assert float(repsim.cknna(x, y, k=3)) == pytest.approx(0.6474984609093, abs=1e-12)
    assert reference.cknna(x, y, 3) == pytest.approx(0.6474984609093, abs=1e-12)
    assert float(repsim.cknna(x, y, k=9)) == pytest.approx(0.5647127621469, abs=1e-12)


@each("dtype", ["float32", "float64"])
def test_values(backend, dtype):
    x, y = (z.astype(dtype) for z in related(12, 5, 7))
    rtol = {"float32": 1e-5, "float64": 1e-11}[dtype]
    lives_with_its_inputs(backend, repsim.cknna, x, y, reference.cknna(x, y, 4), rtol, k=4)


@each("k", [2, 4, 6, 9])
@each("seed", range(3))
def test_every_k_in_both_orders(k, seed):
    x, y = related(10, 4, 30, seed)
    for a, b in ((x, y), (y, x)):
        assert float(repsim.cknna(a, b, k=k)) == pytest.approx(reference.cknna(a, b, k), abs=1e-11)


def test_all_neighbours_are_unbiased_cosine_cka():
    x, y = related(15, 4, 6)
    wide = hsic.cka(kernels.cosine(x), kernels.cosine(y), "unbiased")
    assert float(repsim.cknna(x, y, k=14)) == pytest.approx(wide, abs=1e-12)
    assert float(repsim.cknna(y, x, k=14)) == pytest.approx(wide, abs=1e-12)


def test_norms_of_rows_do_not_matter():
    x, y = related(12, 5, 6)
    norms = np.random.default_rng(0).uniform(0.1, 10, (12, 1))
    out = float(repsim.cknna(norms * x, y, k=4))
    assert out == pytest.approx(float(repsim.cknna(x, y, k=4)), abs=1e-12)


def test_samples_in_another_order():
    x, y = related(12, 5, 6)
    x[3] = x[4]  # with a tie
    order = np.random.default_rng(0).permutation(12)
    out = float(repsim.cknna(x[order], y[order], k=4))
    assert out == pytest.approx(float(repsim.cknna(x, y, k=4)), abs=1e-12)
    assert float(repsim.cknna(x, x, k=4)) == pytest.approx(1, abs=1e-12)


def test_ties_share_their_places():
    """Binary features have no order of neighbours; equal representations have the value 1."""
    rng = np.random.default_rng(2)
    x = np.concatenate([np.ones((14, 1)), rng.integers(0, 2, (14, 4))], axis=1)
    y, order = rng.standard_normal((14, 5)), rng.permutation(14)
    out = float(repsim.cknna(x, y, k=4))
    assert float(repsim.cknna(x[order], y[order], k=4)) == pytest.approx(out, abs=1e-12)
    assert float(repsim.cknna(x, 3 * x, k=4)) == pytest.approx(1, abs=1e-12)


@each("scale", [1e8, 1e-8])
def test_scale_and_mean_in_float32(scale):
    x, y = ((z + 30).astype(np.float32) for z in related(20, 5, 6))
    wide = float(repsim.cknna(x.astype(float), y.astype(float), k=5))
    assert float(repsim.cknna(x, y, k=5)) == pytest.approx(wide, abs=1e-5)
    assert float(repsim.cknna(np.float32(scale) * x, y, k=5)) == pytest.approx(wide, abs=1e-3)


def test_half_precision():
    x, y = related(14, 6, 5)
    half(repsim.cknna, x, y, lambda a, b: reference.cknna(a, b, 5), 1e-5, k=5)


@pytest.mark.slow
def test_gradients():
    same_gradient(repsim.cknna, *related(8, 3, 4, 2), k=4)


@each("value", [0.1, 7.7])
@each("k", [3, 10])
def test_constant(value, k):
    x, y = np.full((11, 3), value, np.float32), related(11, 3, 4)[1].astype(np.float32)
    undefined(lambda: repsim.cknna(x, y, k=k), "x", about="no positive HSIC")
    undefined(lambda: repsim.cknna(y, x, k=k), "y", about="no positive HSIC")


def test_directions_that_are_all_orthogonal():
    y = related(9, 3, 4)[1]
    undefined(lambda: repsim.cknna(np.eye(9), y, k=3), "x", about="no positive HSIC")


def test_a_row_of_zeros_has_no_cosine():
    x, y = related(9, 4, 5)
    x[2] = 0
    undefined(lambda: repsim.cknna(x, y, k=3), "x", about="row of zeros")


def test_errors():
    x, y = related(9, 4, 5)
    with refuses(repsim.InputError, "cknna: k=9 needs at least 10 samples", "n=9"):
        repsim.cknna(x, y, k=9)
    with refuses(repsim.InputError, "cknna: k=1 needs at least 4 samples"):
        repsim.cknna(x[:3], y[:3], k=1)
    with refuses(repsim.InputError, "cknna: k must be", "got 0"):
        repsim.cknna(x, y, k=0)
