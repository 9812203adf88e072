"""The norm of the difference of distance matrices: values, scales and gradients."""

import numpy as np
import pytest

import repsim
from cases import each
from measures.checks import half, lives_with_its_inputs, refuses, right_gradient, same_gradient
from reference import rdm as reference
from reference.data import oracle, related

NORMS = ("spectral", "frobenius")


@each(("norm", "expected"), [("spectral", 5.0902807320), ("frobenius", 7.7792322195)])
def test_oracle(norm, expected):
    out = repsim.rsm_norm_difference(*oracle(), norm=norm)
    assert float(out) == pytest.approx(expected, abs=1e-10)
    assert reference.norm_difference(*oracle(), norm) == pytest.approx(expected, abs=1e-9)


@each("norm", NORMS)
def test_values(backend, norm):
    x, y = related(12, 5, 7)
    expected = reference.norm_difference(x, y, norm)
    lives_with_its_inputs(backend, repsim.rsm_norm_difference, x, y, expected, 1e-9, norm=norm)


@each("norm", NORMS)
def test_half_precision(norm):
    x, y = related(12, 6, 5)

    def expected(a, b):
        return reference.norm_difference(a, b, norm)

    half(repsim.rsm_norm_difference, x, y, expected, 1e-5, norm=norm)


def test_scales():
    x, y = related(10, 5, 4)
    expected = float(repsim.rsm_norm_difference(x, y))
    for scale in (1e-200, 1e200):
        out = float(repsim.rsm_norm_difference(scale * x, scale * y))
        assert out == pytest.approx(scale * expected, rel=1e-12)
    tiny = float(repsim.rsm_norm_difference(1e-200 * x, y))
    assert tiny == pytest.approx(float(repsim.rsm_norm_difference(0 * x, y)), rel=1e-12)


def test_gradients():
    x, y = related(6, 3, 4, 2)
    same_gradient(repsim.rsm_norm_difference, x, y)
    right_gradient(repsim.rsm_norm_difference, x, y, norm="frobenius")
    torch = pytest.importorskip("torch")
    for norm in NORMS:
        a = torch.tensor(x, requires_grad=True)
        repsim.rsm_norm_difference(a, torch.tensor(x), norm=norm).backward()
        assert bool(torch.isfinite(a.grad).all())


def test_a_constant_has_a_value():
    y = related(9, 3, 4)[1]
    x = np.full((9, 3), 0.1)
    out = float(repsim.rsm_norm_difference(x, y, norm="frobenius"))
    assert out == pytest.approx(np.linalg.norm(reference.distances(y)), rel=1e-12)


def test_errors():
    x, y = related(9, 4, 5)
    with refuses(repsim.InputError, "rsm_norm_difference: unknown norm", "'spectral'", "'nuclear'"):
        repsim.rsm_norm_difference(x, y, norm="nuclear")
    with refuses(repsim.InputError, "rsm_norm_difference", "at least 2 samples"):
        repsim.rsm_norm_difference(x[:1], y[:1])
