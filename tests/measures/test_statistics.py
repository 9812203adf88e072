"""Differences of one number of each side: magnitude, uniformity and concentricity."""

import math

import numpy as np
import pytest

import repsim
from cases import each
from measures.checks import half, lives_with_its_inputs, refuses, same_gradient, undefined
from reference import statistics as reference
from reference.data import oracle, related

CASES = {
    "magnitude": (repsim.magnitude_difference, reference.magnitude, 0.0370468626),
    "uniformity": (repsim.uniformity_difference, reference.uniformity, 0.2406389610),
    "concentricity": (repsim.concentricity_difference, reference.concentricity, 0.1037332407),
}


def shifted(n, p, q):
    return tuple(0.3 * z + 0.5 for z in related(n, p, q))


@each("name", CASES)
def test_oracle(name):
    function, number, expected = CASES[name]
    assert float(function(*oracle())) == pytest.approx(expected, abs=1e-10)
    assert reference.difference(number)(*oracle()) == pytest.approx(expected, abs=1e-10)


@each("name", CASES)
def test_values(backend, name):
    function, number, _ = CASES[name]
    x, y = shifted(12, 5, 7)
    expected = reference.difference(number)(x, y)
    lives_with_its_inputs(backend, function, x, y, expected, 1e-10)


@each("name", CASES)
def test_half_precision(name):
    function, number, _ = CASES[name]
    half(function, *shifted(12, 6, 5), reference.difference(number), 1e-6)


@each("name", CASES)
def test_gradients(name):
    same_gradient(CASES[name][0], *shifted(6, 3, 4))


def test_the_temperature_of_uniformity():
    x, y = shifted(9, 3, 4)
    for t in (0.01, 0.5, 30.0):
        expected = reference.difference(reference.uniformity)(x, y, t=t)
        assert float(repsim.uniformity_difference(x, y, t=t)) == pytest.approx(expected, abs=1e-12)
    for bad in (0, -1.0, np.inf, "2", None):
        with refuses(repsim.InputError, "uniformity_difference: t must be", "positive"):
            repsim.uniformity_difference(x, y, t=bad)


def test_extreme_scales():
    x, y = shifted(9, 3, 4)
    expected = float(repsim.magnitude_difference(x, y))
    for scale in (1e-200, 1e200):
        out = float(repsim.magnitude_difference(scale * x, scale * y))
        assert out == pytest.approx(scale * expected, rel=1e-12)
    constant = np.ones((9, 2))
    assert float(repsim.uniformity_difference(1e200 * x, constant)) == pytest.approx(math.log(9))
    assert float(repsim.uniformity_difference(1e-200 * x, constant)) == 0
    # −log(1 − ε) = ε: the mean of t‖a − b‖², whose digits 1 − ε would not have.
    apart = np.mean(np.sum((x[:, None] - x) ** 2, axis=-1))
    for scale in (1e-8, 1e-100):
        out = float(repsim.uniformity_difference(scale * x, constant))
        assert out == pytest.approx(2 * apart * scale**2, rel=1e-12, abs=0)
    expected = float(repsim.concentricity_difference(x, y))
    assert float(repsim.concentricity_difference(1e200 * x, 1e-200 * y)) == pytest.approx(expected)


def test_a_constant_has_a_value():
    x, y = np.full((9, 3), 0.1), shifted(9, 3, 4)[1]
    for function, number, _ in CASES.values():
        assert float(function(x, y)) == pytest.approx(reference.difference(number)(x, y), rel=1e-9)


def test_no_direction():
    x, y = shifted(9, 3, 4)
    call = repsim.concentricity_difference
    for dtype in (np.float32, np.float64):
        centred = (x - x.mean(0)).astype(dtype)
        undefined(lambda a=centred: call(a, y.astype(a.dtype)), "x", about="mean of zero")
    x[3] = 0
    undefined(lambda: call(y, x), "y", about="row of zeros")
    undefined(lambda: call(0 * x, y), "x", about="row of zeros")


def test_errors():
    x, y = shifted(9, 4, 5)
    for name, (function, _, _) in CASES.items():
        with refuses(repsim.InputError, f"{name}_difference", "at least 2 samples"):
            function(x[:1], y[:1])
