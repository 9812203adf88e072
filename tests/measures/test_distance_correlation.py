"""Distance correlation: values of two references, and dependence without correlation."""

import numpy as np
import pytest

import repsim
from cases import each
from measures.checks import (
    half,
    lives_with_its_inputs,
    refuses,
    right_gradient,
    same_gradient,
    undefined,
)
from reference import rdm as reference
from reference.data import oracle, related

EXPECTED = {"biased": reference.distance_correlation, "unbiased": reference.bias_corrected}
ESTIMATORS = list(EXPECTED)


@each(("estimator", "expected"), [("biased", 0.82133744062886), ("unbiased", 0.68445031183707)])
def test_oracle(estimator, expected):
    out = repsim.distance_correlation(*oracle(), estimator=estimator)
    assert float(out) == pytest.approx(expected, abs=1e-12)
    assert EXPECTED[estimator](*oracle()) == pytest.approx(expected, abs=1e-12)


@each("estimator", ESTIMATORS)
@each("dtype", ["float32", "float64"])
def test_values(backend, estimator, dtype):
    if backend.name == "jax" and dtype == "float32":
        pytest.skip("every dtype is compiled again; the registry's tests have both")
    if backend.compiled and dtype == "float32":
        pytest.skip("compiling each takes a second; eager jax covers the dtypes")
    x, y = (z.astype(dtype) for z in related(12, 5, 7))
    lives_with_its_inputs(
        backend,
        repsim.distance_correlation,
        x,
        y,
        EXPECTED[estimator](x, y),
        {"float32": 1e-5, "float64": 1e-11}[dtype],
        estimator=estimator,
    )


@each("estimator", ESTIMATORS)
@each("p", [1, 40])
def test_one_and_many_features(estimator, p):
    x, y = related(10, p, 3)
    out = repsim.distance_correlation(x, y, estimator=estimator)
    assert float(out) == pytest.approx(EXPECTED[estimator](x, y), abs=1e-12)


def test_it_detects_nonlinear_dependence():
    x = np.linspace(-1, 1, 201)[:, None]
    assert abs(float(repsim.cka(x, x**2, estimator="unbiased"))) < 0.01
    assert float(repsim.distance_correlation(x, x**2, estimator="unbiased")) > 0.2


def test_mean_over_independent_data():
    """Unbiased values lie on both sides of zero; with many features biased values are far above."""
    rng = np.random.default_rng(0)
    values = {estimator: [] for estimator in ESTIMATORS}
    for _ in range(200):
        x, y = rng.standard_normal((10, 30)), rng.standard_normal((10, 30))
        for estimator, out in values.items():
            out.append(float(repsim.distance_correlation(x, y, estimator=estimator)))
    spread = np.std(values["unbiased"]) / np.sqrt(200)
    assert abs(np.mean(values["unbiased"])) < 4 * spread
    assert min(values["unbiased"]) < -0.1
    assert np.mean(values["biased"]) > 0.8


@each("estimator", ESTIMATORS)
@each("mean", [30, 1e4])
def test_a_large_mean_in_float32(eager, mean, estimator):
    if eager.name == "jax" and mean == 30:
        pytest.skip("the larger one is harder")
    x, y = ((z + mean).astype(np.float32) for z in related(20, 6, 7))
    out = repsim.distance_correlation(eager.array(x), eager.array(y), estimator=estimator)
    assert float(out) == pytest.approx(EXPECTED[estimator](x, y), abs=1e-5)


@each("estimator", ESTIMATORS)
@each(
    ("dtype", "scale"), [("float32", 1e8), ("float32", 1e-8), ("float64", 1e15), ("float64", 1e-15)]
)
def test_scale_does_not_matter(dtype, scale, estimator):
    x, y = (z.astype(dtype) for z in related(10, 5, 4))
    expected = float(repsim.distance_correlation(x, y, estimator=estimator))
    big = (x * np.asarray(scale, dtype)).astype(dtype)
    out = float(repsim.distance_correlation(big, y, estimator=estimator))
    assert out == pytest.approx(expected, abs=1e-6)


@each("estimator", ESTIMATORS)
def test_half_precision(estimator):
    x, y = related(12, 6, 5)
    half(repsim.distance_correlation, x, y, EXPECTED[estimator], 1e-6, estimator=estimator)


@each("estimator", ESTIMATORS)
def test_gradients(estimator):
    check = same_gradient if estimator == "unbiased" else right_gradient
    check(repsim.distance_correlation, *related(6, 3, 4, 2), estimator=estimator)


@each("estimator", ESTIMATORS)
def test_duplicates(estimator):
    x, y = related(8, 5, 6)
    rows = [*range(8), 0, 0, 3]
    x, y = x[rows], y[rows]
    out = repsim.distance_correlation(x, y, estimator=estimator)
    assert float(out) == pytest.approx(EXPECTED[estimator](x, y), abs=1e-12)
    torch = pytest.importorskip("torch")
    a = torch.tensor(x, requires_grad=True)
    repsim.distance_correlation(a, torch.tensor(y), estimator=estimator).backward()
    assert bool(torch.isfinite(a.grad).all())


@each("estimator", ESTIMATORS)
@each("value", [0.0, 0.1, 7.7])
def test_constant(value, estimator):
    x = np.full((37, 3), value, np.float32)
    y = related(37, 3, 4)[1].astype(np.float32)

    def call(a, b):
        return lambda: repsim.distance_correlation(a, b, estimator=estimator)

    undefined(call(x, y), "x", about="constant")
    undefined(call(y, x), "y", about="constant")
    undefined(call(x, x), "x", "y", about="constant")


def test_equal_distances_are_a_constant_to_the_unbiased_estimator():
    y = related(7, 3, 4)[1]
    undefined(
        lambda: repsim.distance_correlation(np.eye(7), y, estimator="unbiased"),
        "x",
        about="constant",
    )
    assert 0 < float(repsim.distance_correlation(np.eye(7), y)) < 1


def test_constant_under_jit():
    jax = pytest.importorskip("jax")
    run = jax.jit(repsim.distance_correlation)
    assert np.isnan(float(run(np.full((9, 3), 0.1), related(9, 3, 4)[1])))


def test_errors():
    x, y = related(9, 4, 5)
    with refuses(repsim.InputError, "distance_correlation: unknown estimator", "'unbiased'"):
        repsim.distance_correlation(x, y, estimator="corrected")
    with refuses(repsim.InputError, "distance_correlation", "at least 2 samples"):
        repsim.distance_correlation(x[:1], y[:1])
    with refuses(repsim.InputError, "unbiased", "at least 4 samples"):
        repsim.distance_correlation(x[:3], y[:3], estimator="unbiased")
