"""Effective dimension: values, the floor of biased CKA that it explains, and a constant."""

import numpy as np
import pytest

import repsim
from measures.checks import refuses, undefined
from reference.data import oracle, related
from reference.statistics import effective_dimension as reference


def test_oracle():
    for x, expected in zip(oracle(), (1.8131833619, 2.2697752710), strict=True):
        assert float(repsim.effective_dimension(x)) == pytest.approx(expected, abs=1e-10)
        assert reference(x) == pytest.approx(expected, abs=1e-10)


def test_values(backend):
    for shape in ((12, 5), (6, 30)):
        for dtype, digits in (("float64", 1e-11), ("float32", 1e-5)):
            x = related(*shape, 3)[0].astype(dtype)
            out = backend.call(repsim.effective_dimension, x)
            assert backend.owns(out)
            assert tuple(out.shape) == ()
            assert backend.dtype(out) == dtype
            assert float(out) == pytest.approx(reference(x), rel=digits)


def test_a_large_mean_and_extreme_scales():
    x = related(20, 6, 7)[0]
    expected = float(repsim.effective_dimension(x))
    for other in (1e-200 * x, 1e200 * x, x + 1e7):
        assert float(repsim.effective_dimension(other)) == pytest.approx(expected, rel=1e-7)
    far = (x + 1e3).astype(np.float32)
    assert float(repsim.effective_dimension(far)) == pytest.approx(reference(far), rel=1e-5)


def test_it_gives_the_floor_of_biased_cka():
    x, y = related(9, 20, 30)
    dimensions = float(repsim.effective_dimension(x)) * float(repsim.effective_dimension(y))
    assert float(repsim.chance_floor(x, y)) == pytest.approx(dimensions**0.5 / 8, rel=1e-12)


def test_half_precision_and_integers():
    x = np.rint(8 * related(12, 4, 3)[0])
    for dtype, result in (("float16", "float32"), ("int64", "float64")):
        out = repsim.effective_dimension(x.astype(dtype))
        assert out.dtype == result
        assert float(out) == pytest.approx(reference(x), rel=1e-6)


def test_gradients():
    torch = pytest.importorskip("torch")
    for shape in ((7, 3), (4, 9)):
        x = torch.tensor(related(*shape, 2)[0], requires_grad=True)
        assert torch.autograd.gradcheck(repsim.effective_dimension, (x,), fast_mode=True)


def test_constant():
    undefined(lambda: repsim.effective_dimension(np.full((9, 3), 0.1)), "x", about="constant")


def test_errors():
    x = related(9, 4, 5)[0]
    with refuses(repsim.InputError, "effective_dimension", "at least 2 samples"):
        repsim.effective_dimension(x[:1])
    with refuses(repsim.NonFiniteError, "effective_dimension: x must be finite"):
        repsim.effective_dimension(np.where(x == x.max(), np.nan, x))
    with refuses(repsim.ArrayTypeError, "effective_dimension"):
        repsim.effective_dimension([[1.0, 2.0]])
