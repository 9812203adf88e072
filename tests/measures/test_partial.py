"""Partial CKA: the formula of partial correlations, and undefined values."""

import math

import numpy as np
import pytest

import repsim
from cases import each
from measures.checks import half, lives_with_its_inputs, refuses, same_gradient, undefined
from reference import hsic, kernels
from reference.data import oracle, related

ESTIMATORS = ("biased", "unbiased")


def third(n, r=5, seed=9):
    return np.random.default_rng(seed).standard_normal((n, r))


def sharing(n, seed=0):
    """Three representations that have something in common."""
    x, y = related(n, 4, 5, seed)
    return x, y, x[:, :3] + y[:, 1:4] + 0.5 * third(n, 3)


def expected(x, y, z, estimator, gram=kernels.linear):
    """(c_xy − c_xz c_yz)/√((1 − c_xz²)(1 − c_yz²)) of the reference's CKAs."""
    if gram is kernels.linear:
        x, y, z = map(kernels.centred, (x, y, z))
    k, l, m = map(gram, (x, y, z))  # noqa: E741
    xy, xz, yz = (hsic.cka(a, b, estimator) for a, b in ((k, l), (k, m), (l, m)))
    return (xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2))


@each("estimator", ESTIMATORS)
@each("dtype", ["float32", "float64"])
def test_values(backend, estimator, dtype):
    if "jax" in backend.name and (
        dtype == "float32" or (estimator == "biased") != backend.compiled
    ):
        pytest.skip("compiling each takes a second")
    x, y, z = (a.astype(dtype) for a in sharing(12))
    lives_with_its_inputs(
        backend,
        repsim.cka,
        x,
        y,
        expected(x, y, z, estimator),
        {"float32": 1e-4, "float64": 1e-10}[dtype],
        estimator=estimator,
        given=backend.array(z),
    )


@each("estimator", ESTIMATORS)
@each("kernel", ["rbf", "laplacian", "polynomial", "cosine"])
def test_every_kernel(kernel, estimator):
    x, y, z = sharing(12)
    out = float(repsim.cka(x, y, kernel=kernel, estimator=estimator, given=z))
    wanted = expected(x, y, z, estimator, kernels.KERNELS[kernel])
    assert out == pytest.approx(wanted, abs=1e-10)


@each("estimator", ESTIMATORS)
def test_the_oracle_given_its_own_columns(estimator):
    x, y = oracle()
    out = float(repsim.cka(x, y, estimator=estimator, given=y[:, :2]))
    assert out == pytest.approx(expected(x, y, y[:, :2], estimator), abs=1e-12)
    swapped = float(repsim.cka(y, x, estimator=estimator, given=y[:, :2]))
    assert swapped == pytest.approx(out, abs=1e-12)


@each("n", [30, 300])
def test_similarity_that_comes_from_the_third_is_removed(n):
    rng = np.random.default_rng(0)
    z = rng.standard_normal((n, 6))
    x, y = (z + 0.5 * rng.standard_normal((n, 6)) for _ in range(2))
    assert float(repsim.cka(x, y, estimator="unbiased")) > 0.5
    assert abs(float(repsim.cka(x, y, estimator="unbiased", given=z))) < 3 / math.sqrt(n)
    own = rng.standard_normal((n, 6))
    x, y = x + own, y + own
    assert float(repsim.cka(x, y, estimator="unbiased", given=z)) > 0.3


def test_itself():
    x, y, z = sharing(12)
    assert float(repsim.cka(x, 3 * x + 1, given=z)) == pytest.approx(1, abs=1e-12)
    assert float(repsim.cka(x, y, given=z)) < 1


@each("estimator", ESTIMATORS)
def test_invariances_of_all_three(estimator):
    x, y, z = sharing(12)
    before = float(repsim.cka(x, y, given=z, estimator=estimator))
    rng = np.random.default_rng(0)
    moved = [
        1e3 * a @ np.linalg.qr(rng.standard_normal((a.shape[1],) * 2))[0] - 7 for a in (x, y, z)
    ]
    after = float(repsim.cka(*moved[:2], given=moved[2], estimator=estimator))
    assert after == pytest.approx(before, abs=1e-9)


@each("scale", [1e8, 1e-8])
def test_scales_and_means_in_float32(scale):
    x, y, z = ((a + 30).astype(np.float32) for a in sharing(40))
    wanted = expected(x, y, z, "unbiased")
    out = repsim.cka(np.float32(scale) * x, y, given=z / np.float32(scale), estimator="unbiased")
    assert float(out) == pytest.approx(wanted, abs=1e-4)


def test_half_precision():
    x, y, z = sharing(14)
    torch = pytest.importorskip("torch")
    half(
        lambda a, b: repsim.cka(a, b, given=torch.tensor(z, dtype=torch.float32)),
        x,
        y,
        lambda a, b: expected(a, b, z, "biased"),
        1e-4,
    )


def test_gradients():
    x, y, z = sharing(7)
    torch = pytest.importorskip("torch")

    def value(a, b):
        given = torch.tensor(z) if isinstance(a, torch.Tensor) else z
        if not isinstance(a, torch.Tensor):
            import jax.numpy as jnp

            given = jnp.asarray(z)
        return repsim.cka(a, b, given=given)

    same_gradient(value, x, y)
    c = torch.tensor(z, requires_grad=True)
    a, b = torch.tensor(x), torch.tensor(y)
    assert torch.autograd.gradcheck(lambda s: repsim.cka(a, b, given=s), (c,), fast_mode=True)


@each("estimator", ESTIMATORS)
@each("dtype", ["float32", "float64"])
def test_nothing_left(estimator, dtype):
    x, y, _ = (a.astype(dtype) for a in sharing(12))
    turned = (5 * x @ np.linalg.qr(third(4, 4))[0]).astype(dtype)

    def call(a, b):
        return lambda: repsim.cka(a, b, given=turned, estimator=estimator)

    undefined(call(x, y), "x", about="same centred Gram matrix as given")
    undefined(call(y, x), "y", about="same centred Gram matrix as given")


def test_constants():
    x, y, z = sharing(12)
    flat = np.full((12, 3), 0.1)
    undefined(lambda: repsim.cka(flat, y, given=z), "x", about="constant")
    undefined(lambda: repsim.cka(x, flat, given=z), "y", about="constant")
    undefined(lambda: repsim.cka(x, y, given=flat), "given", "given", about="constant")


def test_nothing_given_is_cka():
    x, y, _ = sharing(12)
    assert float(repsim.cka(x, y, given=None)) == float(repsim.cka(x, y))


def test_pairwise():
    x, y, z = sharing(12)
    for estimator in ("biased", "unbiased"):
        out = repsim.pairwise({"a": x, "b": y}, estimator=estimator, given=z)
        expected = float(repsim.cka(x, y, estimator=estimator, given=z))
        assert float(out.sel(layer_x="a", layer_y="b")) == pytest.approx(expected, abs=1e-12)


def test_errors():
    x, y, z = sharing(12)
    torch = pytest.importorskip("torch")
    with refuses(repsim.InputError, "cka: x and given must describe the same samples", "n=11"):
        repsim.cka(x, y, given=z[:-1])
    with refuses(repsim.ArrayTypeError, "cka: x and given must belong to one framework"):
        repsim.cka(x, y, given=torch.tensor(z))
    with refuses(repsim.ArrayTypeError, "cka: given must be an array"):
        repsim.cka(x, y, given=z.tolist())
    with refuses(repsim.InputError, "cka: given must be samples by features"):
        repsim.cka(x, y, given=z[:, 0])
    z[3, 1] = np.inf
    with refuses(repsim.NonFiniteError, "cka: given must be finite", "row 3"):
        repsim.cka(x, y, given=z)
