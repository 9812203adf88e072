"""Eigenspace overlap: its published value, projections, and data without a value."""

import numpy as np
import pytest

import repsim
from measures.checks import half, lives_with_its_inputs, refuses, same_gradient, undefined
from reference import canonical as reference
from reference.data import oracle, related


def test_oracle():
    assert float(repsim.eigenspace_overlap(*oracle())) == pytest.approx(0.6185255519, abs=1e-10)
    assert reference.eigenspace_overlap(*oracle()) == pytest.approx(0.6185255519, abs=1e-10)


def test_values(backend):
    x, y = related(12, 5, 7)
    expected = reference.eigenspace_overlap(x, y)
    lives_with_its_inputs(backend, repsim.eigenspace_overlap, x, y, expected, 1e-11)


def test_duplicated_features_change_nothing():
    x, y = related(12, 3, 4)
    twice = np.concatenate([x, 2 * x], axis=1)
    expected = float(repsim.eigenspace_overlap(x, y))
    assert float(repsim.eigenspace_overlap(twice, y)) == pytest.approx(expected, rel=1e-12)
    assert float(repsim.eigenspace_overlap(x, twice)) == pytest.approx(1, rel=1e-12)


def test_a_small_feature_is_a_direction():
    x, y = related(12, 3, 4)
    expected = float(repsim.eigenspace_overlap(x, y))
    small = x * [1, 1e-12, 1]
    assert float(repsim.eigenspace_overlap(small, y)) == pytest.approx(expected, rel=1e-9)


def test_half_precision():
    half(repsim.eigenspace_overlap, *related(12, 4, 5), reference.eigenspace_overlap, 1e-6)


def test_gradients():
    same_gradient(repsim.eigenspace_overlap, *related(7, 3, 4, 2))


def test_a_constant_is_one_direction():
    x, y = np.full((9, 3), 0.1), related(9, 3, 4)[1]
    expected = reference.eigenspace_overlap(x[:, :1], y)
    assert float(repsim.eigenspace_overlap(x, y)) == pytest.approx(expected, rel=1e-12)


def test_no_directions_and_all_directions():
    x, y = related(9, 9, 4)
    undefined(lambda: repsim.eigenspace_overlap(0 * x, y), "x", about="is zero")
    undefined(lambda: repsim.eigenspace_overlap(y, x), "y", about="spans all 9 dimensions")


def test_errors():
    x, y = related(9, 4, 5)
    with refuses(repsim.InputError, "eigenspace_overlap", "at least 2 samples"):
        repsim.eigenspace_overlap(x[:1], y[:1])
