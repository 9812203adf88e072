"""Correlation match: all pairings of few features, and features without a correlation."""

import numpy as np
import pytest

import repsim
from cases import each
from measures.checks import half, lives_with_its_inputs, refuses, same_gradient, undefined
from reference import matching as reference
from reference.data import oracle, related

SCORES = ("hard", "soft")


@each(("score", "expected"), [("hard", 0.8242857850), ("soft", 0.7901321601)])
def test_oracle(score, expected):
    out = repsim.correlation_match(*oracle(), score=score)
    assert float(out) == pytest.approx(expected, abs=1e-10)
    assert reference.correlation_match(*oracle(), score) == pytest.approx(expected, abs=1e-10)


@each("score", SCORES)
def test_values(backend, score):
    if backend.compiled and score == "hard":
        pytest.skip("the pairing needs values")
    for p, q in ((4, 6), (5, 3)):
        x, y = related(12, p, q)
        expected = reference.correlation_match(x, y, score)
        run = repsim.correlation_match
        lives_with_its_inputs(backend, run, x, y, expected, 1e-10, score=score)


def test_features_may_be_scaled_one_by_one():
    x, y = related(12, 3, 4)
    for score in SCORES:
        expected = float(repsim.correlation_match(x, y, score=score))
        out = float(repsim.correlation_match(x * [1e-200, 3.0, 1e100], y, score=score))
        assert out == pytest.approx(expected, rel=1e-12)


def test_the_wider_side_may_have_spare_features():
    x, y = related(30, 3, 2)
    wide = np.concatenate([y, 2 * x[:, [1, 2, 0]]], axis=1)
    assert float(repsim.correlation_match(x, wide)) == pytest.approx(1, rel=1e-12)
    assert float(repsim.correlation_match(x, wide, score="soft")) < 1
    assert float(repsim.correlation_match(x, -x)) < 0.9


@each("score", SCORES)
def test_half_precision(score):
    def expected(a, b):
        return reference.correlation_match(a, b, score)

    half(repsim.correlation_match, *related(12, 3, 4), expected, 1e-6, score=score)


def test_gradients():
    x, y = related(8, 3, 4, 2)
    same_gradient(repsim.correlation_match, x, y, score="soft")
    torch = pytest.importorskip("torch")
    a, b = (torch.tensor(z, requires_grad=True) for z in (x, y))
    assert torch.autograd.gradcheck(repsim.correlation_match, (a, b), fast_mode=True)


def test_traced_values_cannot_be_paired():
    jax = pytest.importorskip("jax")
    with refuses(repsim.ArrayTypeError, "correlation_match: x must have values", "jax.jit"):
        jax.jit(repsim.correlation_match)(*map(jax.numpy.asarray, related(8, 3, 4)))


def test_constant_features():
    x, y = related(9, 3, 4)
    x[:, 1] = 0.7
    for score in SCORES:

        def call(a, b, score=score):
            return lambda: repsim.correlation_match(a, b, score=score)

        undefined(call(x, y), "x", about="constant feature")
        undefined(call(y, x), "y", about="constant feature")


def test_errors():
    x, y = related(9, 3, 4)
    with refuses(repsim.InputError, "correlation_match: unknown score", "'soft'", "'mean'"):
        repsim.correlation_match(x, y, score="mean")
    with refuses(repsim.InputError, "correlation_match", "at least 2 samples"):
        repsim.correlation_match(x[:1], y[:1])
