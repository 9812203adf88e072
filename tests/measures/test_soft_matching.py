"""Soft matching: all pairings of few features, copies, and derivatives at a fixed plan."""

import numpy as np
import pytest

import repsim
from cases import each
from measures.checks import half, lives_with_its_inputs, refuses, undefined
from reference import matching as reference
from reference.data import oracle, related

SCORES = {"distance": reference.distance, "correlation": reference.correlation}


def test_oracle():
    assert float(repsim.soft_matching(*oracle())) == pytest.approx(1.9541145072725, abs=1e-12)


@each("score", SCORES)
@each("dtype", ["float32", "float64"])
@each("shape", [(9, 4, 4), (9, 2, 3), (9, 2, 4)])
def test_values(eager, score, dtype, shape):
    if eager.name == "jax" and (shape != (9, 2, 3) or dtype == "float32"):
        pytest.skip("every shape and dtype is compiled again; one is enough")
    x, y = (z.astype(dtype) for z in related(*shape))
    rtol = {"float32": 1e-5, "float64": 1e-11}[dtype]
    expected = SCORES[score](x, y)
    lives_with_its_inputs(eager, repsim.soft_matching, x, y, expected, rtol, score=score)


def copied(x, y):
    """Equal numbers of copied features of x and y, so the plan is an assignment."""
    p, q = x.shape[1], y.shape[1]
    return np.repeat(x, q, axis=1), np.repeat(y, p, axis=1)


@each("score", SCORES)
@each("shape", [(5, 6), (6, 5), (7, 8), (11, 13)])
def test_assignment_and_linear_programme_agree(shape, score):
    """The linear programme is used where lcm(p, q) is larger than 4 max(p, q)."""
    x, y = related(20, *shape)
    out = float(repsim.soft_matching(x, y, score=score))
    assert out == pytest.approx(float(repsim.soft_matching(*copied(x, y), score=score)), rel=1e-9)


@each("scale", [1e-9, 1e-4, 1.0])
def test_the_linear_programme_at_any_scale(scale):
    """The solver's tolerances are absolute, and all correlations here are of this size."""
    a, b = related(20, 11, 13)
    a, b = a - a.mean(0), b - b.mean(0)
    x, y = np.concatenate([a, scale * a[:, ::-1]]), np.concatenate([scale * b, b])
    out = float(repsim.soft_matching(x, y, score="correlation"))
    wanted = float(repsim.soft_matching(*copied(x, y), score="correlation"))
    assert abs(wanted) > scale / 10
    assert out == pytest.approx(wanted, rel=1e-5)


@each("score", SCORES)
def test_order_and_copies_of_features(score):
    x, y = related(15, 4, 6)
    rng = np.random.default_rng(0)
    out = float(repsim.soft_matching(x, y, score=score))
    shuffled = repsim.soft_matching(x[:, rng.permutation(4)] + 5, y[:, ::-1] - 2, score=score)
    assert float(shuffled) == pytest.approx(out, abs=1e-10)
    doubled = repsim.soft_matching(np.concatenate([x, x, x], axis=1), y, score=score)
    assert float(doubled) == pytest.approx(out, abs=1e-10)
    assert float(repsim.soft_matching(y, x, score=score)) == pytest.approx(out, abs=1e-10)
    turned = x @ np.linalg.qr(rng.standard_normal((4, 4)))[0]
    assert abs(float(repsim.soft_matching(turned, y, score=score)) - out) > 1e-3


def test_equal_representations():
    x, _ = related(30, 6, 2)
    for dtype in ("float32", "float64"):
        a = (x + 30).astype(dtype)
        assert float(repsim.soft_matching(a, a[:, ::-1])) == 0
        assert float(repsim.soft_matching(a, a, score="correlation")) == pytest.approx(1, abs=1e-6)
    scaled = x * np.linspace(0.1, 9, 6) + 1
    assert float(repsim.soft_matching(x, scaled, score="correlation")) == pytest.approx(1)
    assert float(repsim.soft_matching(x, scaled)) > 1


def test_triangle_inequality():
    rng = np.random.default_rng(0)
    for _ in range(30):
        x, y, z = (rng.standard_normal((6, p)) for p in rng.integers(1, 6, 3))
        sides = [float(repsim.soft_matching(a, b)) for a, b in ((x, y), (y, z), (x, z))]
        assert 2 * max(sides) <= sum(sides) + 1e-9


@each("score", SCORES)
@each(
    ("dtype", "scale"), [("float32", 1e8), ("float32", 1e-8), ("float64", 1e15), ("float64", 1e-15)]
)
def test_scale(score, dtype, scale):
    x, y = (z.astype(dtype) for z in related(10, 3, 4))
    a, b = ((z * np.asarray(scale, dtype)).astype(dtype) for z in (x, y))
    expected = float(repsim.soft_matching(x, y, score=score))
    out = float(repsim.soft_matching(a, b, score=score))
    factor = scale if score == "distance" else 1
    assert out == pytest.approx(factor * expected, rel=1e-5)


@each("score", SCORES)
def test_a_large_mean_in_float32(score):
    x, y = ((z + 1e4).astype(np.float32) for z in related(20, 4, 3))
    out = float(repsim.soft_matching(x, y, score=score))
    wanted = float(repsim.soft_matching(x.astype(float), y.astype(float), score=score))
    assert out == pytest.approx(wanted, rel=1e-6)


@each("score", SCORES)
def test_half_precision(score):
    half(repsim.soft_matching, *related(12, 2, 3), SCORES[score], 1e-5, score=score)


@each("score", SCORES)
def test_gradient_at_the_best_pairing(score):
    torch = pytest.importorskip("torch")
    x, y = (torch.tensor(z, requires_grad=True) for z in related(8, 3, 4, 2))
    assert torch.autograd.gradcheck(
        lambda a, b: repsim.soft_matching(a, b, score=score), (x, y), fast_mode=True
    )


def test_traced_values_cannot_be_paired():
    jax = pytest.importorskip("jax")
    for transform in (jax.jit, jax.grad):
        with refuses(repsim.ArrayTypeError, "soft_matching: x must have values", "jax.jit"):
            transform(repsim.soft_matching)(*map(jax.numpy.asarray, related(8, 3, 4)))


def test_constant_features(eager):
    if eager.name == "jax":
        pytest.skip("the registry's tests cover it")
    x, y = related(9, 3, 3)
    x[:, 1] = 0.7
    a, b = eager.array(x), eager.array(y)
    undefined(
        lambda: repsim.soft_matching(a, b, score="correlation"), "x", about="constant feature"
    )
    undefined(
        lambda: repsim.soft_matching(b, a, score="correlation"), "y", about="constant feature"
    )
    assert float(repsim.soft_matching(a, b)) == pytest.approx(reference.distance(x, y))


def test_one_feature_of_each():
    x, y = related(9, 1, 1)
    expected = np.linalg.norm((x - x.mean()) - (y - y.mean()))
    assert float(repsim.soft_matching(x, y)) == pytest.approx(expected)
    r = np.corrcoef(x[:, 0], y[:, 0])[0, 1]
    assert float(repsim.soft_matching(x, y, score="correlation")) == pytest.approx(r)


def test_errors():
    x, y = related(9, 3, 4)
    with refuses(repsim.InputError, "soft_matching: unknown score", "'correlation'", "'cosine'"):
        repsim.soft_matching(x, y, score="cosine")
    with refuses(repsim.InputError, "at least 2 samples"):
        repsim.soft_matching(x[:1], y[:1])
