"""Each test is a defect of another package that concerns arrays."""

import numpy as np
import pytest

import repsim
from cases import each
from reference import hsic as reference
from reference import kernels as grams
from reference.data import related, rounding

EPS = 2**-23
ESTIMATORS = ("biased", "unbiased")


def linear(x):
    return grams.linear(grams.centred(x))


@each("shape", [(128, 64, 48), (64, 200, 100)])
def test_raw_grams_cancel_when_features_have_a_mean(eager, shape):
    """Every torch package: a true .584 became .0, -1.75 or complex at mean/sigma = 30."""
    x, y = related(*shape)
    x, y = ((z / z.std(0) + 30).astype(np.float32) for z in (x, y))
    for estimator in ESTIMATORS:
        expected = reference.cka(linear(x), linear(y), estimator)
        assert 0.1 < expected < 0.9
        out = eager.call(repsim.cka, x, y, estimator=estimator)
        assert float(out) == pytest.approx(expected, abs=rounding(EPS, max(shape)))


def test_one_feature_of_many_far_from_zero(eager):
    """Every torch package: one feature at 300 of 768, as in real transformers, .449 -> 1.0."""
    x, y = related(64, 768, 768)
    x, y = x / x.std(0), y / y.std(0)
    x[:, 5] += 300
    y[:, 11] += 300
    x, y = x.astype(np.float32), y.astype(np.float32)
    for kernel, gram in (("linear", linear), ("rbf", grams.rbf), ("laplacian", grams.laplacian)):
        for estimator in ESTIMATORS:
            expected = reference.cka(gram(x), gram(y), estimator)
            if kernel == "linear":
                assert expected < 0.97  # not close to the 1.0 of a cancelled Gram
            out = eager.call(repsim.cka, x, y, kernel=kernel, estimator=estimator)
            assert float(out) == pytest.approx(expected, abs=1e-5)


@each("factor", [1e5, 1e-5, 0.03])
def test_the_product_of_self_similarities_overflows(factor, eager):
    """pytorch-cka, thingsvision, cka-pytorch, platonic-rep: features x 1e5, self-CKA 0."""
    for shape in ((64, 8, 8), (16, 60, 60)):
        x = (related(*shape)[0] * factor).astype(np.float32)
        for estimator in ESTIMATORS:
            out = eager.call(repsim.cka, x, x, estimator=estimator)
            assert float(out) == pytest.approx(1, abs=4 * EPS)


@each("factor", [0.03, 1e-3, 1e-6])
def test_an_epsilon_in_the_denominator(factor):
    """The same four: epsilon = 1e-4 gives a self-CKA of .02 at scale .03."""
    x, y = related(50, 6, 7)
    k, l = factor * x @ x.T, factor * y @ y.T  # noqa: E741
    for estimator in ESTIMATORS:
        expected = float(repsim.cka(x, y, estimator=estimator))
        scaled = repsim.cka(factor * x, factor * y, estimator=estimator)
        assert float(scaled) == pytest.approx(expected, rel=1e-12)
        assert float(repsim.cka_from_gram(k, l, estimator=estimator)) == pytest.approx(
            expected, rel=1e-11
        )
        assert float(repsim.cka(factor * x, factor * x, estimator=estimator)) == pytest.approx(
            1, rel=1e-14
        )


def test_negatives_are_not_clamped():
    """pytorch-cka: the mean over independent data was .020, should be .0055."""
    rng = np.random.default_rng(0)
    values = [
        float(
            repsim.cka(
                rng.standard_normal((16, 5)), rng.standard_normal((16, 5)), estimator="unbiased"
            )
        )
        for _ in range(300)
    ]
    error = np.sqrt(2 / (16 * 13) / 300)
    assert abs(np.mean(values)) < 4 * error
    assert np.mean(np.maximum(values, 0)) > 4 * error  # what clamping would have made of it
    assert min(values) < -0.05
    dependences = [
        float(
            repsim.hsic(
                rng.standard_normal((16, 5)), rng.standard_normal((16, 5)), estimator="unbiased"
            )
        )
        for _ in range(50)
    ]
    assert min(dependences) < 0


@each("dtype", ["float16", "bfloat16"])
@each("offset", [0, 10])
def test_half_precision_with_an_offset(dtype, offset):
    """pytorch-cka: float16 gave NaN, bfloat16 with an offset 1.0000."""
    torch = pytest.importorskip("torch")
    x, y = (torch.tensor(z + offset).to(getattr(torch, dtype)) for z in related(64, 200, 100))
    for estimator in ESTIMATORS:
        out = float(repsim.cka(x, y, estimator=estimator))
        wide = (z.to(torch.float64).numpy() for z in (x, y))
        expected = reference.cka(*map(linear, wide), estimator)
        assert expected < 0.9
        assert out == pytest.approx(expected, abs=rounding(EPS, 200))


@each("scale", [0.01, 1, 100])
def test_rbf_of_independent_data_is_not_one(scale):
    """thingsvision: an absolute sigma = 1 makes every sample similar to itself alone."""
    rng = np.random.default_rng(0)
    x, y = scale * rng.standard_normal((50, 20)), scale * rng.standard_normal((50, 20))
    assert float(repsim.cka(x, y, kernel="rbf")) < 0.6
    assert abs(float(repsim.cka(x, y, kernel="rbf", estimator="unbiased"))) < 0.1
    absolute = repsim.cka(100 / scale * x, 100 / scale * y, kernel=repsim.kernels.RBF(sigma=1.0))
    assert float(absolute) > 0.999  # as its docstring warns


def test_translation_changes_nothing():
    """anatome: .739 -> .702 under translation (there of CCA)."""
    x, y = related(40, 5, 6)
    for estimator in ESTIMATORS:
        before = float(repsim.cka(x, y, estimator=estimator))
        moved = repsim.cka(x + 10, y - 3 * np.arange(6), estimator=estimator)
        assert float(moved) == pytest.approx(before, rel=1e-12)


def test_every_sample_counts():
    """ckatorch: only the last batch counted, the first 48 of 64 samples could be replaced."""
    x, y = related(64, 5, 6)
    for estimator in ESTIMATORS:
        for kernel in grams.KERNELS:
            before = float(repsim.cka(x, y, kernel=kernel, estimator=estimator))
            for row in (0, 31, 63):
                other = x.copy()
                other[row] = -x[row] + 1
                after = float(repsim.cka(other, y, kernel=kernel, estimator=estimator))
                assert abs(after - before) > 1e-6


@each("n", [1, 2, 3])
def test_three_samples_are_an_error_and_not_nan(n):
    """torch-cka, pytorch-cka, cka-pytorch: raised somewhere, or NaN."""
    x, y = related(10, 3, 4)
    with pytest.raises(repsim.InputError, match="at least 4 samples"):
        repsim.cka(x[:n], y[:n], estimator="unbiased")


def test_nan_is_named_where_it_arises():
    """torch-cka: every error was reported as "HSIC computation resulted in NANs"."""
    x, y = related(10, 3, 4)
    y[6, 1] = np.nan
    with pytest.raises(repsim.NonFiniteError, match=r"y must be finite[\s\S]*row 6"):
        repsim.cka(x, y)


def test_error_messages_can_be_formatted():
    """netrep: the formatting of the error message itself raised."""
    braces = np.array([["{0}", "%s"]] * 5)
    with pytest.raises(repsim.ArrayTypeError, match="must hold real numbers"):
        repsim.cka(braces, braces)
    with pytest.raises(repsim.InputError, match=r"got '\{0\} %s'"):
        repsim.cka(np.eye(5), np.eye(5), kernel="{0} %s")
    with pytest.raises(repsim.ArrayTypeError, match=r"x: builtins\.dict"):
        repsim.cka({"{": 1}, np.eye(5))
