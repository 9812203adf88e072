"""Permutation Procrustes: all orders of few features, scales, and a constant."""

import numpy as np
import pytest

import repsim
from cases import each
from measures.checks import half, lives_with_its_inputs, refuses, undefined
from reference import matching as reference
from reference.data import oracle, related

SCORES = ("distance", "angle")


@each(("score", "expected"), [("distance", 3.2893412715), ("angle", 0.7159225542)])
def test_oracle(score, expected):
    out = repsim.permutation_procrustes(*oracle(), score=score)
    assert float(out) == pytest.approx(expected, abs=1e-10)
    assert reference.permutation_procrustes(*oracle(), score) == pytest.approx(expected, abs=1e-10)


@each("score", SCORES)
def test_values(eager, score):
    for p, q in ((4, 5), (5, 3)):
        x, y = related(12, p, q)
        expected = reference.permutation_procrustes(x, y, score)
        run = repsim.permutation_procrustes
        lives_with_its_inputs(eager, run, x, y, expected, 1e-10, score=score)


def test_it_is_never_below_the_distance_over_rotations():
    x, y = related(12, 3, 4)
    out = float(repsim.permutation_procrustes(x, y))
    assert out > float(repsim.procrustes(x, y))
    turned = float(repsim.permutation_procrustes(x, y, score="angle"))
    assert turned > float(repsim.shape_distance(x, y))


def test_opposite_features():
    x = related(9, 1, 1)[0]
    assert float(repsim.permutation_procrustes(x, -x, score="angle")) == pytest.approx(np.pi)
    out = float(repsim.permutation_procrustes(x, -x))
    assert out == pytest.approx(2 * np.linalg.norm(x - x.mean()), rel=1e-12)


def test_rounding_below_minus_one_is_an_angle_of_pi():
    for seed in range(330):  # 78, 201 and others gave a cosine of −1 − 1e-15
        x = np.random.default_rng(seed).standard_normal((300, 1))
        angle = float(repsim.permutation_procrustes(x, -7.3 * x, score="angle"))
        assert angle == pytest.approx(np.pi, abs=1e-6), seed


def test_scales():
    x, y = related(10, 3, 4)
    expected = float(repsim.permutation_procrustes(x, y))
    for scale in (1e-200, 1e200):
        out = float(repsim.permutation_procrustes(scale * x, scale * y))
        assert out == pytest.approx(scale * expected, rel=1e-12)


@each("score", SCORES)
def test_half_precision(score):
    def expected(a, b):
        return reference.permutation_procrustes(a, b, score)

    half(repsim.permutation_procrustes, *related(12, 3, 4), expected, 1e-5, score=score)


@each("score", SCORES)
def test_gradient_at_the_best_pairing(score):
    torch = pytest.importorskip("torch")
    x, y = (torch.tensor(z, requires_grad=True) for z in related(8, 3, 4, 2))
    assert torch.autograd.gradcheck(
        lambda a, b: repsim.permutation_procrustes(a, b, score=score), (x, y), fast_mode=True
    )


def test_constant():
    x, y = np.full((9, 3), 0.1), related(9, 3, 4)[1]
    expected = np.linalg.norm(y - y.mean(0))
    assert float(repsim.permutation_procrustes(x, y)) == pytest.approx(expected, rel=1e-12)
    undefined(lambda: repsim.permutation_procrustes(x, y, score="angle"), "x", about="constant")
    undefined(lambda: repsim.permutation_procrustes(y, x, score="angle"), "y", about="constant")


def test_errors():
    x, y = related(9, 3, 4)
    with refuses(repsim.InputError, "permutation_procrustes: unknown score", "'angle'", "'unit'"):
        repsim.permutation_procrustes(x, y, score="unit")
    with refuses(repsim.InputError, "permutation_procrustes", "at least 2 samples"):
        repsim.permutation_procrustes(x[:1], y[:1])


@pytest.mark.parametrize("score", ["distance", "angle"])
def test_the_triangle_inequality_holds_for_one_width_alone(score):
    def apart(a, b):
        return float(repsim.permutation_procrustes(a, b, score=score))

    rng = np.random.default_rng(0)
    for _ in range(20):
        x, y, z = rng.standard_normal((3, 5, 2))
        assert apart(x, z) <= apart(x, y) + apart(y, z) + 1e-7
    x = rng.standard_normal((9, 1))
    both = np.concatenate([x, -x], axis=1) / np.sqrt(2)
    assert apart(x, -x) > apart(x, both) + apart(both, -x) + 0.1
    assert not any(
        repsim.measures.MEASURES[f"permutation_procrustes{end}"].metric for end in ("", "_angle")
    )
