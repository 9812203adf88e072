"""Exact moments by chance, against every permutation there is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import repsim
from reference import inference as reference
from reference import kernels as grams
from reference.data import oracle, related
from repsim.estimators import ESTIMATORS as BOTH
from repsim.estimators import unbiased_product
from repsim.inference import null_moments
from repsim.kernels import RBF

ESTIMATORS = ("unbiased", "biased")


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(("kernel", "gram"), [("linear", grams.linear), (RBF(), grams.rbf)])
@given(n=st.integers(4, 5), p=st.integers(1, 7), q=st.integers(1, 3), seed=st.integers(0, 10**6))
def test_equal_those_of_all_permutations(estimator, kernel, gram, n, p, q, seed):
    x, y = related(n, p, q, seed)
    y = y**3  # heavy tails: the diagonal of the Gram is far from constant
    every = reference.all_permuted(gram(x), gram(y), estimator)
    moments = null_moments(x, y, kernel=kernel, estimator=estimator)
    assert float(moments.mean) == pytest.approx(every.mean(), abs=1e-10)
    assert float(moments.variance) == pytest.approx(every.var(), rel=1e-8, abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("n", [6, 7])
def test_equal_those_of_all_permutations_of_more_samples(estimator, n):
    x, y = related(n, 3, 2, seed=n)
    k, l = grams.linear(x), grams.linear(y)  # noqa: E741
    every = reference.all_permuted(k, l, estimator)
    moments = null_moments(x, y, estimator=estimator)
    assert float(moments.mean) == pytest.approx(every.mean(), abs=1e-12)
    assert float(moments.variance) == pytest.approx(every.var(), rel=1e-10)


def test_oracle():
    x, y = oracle()
    value = repsim.cka(x, y, estimator="unbiased")
    assert float(null_moments(x, y).z(value)) == pytest.approx(4.0875554902375, rel=1e-12)


def test_unbiased_moments_do_not_depend_on_the_data():
    rng = np.random.default_rng(0)
    for x in (
        rng.standard_normal((20, 1)),
        rng.standard_cauchy((20, 50)),
        np.sign(rng.standard_normal((20, 3))),
    ):
        moments = null_moments(x, x + 1)
        assert (float(moments.mean), float(moments.variance)) == (0.0, 2 / (20 * 17))


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("shape", [(9, 3, 4), (6, 20, 30)])
def test_every_framework(backend, estimator, shape):
    x, y = related(*shape)
    expected = null_moments(x, y, estimator=estimator)

    def moments(x, y):
        found = null_moments(x, y, estimator=estimator)
        return found.mean, found.variance

    dtype = "float32" if shape[1] > shape[0] else "float64"
    found = backend.call(moments, x.astype(dtype), y.astype(dtype))
    for out, value in zip(found, (expected.mean, expected.variance), strict=True):
        assert backend.owns(out)
        assert tuple(out.shape) == ()
        assert backend.dtype(out) == dtype
        rtol = {"float32": 1e-4, "float64": 1e-11}[dtype]
        np.testing.assert_allclose(float(out), float(value), rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_scale_and_mean_do_not_matter(estimator, scale):
    x, y = related(12, 3, 5)
    a, b = (
        null_moments(x, y, estimator=estimator),
        null_moments(scale * (x + 30), scale * y, estimator=estimator),
    )
    np.testing.assert_allclose(
        [float(a.mean), float(a.variance)], [float(b.mean), float(b.variance)], rtol=1e-9
    )


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_constant_is_nan_with_a_warning(estimator):
    x, _ = related(8, 3, 2)
    with pytest.warns(repsim.DegenerateWarning, match="null_moments: y is constant"):
        moments = null_moments(x, np.ones((8, 2)), estimator=estimator)
    assert np.isnan(moments.mean)
    assert np.isnan(moments.variance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nothing_varies_if_every_sample_has_a_feature_of_its_own(dtype):
    # every order of one-hot features has one Gram, so the variance was rounding, often below zero
    for n in range(4, 20):
        x = np.eye(n, dtype=dtype)
        y = np.random.default_rng(n).standard_normal((n, 3)).astype(dtype)
        moments = repsim.inference.null_moments(x, y, estimator="biased")
        assert float(moments.variance) == 0
        assert np.isnan(moments.z(repsim.cka(x, y)))
        test = repsim.permutation_test(x, y, estimator="biased", permutations=9)
        assert (test.null_sd, test.p_value) == (0, 1)
        assert np.isnan(test.z)
        found = repsim.max_t({"x": x}, {"y": y}, estimator="biased", permutations=9)
        assert np.isnan(found.z.item())
        assert (found.p_value.item(), found.p_adjusted.item()) == (1, 1)


def test_products_of_many_samples_are_no_integers_of_a_framework():
    """n(n − 1)(n − 2)(n − 3)(n + 1) does not fit into 64 bits here, and n⁴ not into 32."""
    torch = pytest.importorskip("torch")
    x, y = np.random.default_rng(0).standard_normal((2, 7000, 2))
    expected = null_moments(x, y, estimator="biased")
    moments = null_moments(torch.tensor(x), torch.tensor(y), estimator="biased")
    assert moments.variance.item() == pytest.approx(expected.variance, rel=1e-9)
    jax = pytest.importorskip("jax")
    one = jax.numpy.ones((), "float32")
    for estimator in BOTH.values():
        assert (one / estimator.divisor(50_000)).dtype == one.dtype
    assert float(unbiased_product(50_000, one, one, one, one)) == pytest.approx(0, abs=1e-3)


@pytest.mark.slow
def test_cca_and_moments_of_jax_without_float64():
    jax = pytest.importorskip("jax")
    x, y = np.random.default_rng(0).standard_normal((2, 260, 30)).astype(np.float32)
    a, b = jax.numpy.asarray(x), jax.numpy.asarray(y)
    expected = null_moments(x, y, estimator="biased").variance
    assert float(null_moments(a, b, estimator="biased").variance) == pytest.approx(
        float(expected), rel=1e-3
    )
    with pytest.warns(repsim.ChanceWarning):
        out = repsim.cca(a, b)
    with pytest.warns(repsim.ChanceWarning):
        assert float(out) == pytest.approx(float(repsim.cca(x, y)), rel=1e-4)


def test_fewer_than_four_samples():
    x, y = related(3, 2, 2)
    with pytest.raises(repsim.InputError, match="needs at least 4 samples"):
        null_moments(x, y, estimator="biased")
    with pytest.raises(repsim.InputError, match="unknown estimator"):
        null_moments(x, y, estimator="debiased")
