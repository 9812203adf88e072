"""Angles between shapes and between Grams: values, the family of α, derivatives."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import repsim
from cases import each
from measures.checks import right_gradient, same_gradient
from reference import canonical, shape
from reference.data import oracle, related

ALPHAS = (0.0, 0.25, 0.5, 0.9, 1.0)


def test_values():
    x, y = oracle()
    assert float(repsim.shape_distance(x, y)) == pytest.approx(0.58107429067252, rel=1e-13)
    assert float(repsim.angular_cka(x, y)) == pytest.approx(0.7693218739242, rel=1e-13)


@given(
    n=st.integers(20, 40),
    p=st.integers(1, 8),
    q=st.integers(1, 8),
    seed=st.integers(0, 2**32 - 1),
    alpha=st.sampled_from(ALPHAS),
)
def test_against_the_explicit_rotation(n, p, q, seed, alpha):
    x, y = related(n, p, q, seed)
    value = float(repsim.shape_distance(x, y, alpha=alpha))
    assert value == pytest.approx(shape.shape_distance(x, y, alpha), rel=1e-7)


def test_the_ends_of_the_family():
    x, y = related(30, 5, 3, 1)
    assert float(repsim.shape_distance(x, y)) == pytest.approx(
        math.acos(float(repsim.nbs(x, y))), rel=1e-12
    )
    # Whitened: the sum of the correlations over the root of both ranks.
    cosine = 3 * canonical.cca(x, y) / math.sqrt(5 * 3)
    assert float(repsim.shape_distance(x, y, alpha=0)) == pytest.approx(math.acos(cosine), rel=1e-9)
    near = float(repsim.shape_distance(x, y, alpha=1e-7))
    assert near == pytest.approx(float(repsim.shape_distance(x, y, alpha=0.0)), abs=1e-5)
    near = float(repsim.shape_distance(x, y, alpha=1 - 1e-7))
    assert near == pytest.approx(float(repsim.shape_distance(x, y)), abs=1e-5)


def test_a_part_of_whitening_depends_on_the_scale():
    """The formula adds units to pure numbers; the docstring says so."""
    x, y = related(30, 5, 3, 1)
    half = [float(repsim.shape_distance(c * x, y, alpha=0.5)) for c in (1, 10)]
    assert abs(half[0] - half[1]) > 1e-3
    assert half[1] == pytest.approx(shape.shape_distance(10 * x, y, 0.5), rel=1e-9)
    for alpha in (0.0, 1.0):
        ends = [float(repsim.shape_distance(c * x, y, alpha=alpha)) for c in (1, 10)]
        assert ends[0] == pytest.approx(ends[1], rel=1e-12)
    # Far below 1 the features are whitened, and far above 1 they are as they are.
    for scale, alpha in ((1e-300, 0.0), (1e300, 1.0)):
        mixed = float(repsim.shape_distance(scale * x, scale * y, alpha=0.5))
        expected = float(repsim.shape_distance(x, y, alpha=alpha))
        assert mixed == pytest.approx(expected, rel=1e-12)


@each("alpha", ALPHAS)
def test_columns_that_are_sums_of_others(alpha):
    """A direction without variance has none after whitening either."""
    x, y = related(30, 4, 3, 1)
    q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((7, 7)))
    wide = np.concatenate([x, np.zeros((30, 3))], axis=1) @ q
    expected = float(repsim.shape_distance(x, y, alpha=alpha))
    assert float(repsim.shape_distance(wide, y, alpha=alpha)) == pytest.approx(expected, rel=1e-9)
    assert float(repsim.shape_distance(y, wide, alpha=alpha)) == pytest.approx(expected, rel=1e-9)


@each("alpha", ALPHAS)
@each("dtype", ["float32", "float64"])
def test_twins_are_at_angle_zero(alpha, dtype, eager):
    x = eager.array((related(20, 4, 3)[0] + 30).astype(dtype))
    assert float(repsim.shape_distance(x, x, alpha=alpha)) == 0
    assert float(repsim.angular_cka(x, x)) == 0
    assert float(repsim.angular_cka(x, 3 * x - 1)) == pytest.approx(0, abs=2e-3)


def at_angle(angle):
    """Two representations of one feature each, at this angle."""
    z = np.random.default_rng(0).standard_normal((12, 2))
    u, v = np.linalg.qr(z - z.mean(0))[0].T
    return u[:, None] + 7, (math.cos(angle) * u + math.sin(angle) * v)[:, None] - 3


@each("angle", [1e-5, 1e-3, 0.3, 1.0, 1.5, math.pi / 2])
def test_the_angle_of_single_features(angle):
    x, y = at_angle(angle)
    rel = 1e-4 if angle == 1e-5 else 1e-8  # the digits that the rounding of 1 - cosine leaves
    assert float(repsim.shape_distance(x, y)) == pytest.approx(angle, rel=rel)
    chord = 2 * math.sin(angle / 2)
    assert float(repsim.procrustes(x, y, norm="unit")) == pytest.approx(chord, rel=rel)
    expected = math.acos(math.cos(angle) ** 2)
    assert float(repsim.angular_cka(x, y)) == pytest.approx(expected, rel=rel)


def test_rounding_above_one_is_an_angle_of_zero():
    functions = (
        repsim.shape_distance,
        repsim.angular_cka,
        lambda x, y: repsim.procrustes(x, y, norm="unit"),
    )
    for seed in range(20):
        x = related(9, 3, 3, seed)[0] * 10.0 ** (seed - 10)
        for function in functions:
            assert float(function(x, x.copy())) == 0
            assert float(function(x, 2 * x)) == 0


@each(
    "function",
    [repsim.procrustes, repsim.soft_matching, repsim.shape_distance, repsim.angular_cka],
)
def test_the_derivative_at_equal_representations_is_zero(function):
    torch = pytest.importorskip("torch")
    x = torch.tensor(related(9, 3, 3)[0], requires_grad=True)
    function(x, x.detach().clone()).backward()
    assert not x.grad.any()


def test_two_samples_are_at_no_angle():
    """Two centred samples span one direction, on which all features agree up to the sign."""
    x, y = related(2, 3, 4)
    assert float(repsim.shape_distance(x, y)) == pytest.approx(0, abs=1e-7)
    u, v = (np.diff(z, axis=0).ravel() for z in (x, y))
    lengths = (np.linalg.norm(u) - np.linalg.norm(v)) / math.sqrt(2)
    assert float(repsim.procrustes(x + 7, y - 5)) == pytest.approx(abs(lengths), rel=1e-9)


@each("alpha", ALPHAS)
def test_degenerate(alpha):
    a, b = np.full((10, 3), 0.1), related(10, 3, 4)[1]
    with pytest.warns(repsim.DegenerateWarning, match="shape_distance: x is constant") as caught:
        assert np.isnan(float(repsim.shape_distance(a, b, alpha=alpha)))
    assert len(caught) == 1
    wide = related(10, 9, 3)[0]
    if alpha == 0:
        with pytest.warns(repsim.DegenerateWarning, match="shape_distance: y spans all 9"):
            assert np.isnan(float(repsim.shape_distance(b, wide, alpha=alpha)))
    else:
        assert 0 < float(repsim.shape_distance(b, wide, alpha=alpha)) < math.pi / 2


def test_alpha_is_checked():
    x, y = related(10, 3, 4)
    for bad in (-0.1, 1.1, "1", None, True, math.nan):
        with pytest.raises(repsim.InputError, match=r"shape_distance: alpha must be"):
            repsim.shape_distance(x, y, alpha=bad)


@each("kernel", ["linear", "rbf", "cosine"])
@each("estimator", ["biased", "unbiased"])
def test_angular_cka_is_the_arccosine_of_cka(kernel, estimator):
    x, y = related(12, 3, 4)
    options = {"kernel": kernel, "estimator": estimator}
    expected = math.acos(float(repsim.cka(x, y, **options)))
    assert float(repsim.angular_cka(x, y, **options)) == pytest.approx(expected, rel=1e-9)


@each("function", [repsim.angular_cka, repsim.shape_distance, repsim.procrustes])
def test_small_distances_of_float32_have_the_digits_of_float32(function):
    """The rounding of a cosine near 1, or of a square, would become its root."""
    x = related(40, 6, 6)[0].astype(np.float32)
    y = x + np.float32(1e-3) * related(40, 6, 6, 1)[1].astype(np.float32)
    expected = float(function(x.astype(float), y.astype(float)))
    assert 0 < expected < 0.1
    assert float(function(x, y)) == pytest.approx(expected, rel=1e-6)
    assert function(x, y).dtype == np.float32


def test_angular_cka_names_itself():
    with pytest.raises(repsim.InputError, match=r"angular_cka: unknown estimator"):
        repsim.angular_cka(*oracle(), estimator="debiased")
    with pytest.raises(repsim.InputError, match=r"angular_cka: unknown kernel"):
        repsim.angular_cka(*oracle(), kernel="gaussian")
    with pytest.raises(repsim.InputError, match=r"angular_cka: the unbiased estimator needs"):
        repsim.angular_cka(*(z[:3] for z in oracle()), estimator="unbiased")
    with pytest.warns(repsim.DegenerateWarning, match=r"angular_cka: x is constant"):
        assert np.isnan(float(repsim.angular_cka(np.ones((6, 2)), oracle()[1][:6])))


GRADIENTS = [
    (repsim.shape_distance, {}, (9, 3, 4)),
    (repsim.shape_distance, {}, (7, 9, 12)),
    (repsim.shape_distance, {"alpha": 0.5}, (9, 3, 4)),
    (repsim.shape_distance, {"alpha": 0.0}, (9, 3, 4)),
    (repsim.angular_cka, {}, (9, 3, 4)),
]


@each(("function", "options", "shape"), GRADIENTS)
def test_gradients(function, options, shape):
    right_gradient(function, *related(*shape, 2), **options)


@pytest.mark.slow
@each(("function", "options", "shape"), GRADIENTS)
def test_gradients_of_jax_agree(function, options, shape):
    same_gradient(function, *related(*shape, 2), compiled=False, **options)


def test_the_gradient_at_angle_zero_is_zero():
    torch = pytest.importorskip("torch")
    x = torch.tensor(related(9, 3, 4)[0], requires_grad=True)
    for function in (repsim.shape_distance, repsim.angular_cka):
        (gradient,) = torch.autograd.grad(function(x, x.detach()), x)
        np.testing.assert_array_equal(gradient.numpy(), 0)
