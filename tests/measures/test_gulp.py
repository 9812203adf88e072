"""GULP: its published form by covariances, limits of the ridge, and data without a value."""

import numpy as np
import pytest

import repsim
from measures.checks import (
    half,
    lives_with_its_inputs,
    refuses,
    right_gradient,
    same_gradient,
    undefined,
)
from reference import regression as reference
from reference.data import oracle, related


def test_oracle():
    for ridge, squared in ((0, 1.9497351106), (0.1, 0.7408264265), (1, 0.1088083359)):
        assert float(repsim.gulp(*oracle(), ridge=ridge)) ** 2 == pytest.approx(squared, abs=1e-10)
        assert reference.gulp(*oracle(), ridge) ** 2 == pytest.approx(squared, abs=1e-10)


def test_values(backend):
    x, y = related(12, 5, 7)
    lives_with_its_inputs(backend, repsim.gulp, x, y, reference.gulp(x, y, 0.1), 1e-11)


def test_ridges_and_numbers_of_features():
    for ridge in (1e-12, 1e-6, 0.01, 1.0, 1e6):
        for p in (1, 9, 40):
            x, y = related(10, p, 3)
            expected = reference.gulp(x, y, ridge)
            assert float(repsim.gulp(x, y, ridge=ridge)) == pytest.approx(expected, rel=1e-5)


def test_a_small_ridge_of_dependent_features():
    """The inverse of their covariance would lose all digits."""
    x, y = related(20, 3, 4)
    dependent = np.concatenate([x, x], axis=1)
    expected = float(repsim.gulp(x, y, ridge=0))
    assert float(repsim.gulp(dependent, y, ridge=1e-14)) == pytest.approx(expected, rel=1e-9)
    assert float(repsim.gulp(dependent, y, ridge=0)) == pytest.approx(expected, rel=1e-9)


def test_it_is_the_difference_of_predictions():
    """The mean over targets of white noise, which the trace gives exactly for n unit vectors."""
    x, y = related(15, 3, 4)
    x, y = (z - z.mean(0) for z in (x, y))
    x, y = (z * np.sqrt(15) / np.linalg.norm(z) for z in (x, y))
    targets = np.eye(15)
    predicted = [
        z @ np.linalg.solve(z.T @ z + 15 * 0.1 * np.eye(z.shape[1]), z.T @ targets) for z in (x, y)
    ]
    expected = np.linalg.norm(predicted[0] - predicted[1])
    assert float(repsim.gulp(x, y)) == pytest.approx(expected, rel=1e-10)


def test_half_precision():
    half(repsim.gulp, *related(12, 6, 5), lambda x, y: reference.gulp(x, y, 0.1), 1e-6)


def test_gradients():
    same_gradient(repsim.gulp, *related(6, 3, 4, 2))
    right_gradient(repsim.gulp, *related(9, 3, 4, 2), ridge=0)
    # Features of equal variance, whose singular vectors have no derivative.
    x, y = related(9, 3, 4)
    right_gradient(repsim.gulp, np.linalg.qr(x - x.mean(0))[0], y)


def test_constant():
    x, y = np.full((9, 3), 0.1), related(9, 3, 4)[1]
    for ridge in (0.1, 0):

        def call(a, b, ridge=ridge):
            return lambda: repsim.gulp(a, b, ridge=ridge)

        undefined(call(x, y), "x", about="constant")
        undefined(call(y, x), "y", about="constant")
        undefined(call(x, x), "x", "y", about="constant")


def test_without_a_ridge_the_whole_space_has_no_value():
    x, y = related(9, 12, 3)
    undefined(lambda: repsim.gulp(x, y, ridge=0), "x", about="spans all 8 dimensions")
    assert 0 < float(repsim.gulp(x, y)) < 3


def test_errors():
    x, y = related(9, 4, 5)
    for bad in (-0.1, np.nan, "1", None, True):
        with refuses(repsim.InputError, "gulp: ridge must be", "at least 0"):
            repsim.gulp(x, y, ridge=bad)
    with refuses(repsim.InputError, "gulp", "at least 2 samples"):
        repsim.gulp(x[:1], y[:1])
    with refuses(repsim.InputError, "ridge=0", "at least 3 samples"):
        repsim.gulp(x[:2], y[:2], ridge=0)
