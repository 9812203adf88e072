"""Gram matrices against double loops, bandwidths, and what a kernel refuses."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import repsim
from reference import kernels as reference
from reference.data import oracle, related
from repsim.arrays import array_namespace, column_blocks
from repsim.kernels import (
    KERNELS,
    RBF,
    Cosine,
    Kernel,
    Laplacian,
    Linear,
    Polynomial,
    centre_features,
    resolve_kernel,
    squared_distances,
)


def twice_centred(k):
    """HKH."""
    return k - k.mean(0) - k.mean(1)[:, None] + k.mean()


CASES = [
    (Linear(), lambda x: reference.linear(reference.centred(x))),
    (RBF(), reference.rbf),
    (RBF(fraction=0.3), lambda x: reference.rbf(x, 0.3)),
    (RBF(median="off_diagonal"), lambda x: reference.rbf(x, median="off_diagonal")),
    (RBF(sigma=1.7), lambda x: reference.rbf_fixed(x, 1.7)),
    (Laplacian(), reference.laplacian),
    (Laplacian(sigma=1.7), lambda x: reference.laplacian_fixed(x, 1.7)),
    (Polynomial(), reference.polynomial),
    (Polynomial(degree=1), lambda x: reference.polynomial(x, 1)),
    (Polynomial(degree=3, gamma=0.4, coef0=0.5), lambda x: reference.polynomial(x, 3, 0.4, 0.5)),
    (Polynomial(coef0=0.0), lambda x: reference.polynomial(x, coef0=0.0)),
    (Cosine(), lambda x: twice_centred(reference.cosine(x))),
]
NAMES = [repr(kernel) for kernel, _ in CASES]  # a function has its address in its repr
DATA_DRIVEN = [RBF(), RBF(fraction=0.5, median="off_diagonal"), Laplacian()]


@pytest.mark.parametrize(("kernel", "expected"), CASES, ids=NAMES)
@pytest.mark.parametrize("shape", [(5, 1), (11, 40)], ids=str)
def test_gram_of_every_framework(kernel, expected, shape, backend):
    x = related(*shape, 1)[0] + 0.5
    out = backend.call(kernel.gram, x)
    assert backend.owns(out)
    np.testing.assert_allclose(backend.numpy(out), expected(x), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("kernel", "expected"), CASES, ids=NAMES)
@given(n=st.integers(3, 9), p=st.integers(1, 6), seed=st.integers(0, 2**32 - 1))
def test_gram_is_symmetric_and_positive(kernel, expected, n, p, seed):
    x = np.random.default_rng(seed).standard_normal((n, p))
    k = kernel.gram(x)
    np.testing.assert_allclose(k, expected(x), rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(k, k.T, rtol=1e-14, atol=1e-14)
    assert np.linalg.eigvalsh(k).min() >= -1e-12 * np.abs(k).max() * n


@pytest.mark.parametrize("n", [4, 5])
def test_the_two_medians(n):
    """Even and odd counts; the diagonal zeros count, or do not."""
    x = np.arange(n, dtype=float)[:, None] ** 2
    squared = (x - x.T) ** 2
    everything = np.median(squared)
    pairs = np.median(squared[~np.eye(n, dtype=bool)])
    assert everything != pairs
    np.testing.assert_allclose(RBF().gram(x), np.exp(-squared / (2 * everything)), rtol=1e-12)
    np.testing.assert_allclose(
        RBF(median="off_diagonal").gram(x), np.exp(-squared / (2 * pairs)), rtol=1e-12
    )
    distances = np.sqrt(squared)
    median = np.median(distances[~np.eye(n, dtype=bool)])
    np.testing.assert_allclose(Laplacian().gram(x), np.exp(-distances / median), rtol=1e-12)


@pytest.mark.parametrize("kernel", DATA_DRIVEN, ids=repr)
def test_fit_fixes_the_bandwidth(kernel, eager):
    x, y = (eager.array(z) for z in oracle())
    fitted = kernel.fit(x)
    np.testing.assert_allclose(
        eager.numpy(fitted.gram(x)), eager.numpy(kernel.gram(x)), rtol=1e-13, atol=1e-15
    )
    grown = eager.numpy(fitted.gram(3 * x))
    assert np.abs(grown - eager.numpy(kernel.gram(3 * x))).max() > 0.1
    sigma = float(fitted.sigma)
    fixed = type(kernel)(sigma=sigma)
    np.testing.assert_allclose(
        eager.numpy(fitted.gram(y)), eager.numpy(fixed.gram(y)), rtol=1e-13, atol=1e-15
    )
    assert fitted.fit(y) is fitted
    assert kernel.sigma is None


@pytest.mark.parametrize("kernel", [Linear(), Polynomial(), Cosine(), RBF(sigma=1.0)], ids=repr)
def test_fit_of_a_kernel_without_a_bandwidth_to_find(kernel):
    assert kernel.fit(oracle()[0]) is kernel


def test_many_features_come_in_blocks(eager):
    """More columns than one block holds, with a remainder."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((600, 4500)) + 3
    assert len(list(column_blocks(x))) > 2
    rows = x - x.mean(0)
    out = eager.numpy(Linear().gram(eager.array(x)))
    np.testing.assert_allclose(out, rows @ rows.T, atol=1e-10)


@pytest.mark.parametrize("dtype", ["float16", "int8", "bool", "float32"])
@pytest.mark.parametrize("kernel", [case[0] for case in CASES], ids=repr)
def test_gram_promotes(kernel, dtype):
    x = (related(8, 3, 1)[0] * 3).astype(dtype)
    out = kernel.gram(x)
    assert out.dtype == (np.float32 if "float" in dtype else np.float64)
    np.testing.assert_allclose(out, kernel.gram(x.astype(np.float64)), rtol=2e-5, atol=2e-5)


def test_half_precision_inner_products_do_not_overflow():
    x = np.full((4, 100), 60.0, np.float16)
    x[0] = 61
    assert np.isfinite(Polynomial().gram(x)).all()


def test_duplicates_have_distance_zero():
    x = np.repeat(related(10, 5, 1)[0].astype(np.float32), 2, axis=0) + np.float32(1000)
    for kernel in (RBF(), Laplacian()):
        k = kernel.gram(x)
        np.testing.assert_array_equal(k[::2, ::2], k[1::2, 1::2])
        assert (np.diag(k) == 1).all()
        assert (np.diag(k, 1)[::2] == 1).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(5, 57), (17, 57), (33, 1500), (150, 333)], ids=str)
def test_squared_distances_of_duplicates_are_zero_and_none_is_negative(shape, dtype):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    x = np.concatenate([x, x[::-1], x[:3]])
    squared = squared_distances(array_namespace(x), x)
    n = shape[0]
    assert (squared >= 0).all()
    assert (np.diag(squared) == 0).all()
    assert (squared[np.arange(n), np.arange(2 * n - 1, n - 1, -1)] == 0).all()


def test_distances_just_above_rounding_are_kept():
    x = np.random.default_rng(0).standard_normal((20, 50))
    near = x + 1e-6 * np.random.default_rng(1).standard_normal(x.shape)
    squared = squared_distances(array_namespace(x), np.concatenate([x, near]))
    np.testing.assert_allclose(np.diag(squared[:20, 20:]), ((x - near) ** 2).sum(1), rtol=1e-2)


@pytest.mark.parametrize("outlier", [0, 3, 7, 8, 399])
def test_one_sample_far_away_costs_the_other_products_no_digits(outlier):
    """The outlier may be one of the samples that the products are first formed about."""
    x = np.random.default_rng(0).standard_normal((400, 20)).astype(np.float32) + np.float32(50)
    x[outlier] += 1000
    rows = x.astype(np.float64) - x.astype(np.float64).mean(0)
    others = np.arange(400) != outlier
    expected = (rows @ rows.T)[np.ix_(others, others)]
    out = Linear().gram(x)[np.ix_(others, others)]
    # Of the size of the other products, not of the outlier's: those are 10^4 times as large.
    np.testing.assert_allclose(out, expected, atol=64 * 2**-23 * np.abs(expected).max())


def test_cosine_at_extreme_scales():
    x = oracle()[0].astype(np.float32)
    for factor in (1e-30, 1e-8, 1e8, 1e30):
        scaled = x * np.float32(factor)
        expected = twice_centred(reference.cosine(scaled.astype(np.float64) / factor))
        np.testing.assert_allclose(Cosine().gram(scaled), expected, atol=1e-6)


@pytest.mark.parametrize("distance", [30, 300, 3000])
def test_cosines_of_samples_far_from_the_origin_keep_their_digits(distance, eager):
    """All are near 1: at 300 standard deviations, float32 had no digit of their differences."""
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((30, 400)) + distance * rng.standard_normal(400)).astype(np.float32)
    expected = twice_centred(reference.cosine(x.astype(np.float64)))
    found = eager.numpy(Cosine().gram(eager.array(x)))
    unit = np.abs(expected).max()
    np.testing.assert_allclose(found / unit, expected / unit, atol=1e-7 * distance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_samples_of_one_direction_have_equal_cosines(dtype, eager):
    """In float64, rounding of 3000 features was a representation."""
    rng = np.random.default_rng(0)
    for p in (1, 3, 3000):
        x = np.exp(rng.standard_normal((40, 1))) * rng.standard_normal(p)
        assert not eager.numpy(Cosine().gram(eager.array(x.astype(dtype)))).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_centred_features_keep_every_digit(dtype):
    x = np.random.default_rng(0).standard_normal((100, 6)) * 10.0 ** np.arange(6) / 10
    x = (x + 10.0 ** np.arange(6)[::-1]).astype(dtype)
    means = [sum(map(Fraction, column.tolist())) / len(x) for column in x.T]
    exact = np.array(
        [[float(Fraction(float(v)) - m) for v, m in zip(row, means, strict=True)] for row in x]
    )
    out = centre_features(array_namespace(x), x)
    spread = np.abs(exact).max(0)
    np.testing.assert_array_less(np.abs(out - exact).max(0) / spread, 8 * np.finfo(dtype).eps)


@pytest.mark.parametrize("constant", [0.1, 0.3, 1 / 3, 7.7, 1e30])
@pytest.mark.parametrize("n", [2, 37, 100, 1001])
def test_a_constant_column_becomes_exactly_zero(constant, n, eager):
    x = eager.array(np.full((n, 3), constant, np.float32))
    assert not eager.numpy(centre_features(array_namespace(x), x)).any()


def test_names_and_instances():
    assert list(KERNELS) == ["linear", "rbf", "laplacian", "polynomial", "cosine"]
    for name, make in KERNELS.items():
        assert resolve_kernel("cka", name) == make()
        assert isinstance(make(), Kernel)
    kernel = RBF(0.5)
    assert resolve_kernel("cka", kernel) is kernel
    assert RBF() == RBF(fraction=1.0, median="all", sigma=None)
    assert Polynomial() == Polynomial(degree=2, gamma=None, coef0=1.0)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_a_degree_from_a_sweep(degree):
    x, _ = oracle()
    swept = Polynomial(degree=np.arange(4)[degree])
    np.testing.assert_array_equal(swept.gram(x), Polynomial(degree=degree).gram(x))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RBF(fraction=0), ["RBF", "fraction", "positive", "0"]),
        (lambda: RBF(fraction=-1.5), ["RBF", "fraction", "-1.5"]),
        (lambda: RBF(fraction=float("nan")), ["RBF", "fraction", "nan"]),
        (lambda: RBF(median="mean"), ["RBF", "median", "'all'", "'off_diagonal'", "'mean'"]),
        (lambda: RBF(sigma=0.0), ["RBF", "sigma", "positive", "0.0"]),
        (lambda: RBF(sigma=-1), ["RBF", "sigma", "-1"]),
        (lambda: RBF(sigma=1e-200), ["RBF", "sigma", "1e-200"]),  # 2σ² is zero
        (lambda: RBF(sigma=1e200), ["RBF", "sigma", "1e+200"]),  # and here infinite
        (lambda: Laplacian(sigma=1e-310), ["Laplacian", "sigma", "1e-310"]),
        (lambda: Laplacian(sigma=0), ["Laplacian", "sigma", "0"]),
        (lambda: Laplacian(sigma=float("nan")), ["Laplacian", "sigma", "nan"]),
        (lambda: Polynomial(degree=0), ["Polynomial", "degree", "positive integer", "0"]),
        (lambda: Polynomial(degree=1.5), ["Polynomial", "degree", "integer", "1.5"]),
        (lambda: Polynomial(gamma=0.0), ["Polynomial", "gamma", "positive", "0.0"]),
        (lambda: Polynomial(gamma=-2), ["Polynomial", "gamma", "-2"]),
        (lambda: Polynomial(coef0=-0.1), ["Polynomial", "coef0", "at least 0", "-0.1"]),
        (lambda: Polynomial(coef0=float("nan")), ["Polynomial", "coef0", "nan"]),
    ],
)
def test_parameters_that_make_no_kernel(make, words):
    with pytest.raises(repsim.InputError) as caught:
        make()
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("kernel", [RBF(), RBF(median="off_diagonal"), Laplacian()], ids=repr)
def test_a_zero_median_is_an_error(kernel, eager):
    x = eager.array(np.array([[0.0]] * 9 + [[1.0], [2.0]]))
    with pytest.raises(repsim.InputError, match=r"median.*zero") as caught:
        kernel.gram(x)
    message = str(caught.value)
    convention = getattr(kernel, "median", "off_diagonal")
    for word in ("bandwidth", f"median={convention!r}", "n=11", "duplicates", "sigma="):
        assert word in message
    for fixed in (RBF(sigma=1.0), Laplacian(sigma=1.0)):
        assert np.isfinite(eager.numpy(fixed.gram(x))).all()


def test_exactly_half_duplicates_is_no_error():
    # Off the diagonal 12 of 30 ordered pairs are at distance zero: the median is not.
    x = np.array([[0.0]] * 4 + [[1.0], [3.0]])
    assert np.isfinite(RBF(median="off_diagonal").gram(x)).all()
    assert np.isfinite(Laplacian().gram(x)).all()


@pytest.mark.parametrize("kernel", DATA_DRIVEN, ids=repr)
def test_one_sample_far_away_does_not_make_the_others_duplicates(kernel):
    x = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)
    x[0] += 1e5
    expected = kernel.gram(x.astype(np.float64))
    np.testing.assert_allclose(kernel.gram(x), expected, atol=1e-5)


def test_a_bandwidth_that_does_not_follow_names_the_array():
    """More than half of the pairs are duplicates, so the median distance is zero."""
    x, y = related(40, 5, 5)
    x[:30] = x[0]
    streamed = repsim.MinibatchCKA(kernel="rbf")
    for call, named in (
        (lambda: repsim.cka(x, y, kernel="rbf"), "cka: the median distance of x is zero"),
        (lambda: repsim.hsic(y, x, kernel="laplacian"), "hsic: the median distance of y is zero"),
        (lambda: repsim.pairwise({"a": y, "b": x}, kernel="rbf"), r"of xs\['b'\] is zero"),
        (lambda: repsim.cka_matrix({"a": y, "b": x}, kernel="rbf"), r"cka_matrix: .*xs\['b'\]"),
        (lambda: streamed.update({"a": y, "b": x}), "of layer 'b' is zero"),
    ):
        with pytest.raises(repsim.InputError, match=named) as caught:
            call()
        assert "n=40, more than half of the pairs are duplicates" in str(caught.value)
        assert "RBF(sigma=...)" in str(caught.value)
