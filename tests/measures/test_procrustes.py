"""Procrustes distance and normalised Bures similarity: values, both shapes, derivatives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import repsim
from cases import each
from measures.checks import right_gradient, same_gradient
from reference import shape
from reference.data import oracle, related

NORMS = ("none", "unit")


def test_values():
    x, y = oracle()
    assert float(repsim.nbs(x, y)) == pytest.approx(0.8358734303439, rel=1e-13)
    assert float(repsim.procrustes(x, y)) == pytest.approx(2.7018932121968, rel=1e-13)
    unit = repsim.procrustes(x, y, norm="unit")
    assert float(unit) == pytest.approx(0.57293380011324, rel=1e-13)


@given(
    n=st.integers(2, 30),
    p=st.integers(1, 40),
    q=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
    exponent=st.integers(-15, 15),
)
def test_against_the_explicit_rotation(n, p, q, seed, exponent):
    x, y = related(n, p, q, seed)
    y = y + 3
    assert float(repsim.nbs(x * 10.0**exponent, y)) == pytest.approx(shape.nbs(x, y), abs=1e-7)
    for norm in NORMS:
        # A distance near zero is the root of a difference of squares.
        size = np.linalg.norm(x) + np.linalg.norm(y) if norm == "none" else 1.0
        value = float(repsim.procrustes(x, y, norm=norm))
        assert value == pytest.approx(shape.procrustes(x, y, norm), rel=1e-7, abs=2e-7 * size)
        unit = 10.0**exponent if norm == "none" else 1.0
        scaled = repsim.procrustes(x * 10.0**exponent, y * 10.0**exponent, norm=norm)
        assert float(scaled) == pytest.approx(value * unit, rel=1e-7, abs=2e-7 * size * unit)


def test_narrow_and_wide_take_different_ways_to_one_value():
    """From n features on, the configuration is first turned into n - 1 coordinates."""
    x, y = related(12, 5, 7, 1)
    for width in (5, 11, 12, 40):
        wide = np.concatenate([x, np.zeros((12, width - 5))], axis=1)
        turned = wide @ np.linalg.qr(np.random.default_rng(0).standard_normal((width, width)))[0]
        assert float(repsim.nbs(turned, y)) == pytest.approx(float(repsim.nbs(x, y)), rel=1e-12)
        assert float(repsim.procrustes(y, turned)) == pytest.approx(
            float(repsim.procrustes(y, x)), rel=1e-12
        )


@each("dtype", ["float32", "float64"])
@each("size", [(20, 4), (8, 30)])
def test_twins_are_at_distance_zero(dtype, size, eager):
    n, p = size
    x = related(n, p, p)[0].astype(dtype)
    order = np.random.default_rng(0).permutation(p)
    a, b = eager.array(x), eager.array(x[:, order])
    for norm in NORMS:
        assert float(repsim.procrustes(a, a, norm=norm)) == 0
        assert float(repsim.procrustes(a, b, norm=norm)) == 0
    assert float(repsim.nbs(a, b)) == pytest.approx(1, abs=1e-6)


def test_a_constant_is_a_point_of_the_unnormalised_space(eager):
    x, y = related(15, 3, 4)
    x[:] = 0.3
    a, b = eager.array(x), eager.array(y)
    norm = np.linalg.norm(y - y.mean(0))
    assert float(repsim.procrustes(a, b)) == pytest.approx(norm, rel=1e-12)
    assert float(repsim.procrustes(b, a)) == pytest.approx(norm, rel=1e-12)
    assert float(repsim.procrustes(a, a)) == 0
    for call in (repsim.nbs, lambda u, v: repsim.procrustes(u, v, norm="unit")):
        with pytest.warns(repsim.DegenerateWarning, match=r": x is constant") as caught:
            assert np.isnan(float(call(a, b)))
        assert len(caught) == 1
        with pytest.warns(repsim.DegenerateWarning, match=r": y is constant"):
            assert np.isnan(float(call(b, a)))


@each("scale", [1e-30, 1e-8, 1e8, 1e30])
def test_scales_of_float32(scale, eager):
    x, y = (z.astype(np.float32) for z in related(15, 3, 4))
    expected = shape.nbs(x.astype(float), y.astype(float))
    small = x * np.float32(scale)
    assert float(repsim.nbs(eager.array(small), eager.array(y))) == pytest.approx(
        expected, rel=2e-6
    )
    distance = shape.procrustes(x.astype(float), y.astype(float)) * scale
    out = repsim.procrustes(eager.array(small), eager.array(y * np.float32(scale)))
    assert float(out) == pytest.approx(distance, rel=2e-6)
    if scale in (1e-30, 1e30):  # the smaller one is a point
        norm = np.linalg.norm(y - y.mean(0)) if scale < 1 else np.linalg.norm(x - x.mean(0)) * scale
        out = repsim.procrustes(eager.array(small), eager.array(y))
        assert float(out) == pytest.approx(float(norm), rel=1e-5)


def test_squares_out_of_range():
    x, y = related(15, 3, 4)
    expected = shape.procrustes(x, y)
    for scale in (1e-200, 1e200):
        assert float(repsim.procrustes(scale * x, scale * y)) == pytest.approx(
            scale * expected, rel=1e-12
        )


def test_unknown_norm():
    x, y = related(10, 3, 4)
    for bad in ("frobenius", None, True, 1):
        with pytest.raises(repsim.InputError, match=r"procrustes: unknown norm.\n.*'none', 'unit'"):
            repsim.procrustes(x, y, norm=bad)


@each("size", [(9, 3, 4), (9, 4, 3), (7, 9, 12), (7, 3, 12)])
@each(
    "function",
    [
        repsim.nbs,
        repsim.procrustes,
        lambda a, b: repsim.procrustes(a, b, norm="unit"),
    ],
)
def test_gradients(function, size):
    right_gradient(function, *related(*size, 2))


@pytest.mark.slow
@each("size", [(9, 3, 4), (7, 9, 12)])
def test_gradients_of_jax_agree(size):
    same_gradient(repsim.procrustes, *related(*size, 2))


def test_the_gradient_at_distance_zero_is_zero():
    torch = pytest.importorskip("torch")
    x = torch.tensor(related(9, 3, 4)[0], requires_grad=True)
    for norm in NORMS:
        (gradient,) = torch.autograd.grad(repsim.procrustes(x, x.detach(), norm=norm), x)
        np.testing.assert_array_equal(gradient.numpy(), 0)
