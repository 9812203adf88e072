"""The jackknife against deleting samples one by one, and the coverage of its interval."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm as normal

import repsim
from reference import inference as reference
from reference import kernels as grams
from reference.data import oracle, related
from repsim import DegenerateWarning, InputError, jackknife
from repsim.kernels import Polynomial


def parts(labels):
    """The rows of every label, in the order of first appearance."""
    return [[i for i, a in enumerate(labels) if a == b] for b in dict.fromkeys(labels)]


def test_oracle():
    found = jackknife(*oracle())
    assert found.value == pytest.approx(0.69092298280263, rel=1e-12)
    assert found.standard_error == pytest.approx(0.20788363004989, rel=1e-11)
    assert [found.low, found.high] == pytest.approx([0.13118847943, 0.91662564857], abs=1e-10)


@given(
    n=st.integers(5, 9),
    p=st.integers(1, 6),
    q=st.integers(1, 12),
    seed=st.integers(0, 10**6),
    rbf=st.booleans(),
)
def test_equals_deleting_each_sample(n, p, q, seed, rbf):
    x, y = related(n, p, q, seed)
    x = x + 30  # the Gram of the linear kernel must not lose digits to the mean
    gram = (lambda z: grams.rbf(z, 1.0)) if rbf else grams.linear
    k, l = gram(x), gram(y)  # noqa: E741
    left, error = reference.jackknife(k, l, [[i] for i in range(n)])
    found = jackknife(x, y, kernel="rbf" if rbf else "linear")
    np.testing.assert_allclose(found.replicates, left, rtol=1e-6, atol=1e-9)
    assert found.standard_error == pytest.approx(error, rel=1e-6, abs=1e-9)
    plain = math.sqrt((n - 1) / n * ((left - left.mean()) ** 2).sum())
    assert found.standard_error == pytest.approx(plain, rel=1e-6, abs=1e-9)


@given(
    sizes=st.lists(st.integers(1, 4), min_size=3, max_size=6).filter(
        lambda sizes: sum(sizes) - max(sizes) >= 4 and sum(sizes) >= 5
    ),
    seed=st.integers(0, 10**6),
)
def test_equals_deleting_each_group(sizes, seed):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))  # not neighbours
    x, y = related(len(labels), 3, 5, seed)
    groups = parts(labels.tolist())
    left, error = reference.jackknife(grams.linear(x), grams.linear(y), groups)
    found = jackknife(x, y, groups=labels)
    np.testing.assert_allclose(found.replicates, left, rtol=1e-6, atol=1e-9)
    assert found.standard_error == pytest.approx(error, rel=1e-6, abs=1e-9)
    assert (found.n_groups, found.n_samples) == (len(sizes), len(labels))


def test_groups_of_one_are_no_groups():
    x, y = related(12, 3, 4)
    one, none = jackknife(x, y, groups=[f"image {i}" for i in range(12)]), jackknife(x, y)
    np.testing.assert_allclose(one.replicates, none.replicates, rtol=1e-12)
    assert one.standard_error == pytest.approx(none.standard_error, rel=1e-9)
    assert [one.low, one.high] == pytest.approx([none.low, none.high], rel=1e-9)


def test_copies_within_groups_need_groups():
    # 20 samples, five times each with a little noise, carry the information of 20 samples.
    rng = np.random.default_rng(0)
    x, y = (np.repeat(z, 5, axis=0) for z in related(20, 4, 4))
    x, y = (z + 0.01 * rng.standard_normal(z.shape) for z in (x, y))
    whole = jackknife(x, y, groups=np.repeat(np.arange(20), 5))
    assert whole.standard_error > 1.8 * jackknife(x, y).standard_error


def test_every_framework(eager):
    x, y = related(14, 3, 20)
    labels = np.repeat(np.arange(7), 2)
    a, b = (eager.array(z.astype("float32")) for z in (x, y))
    found = jackknife(a, b, groups=eager.array(labels))
    expected = jackknife(x, y, groups=labels)
    assert type(found.value) is float
    for name in ("value", "standard_error", "low", "high"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-4)


def test_level_and_repr():
    x, y = oracle()
    narrow, wide = jackknife(x, y, level=0.5), jackknife(x, y, level=0.99)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high < 1
    assert narrow.value in narrow
    assert wide.low - 0.01 not in wide
    assert repr(narrow).startswith("Interval(cka=0.6909 ± 0.2079, 50% in [0.5")
    assert "99.9% in [" in repr(jackknife(*oracle(), level=0.999))
    # artanh: the interval is symmetric on Fisher's scale
    ends = np.arctanh([wide.low, wide.value, wide.high])
    assert ends[1] - ends[0] == pytest.approx(ends[2] - ends[1], rel=1e-9)


def test_nearly_alike():
    """The interval is as wide as that of artanh where 1 − value is 1e-2, and where it is 1e-6."""
    x, other = np.random.default_rng(0).standard_normal((2, 40, 4))
    for noise in (0.1, 1e-3):
        found = jackknife(x, x + noise * other)
        left = 1 - found.value
        assert 0.1 * noise**2 < left < 10 * noise**2
        assert found.low < found.value < found.high < 1
        ratio = np.exp(normal.ppf(0.975) * found.standard_error / left)
        np.testing.assert_allclose(
            [1 - found.low, 1 - found.high], [left * ratio, left / ratio], rtol=0.2
        )


def test_the_difference_of_two_representations():
    x, y = related(16, 4, 3)
    z = x[:, :2] + np.random.default_rng(1).standard_normal((16, 2))

    def difference(rows):
        one, other = (repsim.cka(u[rows], y[rows], estimator="unbiased") for u in (x, z))
        return float(one - other)

    uneven = np.repeat(np.arange(5), [2, 3, 4, 3, 4])
    for groups in (None, uneven):
        labels = np.arange(16) if groups is None else groups
        found = jackknife(x, y, minus=z, groups=groups)
        expected = [difference(labels != label) for label in np.unique(labels)]
        np.testing.assert_allclose(found.replicates, expected, atol=1e-10)
        assert found.value == pytest.approx(difference(labels >= 0))
        assert found.measure == "cka difference"
        turned = jackknife(z, y, minus=x, groups=groups)
        assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))
        assert found.high - found.value == pytest.approx(1.959964 * found.standard_error)
        expected = 2 * normal.sf(abs(found.value) / found.standard_error)
        assert found.p_value == turned.p_value == pytest.approx(expected)
        # The interval of the level 1 − p ends at zero.
        at = jackknife(x, y, minus=z, groups=groups, level=1 - found.p_value)
        assert min(abs(at.low), abs(at.high)) == pytest.approx(0, abs=1e-9)
        assert f", p_value={found.p_value:.4g})" in repr(found)
    even = jackknife(x, y, minus=z)
    spread = np.var(even.replicates) * 15
    assert even.standard_error == pytest.approx(math.sqrt(spread))
    same = jackknife(x, y, minus=2 * x)
    assert (same.low, same.high) == pytest.approx((0, 0), abs=1e-12)
    assert (same.p_value, 0 in same) == (1, True)
    assert math.isnan(jackknife(x, y).p_value)
    assert "p_value" not in repr(jackknife(x, y))
    single = jackknife(x.astype(np.float32), y.astype(np.float32), minus=z)
    assert single.value == pytest.approx(even.value, abs=1e-6)
    for bad, match in (
        (z[:9], "x and minus must describe the same samples"),
        (np.where(z > 1, np.nan, z), r"minus must be finite(.|\n)*drop those rows from all arrays"),
    ):
        with pytest.raises(InputError, match=match):
            jackknife(x, y, minus=bad)
    with pytest.warns(repsim.DegenerateWarning, match="minus"):
        nothing = jackknife(x, y, minus=0 * x)
    assert np.isnan([nothing.value, nothing.p_value]).all()


def test_rounding_is_no_difference():
    """A difference of 7e-16 had an error of 1e-16, so zero was outside the interval."""
    rng = np.random.default_rng(0)
    for n, p in ((20, 4), (1000, 300)):
        for _ in range(2):
            x = rng.standard_normal((n, p))
            y, turn = x + rng.standard_normal((n, p)), rng.standard_normal((p, p))
            found = jackknife(x, y, minus=x @ np.linalg.qr(turn)[0])
            assert (found.value, found.p_value, 0 in found) == (0, 1, True)


def test_the_same_has_no_error():
    x, _ = related(20, 4, 4)
    found = jackknife(x, 2 * x - 1)
    assert found.standard_error == pytest.approx(0, abs=1e-9)
    assert (found.low, found.high) == (found.value, found.value)
    assert found.value == pytest.approx(1)


def test_the_same_but_for_one_sample():
    x, _ = related(20, 4, 4)
    y = x.copy()
    y[3] = -2 * y[3]
    found = jackknife(x, y)  # without sample 3 the CKA is 1, which has no artanh
    assert found.replicates[3] == pytest.approx(1, abs=1e-12)
    assert 0 < found.low < found.value < found.high < 1


def test_coverage_is_about_the_level():
    # The population: x and y share half of the variance of 4 white features, CKA = 1/4.
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        causes = rng.standard_normal((80, 4))
        x, y = (causes + rng.standard_normal((80, 4)) for _ in range(2))
        hits += 0.25 in jackknife(x, y, level=0.9)
    # Binomial(200, .9): below 162 or above 197 once in 10 000 each.
    assert 162 <= hits <= 197


@pytest.mark.parametrize("kernel", ["linear", Polynomial(degree=2)])
@pytest.mark.parametrize("grouped", [False, True])
def test_an_outlier_leaves_the_value_of_the_others(grouped, kernel):
    # without it, what is left of the sums was their rounding, or "constant"
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 4)).astype("float32")
    y = x + rng.standard_normal((30, 4)).astype("float32")
    x[3] *= 3000  # as the first token of a language model
    labels = np.arange(30) // (3 if grouped else 1)
    found = jackknife(x, y, kernel=kernel, groups=labels if grouped else None)
    rest = labels != labels[3]
    alone = repsim.cka(x[rest], y[rest], kernel=kernel, estimator="unbiased")
    assert found.replicates[labels[3]] == pytest.approx(alone, abs=1e-6)
    assert np.isfinite([found.standard_error, found.low, found.high]).all()


def test_constant():
    x, _ = related(8, 3, 3)
    with pytest.warns(DegenerateWarning, match="jackknife: y is constant"):
        found = jackknife(x, np.full((8, 2), 0.1))
    for value in (found.value, found.standard_error, found.low, found.high):
        assert math.isnan(value)


@pytest.mark.parametrize("grouped", [False, True])
def test_nothing_left_without_one_sample(grouped):
    # U-centring also removes a single sample that differs from the rest.
    x, _ = related(9, 3, 3)
    y = np.full((9, 1), 0.1)
    y[[2, 5]] = [[5.0], [-3.0]]
    said = r"y is constant without one of its " + (r"groups \(1 " if grouped else r"samples \(2 ")
    with pytest.warns(DegenerateWarning, match=said):
        found = jackknife(x, y, groups=[0, 1, 2, 3, 4, 2, 5, 6, 7] if grouped else None)
    assert math.isfinite(found.value)
    undefined = {2} if grouped else {2, 5}
    assert set(np.flatnonzero(np.isnan(found.replicates))) == undefined
    assert math.isnan(found.standard_error)
    assert math.isnan(found.low)


def test_refuses():
    x, y = related(5, 2, 2)
    assert math.isfinite(jackknife(x, y).standard_error)
    with pytest.raises(InputError, match="jackknife: leaving one sample out needs at least 5"):
        jackknife(x[:4], y[:4])
    with pytest.raises(InputError, match="without any group at least 4 samples must be left"):
        jackknife(x, y, groups=[0, 0, 1, 2, 3])
    for level in (95, 0.0, 1.0, "high"):
        with pytest.raises(InputError, match="level must be a finite number above 0 and below 1"):
            jackknife(x, y, level=level)
    with pytest.raises(repsim.NonFiniteError, match="jackknife: x must be finite"):
        jackknife(x * np.nan, y)
    with pytest.raises(InputError, match="jackknife: unknown kernel"):
        jackknife(x, y, kernel="quadratic")
    strict = pytest.importorskip("array_api_strict")
    with pytest.raises(repsim.ArrayTypeError, match="x and minus must belong to one framework"):
        jackknife(x, y, minus=strict.asarray(y))
