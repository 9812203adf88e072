"""Aligned cosine: another way to the rotation, rows without a direction, and lost directions."""

import numpy as np
import pytest

import repsim
from measures.checks import half, lives_with_its_inputs, refuses, same_gradient, undefined
from reference import shape as reference
from reference.data import oracle, related


def test_oracle():
    assert float(repsim.aligned_cosine(*oracle())) == pytest.approx(0.7963555702, abs=1e-10)
    assert reference.aligned_cosine(*oracle()) == pytest.approx(0.7963555702, abs=1e-7)


def test_values(backend):
    x, y = related(12, 4, 5)
    expected = reference.aligned_cosine(x, y)
    lives_with_its_inputs(backend, repsim.aligned_cosine, x, y, expected, 1e-7)


def test_more_features_than_samples():
    x, y = related(6, 4, 3)
    rng = np.random.default_rng(0)
    expected = float(repsim.aligned_cosine(x, y))
    for width in (5, 9, 40):
        wide = x @ np.linalg.qr(rng.standard_normal((width, 4)))[0].T
        assert float(repsim.aligned_cosine(wide, y)) == pytest.approx(expected, rel=1e-10)
        assert float(repsim.aligned_cosine(y, wide)) == pytest.approx(expected, rel=1e-10)


def test_each_row_counts_alike_at_any_scale():
    x = related(9, 3, 4)[0]
    tiny = x * np.where(np.arange(9) == 4, 1e-200, 1.0)[:, None]
    assert float(repsim.aligned_cosine(tiny, x)) == pytest.approx(1, rel=1e-12)


def test_directions_that_no_rotation_is_known_for_add_nothing():
    """The second feature of x is orthogonal to y, so any rotation of it is equally good."""
    x = np.array([[1.0, 1.0], [1.0, -1.0], [1.0, 1.0], [1.0, -1.0]])
    y = np.array([[1.0, 1.0], [1.0, 1.0], [1.0, -1.0], [1.0, -1.0]])
    for sign in (1, -1):
        out = float(repsim.aligned_cosine(x * [1, sign], y))
        assert out == pytest.approx(0.5, rel=1e-12)


def test_small_directions_beside_clusters_that_are_far_apart():
    """In xᵀy their singular values are squares: 1e-10 of the largest, and yet not rounding."""
    for far in (1e2, 1e3, 1e5):
        x, y = related(40, 4, 5)
        shift = far * (np.arange(40)[:, None] % 2)
        x, y = ((z + shift * z[:1]).astype(np.float32) for z in (x, y))
        expected = reference.aligned_cosine(x.astype(np.float64), y.astype(np.float64))
        assert float(repsim.aligned_cosine(x, y)) == pytest.approx(expected, abs=1e-6), far


def test_directions_that_are_left_out_give_a_warning_if_they_matter():
    x, y = related(40, 4, 5)
    shift = 1e6 * (np.arange(40)[:, None] % 2)
    x, y = (z + shift * z[:1] for z in (x, y))
    exact = repsim.aligned_cosine(x, y)
    with pytest.warns(repsim.RepsimWarning, match="x and y vary in some directions by so little"):
        out = repsim.aligned_cosine(x.astype(np.float32), y.astype(np.float32))
    assert abs(float(out) - float(exact)) > 1e-2


def test_features_that_are_nearly_orthogonal_have_one_value_traced_or_not():
    torch = pytest.importorskip("torch")
    x, y = related(40, 4, 5)
    y -= x @ np.linalg.lstsq(x, y)[0]
    y += 1e-5 * x @ related(4, 4, 5, seed=1)[1]
    expected = reference.aligned_cosine(x, y)
    x, y = (torch.tensor(z, dtype=torch.float32) for z in (x, y))
    for out in (repsim.aligned_cosine(x, y), torch.vmap(repsim.aligned_cosine)(x[None], y[None])):
        assert out.item() == pytest.approx(expected, abs=1e-4)


def test_half_precision():
    half(repsim.aligned_cosine, *related(12, 4, 5), reference.aligned_cosine, 1e-6)


def test_gradients():
    same_gradient(repsim.aligned_cosine, *related(7, 3, 4, 2))


def test_rows_of_zeros():
    x, y = related(9, 3, 4)
    x[4] = 0
    undefined(lambda: repsim.aligned_cosine(x, y), "x", about="row of zeros")
    undefined(lambda: repsim.aligned_cosine(y, x), "y", about="row of zeros")


def test_errors():
    x, y = related(9, 4, 5)
    with refuses(repsim.InputError, "aligned_cosine", "at least 2 samples"):
        repsim.aligned_cosine(x[:1], y[:1])
