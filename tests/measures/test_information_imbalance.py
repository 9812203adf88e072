"""Information imbalance: loops over neighbours, ties, and data without neighbours."""

import numpy as np
import pytest

import repsim
from cases import each
from measures.checks import half, lives_with_its_inputs, refuses, undefined
from reference import neighbours as reference
from reference.data import oracle, related


def test_oracle():
    x, y = oracle()
    assert float(repsim.information_imbalance(x, y)) == pytest.approx(0.62, abs=1e-12)
    assert float(repsim.information_imbalance(y, x)) == pytest.approx(0.66, abs=1e-12)
    assert reference.information_imbalance(x, y) == pytest.approx(0.62, abs=1e-12)


def test_values(backend):
    x, y = related(12, 5, 7)
    expected = reference.information_imbalance(x, y)
    lives_with_its_inputs(backend, repsim.information_imbalance, x, y, expected, 1e-12)


@each("seed", range(4))
def test_ties_share_their_ranks(seed):
    """Points of a small grid: many distances are equal, and some samples are duplicates."""
    rng = np.random.default_rng(seed)
    x, y = (rng.integers(0, 3, (14, 2)).astype(float) for _ in range(2))
    expected = reference.information_imbalance(x, y)
    out = float(repsim.information_imbalance(x, y))
    assert out == pytest.approx(expected, abs=1e-12)
    order = rng.permutation(14)
    moved = float(repsim.information_imbalance(x[order], y[order]))
    assert moved == pytest.approx(expected, abs=1e-12)
    turn = np.array([[0.6, 0.8], [-0.8, 0.6]])  # rounds equal distances differently
    assert float(repsim.information_imbalance(x @ turn, y @ turn)) == pytest.approx(expected)


def test_independent_data_average_to_one():
    rng = np.random.default_rng(0)
    values = [
        float(
            repsim.information_imbalance(rng.standard_normal((20, 3)), rng.standard_normal((20, 3)))
        )
        for _ in range(200)
    ]
    assert np.mean(values) == pytest.approx(1, abs=4 * np.std(values) / np.sqrt(200))


def test_half_precision():
    x, y = (np.rint(8 * z) for z in related(12, 6, 5))
    half(repsim.information_imbalance, x, y, reference.information_imbalance, 1e-6)


def test_equal_distances():
    y = related(7, 3, 4)[1]
    for x in (np.eye(7), np.full((7, 3), 0.1)):
        undefined(lambda a=x: repsim.information_imbalance(a, y), "x", about="equally far")
        undefined(lambda a=x: repsim.information_imbalance(y, a), "y", about="equally far")


def test_errors():
    x, y = related(9, 4, 5)
    with refuses(repsim.InputError, "information_imbalance", "at least 3 samples"):
        repsim.information_imbalance(x[:2], y[:2])
