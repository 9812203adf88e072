"""CKA of sampled features: the mean over pairs of features, and the value of the population."""

import numpy as np
import pytest

import repsim
from cases import each
from measures.checks import half, lives_with_its_inputs, refuses, same_gradient, undefined
from reference import hsic, kernels
from reference import subsampled as reference

ESTIMATORS = ("biased", "unbiased")


def related(n, p, q, seed=0):
    """Features of one signal of few directions."""
    rng = np.random.default_rng(seed)
    signal = rng.standard_normal((n, 2))
    x, y = (signal @ rng.standard_normal((2, r)) for r in (p, q))
    return x + 0.3 * rng.standard_normal((n, p)), y + 0.3 * rng.standard_normal((n, q))


def sampled(x, y, estimator="biased"):
    return float(repsim.cka(x, y, estimator=estimator, features="sampled"))


@each("estimator", ESTIMATORS)
@each("shape", [(20, 3, 4), (7, 9, 12)])
@each("dtype", ["float32", "float64"])
def test_values(backend, shape, estimator, dtype):
    if "jax" in backend.name and (
        dtype == "float32" or (estimator == "biased") != backend.compiled
    ):
        pytest.skip("compiling each takes a second")
    x, y = (z.astype(dtype) for z in related(*shape))
    expected = reference.cka(x, y, estimator)
    options = {"estimator": estimator, "features": "sampled"}
    rtol = {"float32": 1e-4, "float64": 1e-10}[dtype]
    lives_with_its_inputs(backend, repsim.cka, x, y, expected, rtol, **options)


@each("estimator", ESTIMATORS)
def test_wide_against_narrow(estimator):
    """One side in Gram form, the other cheaper from features."""
    x, y = related(30, 2, 70, seed=1)
    assert sampled(x, y, estimator) == pytest.approx(reference.cka(x, y, estimator), rel=1e-9)
    assert sampled(y, x, estimator) == pytest.approx(reference.cka(x, y, estimator), rel=1e-9)


def test_an_estimate_just_above_1_stays():
    """It is not a cosine, so this is not rounding; cutting it off would bias the mean."""
    rng = np.random.default_rng(1756)
    signal = rng.standard_normal((8, 2))
    x, y = (signal @ rng.standard_normal((2, 6)) for _ in range(2))
    expected = reference.cka(x, y, "biased")
    assert 1.0007 < expected < 1.0008
    assert sampled(x, y) == pytest.approx(expected, rel=1e-10)


def populations(rng, n, size):
    """Two large populations of features of one signal, with a spectrum that falls off."""
    signal = rng.standard_normal((n, 30)) * np.arange(1, 31) ** -0.5
    shared = signal @ rng.standard_normal((30, size))
    x = shared + 0.5 * rng.standard_normal((n, size))
    return x, signal[:, :10] @ rng.standard_normal((10, size))


def test_the_mean_over_samples_is_the_population():
    """The uncorrected mean is far below, and the corrected one is not, within its spread."""
    rng = np.random.default_rng(0)
    x, y = populations(rng, 60, 3000)
    whole = hsic.cka(kernels.linear(x), kernels.linear(y), "unbiased")
    corrected, plain = [], []
    for _ in range(150):
        a = x[:, rng.choice(3000, 25, replace=False)]
        b = y[:, rng.choice(3000, 25, replace=False)]
        corrected.append(sampled(a, b, "unbiased"))
        plain.append(float(repsim.cka(a, b, estimator="unbiased")))
    spread = np.std(corrected) / np.sqrt(150)
    assert spread < 0.02
    assert np.mean(plain) < whole - 0.1
    # A ratio of unbiased estimates has a bias of order 1/p.
    assert np.mean(corrected) == pytest.approx(whole, abs=4 * spread + 0.02)


def test_two_halves_of_one_population_are_alike():
    rng = np.random.default_rng(1)
    x, _ = populations(rng, 80, 400)
    values = []
    for _ in range(50):
        order = rng.permutation(400)
        values.append(sampled(x[:, order[:40]], x[:, order[40:80]], "unbiased"))
    assert np.mean(values) == pytest.approx(1, abs=0.05)
    assert max(values) > 1  # and not clamped
    # A feature that is on both sides biases it upwards, as the docstring says.
    assert sampled(x[:, :40], x[:, :40], "unbiased") > 1.1


def test_many_features_need_no_correction():
    rng = np.random.default_rng(2)
    x, y = populations(rng, 20, 5000)
    assert sampled(x, y) == pytest.approx(float(repsim.cka(x, y)), rel=0.02)
    assert sampled(x, y) > float(repsim.cka(x, y))


@each("estimator", ESTIMATORS)
def test_invariances(estimator):
    x, y = related(15, 4, 6)
    rng = np.random.default_rng(0)
    out = sampled(x, y, estimator)
    moved = sampled(1e5 * x[:, rng.permutation(4)] + 3, 1e-5 * y[:, ::-1] - 3, estimator)
    assert moved == pytest.approx(out, rel=1e-8)
    assert sampled(y, x, estimator) == pytest.approx(out, rel=1e-12)
    turned = x @ np.linalg.qr(rng.standard_normal((4, 4)))[0]
    assert abs(sampled(turned, y, estimator) - out) > 1e-3


@each("estimator", ESTIMATORS)
@each("scale", [1e8, 1e-8])
def test_scales_and_means_in_float32(scale, estimator):
    x, y = ((z + 30).astype(np.float32) for z in related(25, 6, 40))
    wanted = reference.cka(x, y, estimator)
    assert sampled(x, y, estimator) == pytest.approx(wanted, rel=1e-4)
    assert sampled(np.float32(scale) * x, y, estimator) == pytest.approx(wanted, rel=1e-4)


@each("estimator", ESTIMATORS)
def test_half_precision(estimator):
    half(
        repsim.cka,
        *related(14, 5, 6),
        lambda a, b: reference.cka(a, b, estimator),
        1e-4,
        estimator=estimator,
        features="sampled",
    )


@pytest.mark.slow
def test_gradients():
    same_gradient(repsim.cka, *related(8, 3, 4, 2), estimator="unbiased", features="sampled")


def test_features_with_nothing_in_common():
    """The products of different features are zero or negative, so CKA is undefined."""
    orthogonal = np.zeros((12, 3))
    orthogonal[:4, 0], orthogonal[4:8, 1], orthogonal[8:, 2] = ([1, -1, 1, -1] for _ in range(3))
    noise = next(
        z
        for z in (np.random.default_rng(seed).standard_normal((12, 3)) for seed in range(20))
        if reference.self_term(z, "unbiased") < -0.01
    )
    assert reference.self_term(orthogonal, "biased") == pytest.approx(0, abs=1e-15)
    y = related(12, 3, 4)[1]
    for x, estimator in ((orthogonal, "biased"), (noise, "unbiased")):
        options = {"features": "sampled", "estimator": estimator}
        undefined(lambda a=x, o=options: repsim.cka(a, y, **o), "x", about="too few features")
        undefined(lambda a=x, o=options: repsim.cka(y, a, **o), "y", about="too few features")


@each("estimator", ESTIMATORS)
def test_constant(estimator):
    x, y = np.full((9, 3), 0.1), related(9, 3, 4)[1]
    undefined(
        lambda: repsim.cka(x, y, features="sampled", estimator=estimator), "x", about="constant"
    )
    # A dead feature is one of the sample.
    dead = np.concatenate([y, np.zeros((9, 1))], axis=1)
    other = related(9, 3, 4)[0]
    assert sampled(dead, other, estimator) == pytest.approx(
        reference.cka(dead, other, estimator), rel=1e-9
    )


def test_errors():
    x, y = related(9, 3, 4)
    with refuses(repsim.InputError, "cka: unknown features", "'sampled'", "'some'"):
        repsim.cka(x, y, features="some")
    with refuses(repsim.InputError, "cka: features='sampled' is a correction of linear CKA", "RBF"):
        repsim.cka(x, y, features="sampled", kernel="rbf")
    with refuses(repsim.InputError, "needs at least 2 features", "y: (9, 1)", "p=1"):
        repsim.cka(x, y[:, :1], features="sampled")
    with refuses(repsim.InputError, "given and features='sampled' do not go together"):
        repsim.cka(x, y, features="sampled", given=y)
