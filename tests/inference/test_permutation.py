"""The permutation test: its value, its level, its groups, and when it stops."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import repsim
from drawn import drawn_rows
from reference import inference as reference
from reference import kernels as grams
from reference.data import oracle, related
from repsim import DegenerateWarning, InputError, permutation_test
from repsim.inference import null_moments
from repsim.measures import MEASURES


def tokens(images, each, seed, shared=1.0):
    """Two unrelated representations of the tokens of images; tokens of one image are alike."""
    rng = np.random.default_rng(seed)

    def side():
        image = np.repeat(rng.standard_normal((images, 3)), each, axis=0)
        return shared * image + 0.5 * rng.standard_normal((images * each, 3))

    return side(), side()


def test_oracle():
    x, y = oracle()
    found = permutation_test(x, y, estimator="biased", seed=np.random.default_rng(0))
    assert (found.exceedances, found.p_value, len(found.null)) == (3, 0.004, 999)
    assert found.value == pytest.approx(0.71838257196497, rel=1e-12)
    free = permutation_test(x, y, permutations=1)
    assert free.z == pytest.approx(4.0875554902375, rel=1e-12)
    assert (free.null_mean, free.exact_moments) == (0.0, True)


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
@given(n=st.integers(4, 7), p=st.integers(1, 60), seed=st.integers(0, 10**6))
def test_equals_the_plain_loop(estimator, n, p, seed):
    x, y = related(n, p, 2, seed)
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(n) for _ in range(9)]
    found = permutation_test(x, y, permutations=9, seed=seed, estimator=estimator)
    k, l = grams.linear(x), grams.linear(y)  # noqa: E741
    assert found.p_value == reference.p_value(k, l, estimator, orders)
    expected = [
        repsim.cka_from_gram(k, reference.rearranged(l, o), estimator=estimator) for o in orders
    ]
    np.testing.assert_allclose(found.null, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("measure", "options"),
    [
        ("cka", {"kernel": "rbf"}),
        ("cka", {"features": "sampled"}),
        ("hsic", {}),
        ("hsic", {"kernel": "laplacian", "estimator": "biased"}),
        ("angular_cka", {"estimator": "biased"}),
        ("distance_correlation", {}),
        ("procrustes", {}),
        ("mutual_knn", {"k": 3}),
        ("rsa", {}),
        ("cca", {}),
    ],
)
def test_each_measure_is_that_of_the_rearranged_samples(measure, options):
    x, noise = np.random.default_rng(0).standard_normal((2, 14, 6))
    y = 2 * x[:, :5] + noise[:, :5]
    found = permutation_test(x, y, measure=measure, permutations=5, seed=2, **options)
    if "estimator" in repsim.measures.MEASURES[measure].options("", {}):
        options = {"estimator": "unbiased", **options}
    function = getattr(repsim, measure)
    rng = np.random.default_rng(2)
    expected = [float(function(x, y[rng.permutation(14)], **options)) for _ in range(5)]
    np.testing.assert_allclose(found.null, expected, rtol=1e-9, atol=1e-12)
    assert found.value == pytest.approx(float(function(x, y, **options)), rel=1e-12)
    assert found.measure == measure
    similar = found.similarity
    assert similar == (measure not in ("angular_cka", "procrustes"))
    closer = [(v >= found.value) if similar else (v <= found.value) for v in expected]
    assert found.p_value == (sum(closer) + 1) / 6


def test_wide_and_narrow_features_take_two_ways_to_one_value():
    x, y = related(40, 3, 5)
    pad = np.zeros((40, 200))
    narrow = permutation_test(x, y, permutations=19)
    wide = permutation_test(np.hstack([x, pad]), np.hstack([y, pad]), permutations=19)
    np.testing.assert_allclose(narrow.null, wide.null, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
def test_hsic_has_the_moments_of_cka_in_its_own_unit(estimator):
    x, y = related(20, 3, 4)
    cka = permutation_test(x, y, permutations=1, estimator=estimator)
    hsic = permutation_test(100 * x, y, measure="hsic", permutations=1, estimator=estimator)
    assert cka.exact_moments
    assert hsic.exact_moments
    assert hsic.z == pytest.approx(cka.z, rel=1e-10)
    unit = hsic.value / cka.value
    assert hsic.null_mean == pytest.approx(unit * cka.null_mean, rel=1e-10)
    moments = null_moments(x, y, estimator=estimator)
    assert cka.null_mean == pytest.approx(float(moments.mean))
    assert cka.null_sd == pytest.approx(math.sqrt(moments.variance))


def test_moments_of_other_measures_are_those_of_the_permutations():
    x, noise = np.random.default_rng(0).standard_normal((2, 20, 3))
    y = x + noise
    found = permutation_test(x, y, measure="procrustes", permutations=50)
    assert not found.exact_moments
    assert found.null_mean == np.mean(found.null)
    assert found.null_sd == np.std(found.null, ddof=1)
    assert found.z == pytest.approx((found.value - found.null_mean) / found.null_sd)
    assert found.z < -2  # a distance: more alike is smaller
    assert found.p_value < 0.05


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
def test_level_under_independence(estimator):
    rng = np.random.default_rng(0)
    rejected = 0
    for seed in range(300):
        x, y = rng.standard_t(2, (12, 6)), rng.standard_exponential((12, 20))
        found = permutation_test(x, y, permutations=19, seed=seed, estimator=estimator)
        rejected += found.p_value <= 0.1
    # Exactly .1 for continuous data: Binomial(300, .1) is outside 13 to 50 once in 10 000.
    assert 13 <= rejected <= 50


def test_power():
    x, noise = np.random.default_rng(0).standard_normal((2, 30, 4))
    for measure in ("cka", "hsic", "angular_cka", "mutual_knn", "procrustes"):
        found = permutation_test(x, x + noise, measure=measure, permutations=99)
        assert found.p_value == 1 / 100, measure


def test_level_of_dependent_samples_needs_groups():
    naive, grouped = 0, 0
    labels = np.repeat(np.arange(10), 4)
    for seed in range(120):
        x, y = tokens(10, 4, seed)
        naive += permutation_test(x, y, permutations=19, seed=seed).p_value <= 0.1
        found = permutation_test(x, y, permutations=19, seed=seed, groups=labels)
        grouped += found.p_value <= 0.1
    assert naive > 40  # Binomial(120, .1) exceeds 27 once in 10 000
    assert grouped <= 27


@given(images=st.integers(2, 6), each=st.integers(1, 4), seed=st.integers(0, 10**6))
def test_groups_stay_whole(images, each, seed):
    rng, n = np.random.default_rng(seed), images * each
    labels = rng.permutation(np.repeat(np.arange(images), each))
    orders = drawn_rows(permutation_test, n, "y", groups=labels, permutations=3, seed=seed)
    assert len(orders) == 3
    for order in orders:
        assert sorted(order) == list(range(n))
        for group in range(images):
            to = np.flatnonzero(labels == group)
            came = labels[order[to]]
            assert len(set(came)) == 1  # all of one group, and each to the place of its rank
            np.testing.assert_array_equal(order[to], np.flatnonzero(labels == came[0]))


def test_whole_groups_are_permuted():
    x, y = related(12, 3, 3)
    labels = np.tile(np.arange(4), 3)
    found = permutation_test(x, y, groups=labels, permutations=7, seed=1)
    rng = np.random.default_rng(1)
    rows = np.arange(12).reshape(3, 4)  # column g: the rows of group g
    expected = []
    for _ in range(7):
        order = rows[:, rng.permutation(4)].reshape(-1)
        expected.append(float(repsim.cka(x, y[order], estimator="unbiased")))
    np.testing.assert_allclose(found.null, expected, rtol=1e-9)
    assert not found.exact_moments
    assert found.n_groups == 4


def test_groups_of_different_sizes():
    x, y = related(7, 2, 2)
    with pytest.raises(InputError, match=r"3 groups of 2 to 3 samples"):
        permutation_test(x, y, groups=[0, 0, 0, 1, 1, 2, 2])


@given(
    seed=st.integers(0, 10**6),
    m=st.integers(19, 200),
    level=st.floats(0.06, 0.9),
    mix=st.floats(0, 1),
)
def test_stopping_early_decides_the_same(seed, m, level, mix):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((10, 2))
    y = mix * x + rng.standard_normal((10, 2))
    full = permutation_test(x, y, permutations=m, seed=seed)
    early = permutation_test(x, y, permutations=m, seed=seed, stop_at=level)
    assert (early.p_value <= level) == (full.p_value <= level)
    np.testing.assert_array_equal(early.null, full.null[: len(early.null)])
    assert (early.value, early.z) == (full.value, full.z)
    if not early.stopped_early:
        assert early.p_value == full.p_value
    elif full.p_value <= level:
        possible = early.exceedances + m - len(early.null)
        assert early.p_value == (possible + 1) / (m + 1) >= full.p_value


@pytest.mark.parametrize("level", [0.05, 0.0505])
def test_stops_as_soon_as_it_is_certain(level):
    x, y = oracle()[0], np.random.default_rng(2).standard_normal((10, 4))
    full = permutation_test(x, y, permutations=999, seed=4)
    early = permutation_test(x, y, permutations=999, seed=4, stop_at=level)
    # 50 exceedances decide: (50 + 1)/1000 > .05
    last = int(np.flatnonzero(np.cumsum(full.null >= full.value - 1e-12) == 50)[0])
    assert len(early.null) == last + 1 == 77  # no multiple of the permutations drawn at once
    assert early.stopped_early
    assert early.exceedances == 50
    assert early.p_value == 51 / (last + 2)


def result_of(above, **options):
    """The test of a measure that is .5 for the data, and then 1 where ``above`` is true, or 0."""
    values = iter([0.5, *map(float, above)])
    measure = dataclasses.replace(
        MEASURES["nbs"],
        name="given",
        prepare=lambda operation, x, *, name: x,
        compare=lambda x, y: np.asarray(next(values)),
    )
    x = np.arange(8.0)[:, None]
    return permutation_test(x, x, measure=measure, permutations=len(above), **options)


@pytest.mark.parametrize("m", [99, 28])
def test_levels_that_a_p_value_can_equal(m):
    # .29 * 100 is 28.999999999999996, and 29/100 is .29: the comparison must be that of p.
    rng = np.random.default_rng(0)
    for k in range(1, m + 1):
        level = k / (m + 1)
        for b in (k - 2, k - 1, k):
            above = rng.permutation(np.arange(m) < b)
            p = (int(above.sum()) + 1) / (m + 1)
            early = result_of(above, stop_at=level)
            assert (early.p_value <= level) == (p <= level)


def test_stopping_early_keeps_the_level():
    rng = np.random.default_rng(0)
    small = 0
    for seed in range(200):
        x, y = rng.standard_normal((2, 10, 3))
        found = permutation_test(x, y, permutations=99, seed=seed, stop_at=0.05)
        small += found.p_value <= 0.2  # also at levels that it was not stopped for
    assert small <= 62  # Binomial(200, .2) exceeds 62 once in 10 000


def test_equal_values_count():
    # Samples of two kinds: many permutations change only the order of the sums.
    x = np.repeat([[0.1, 0.7], [0.3, -1.1]], 4, axis=0)
    y = np.repeat([[1.0], [1 / 3]], 4, axis=0)
    found = permutation_test(x, y, permutations=400)
    # Of C(8, 4) = 70 splits two are as good as the observed one.
    assert found.p_value == pytest.approx(2 / 70, abs=0.03)
    assert found.exceedances == int(np.sum(np.isclose(found.null, found.value, rtol=1e-9)))
    assert found.exceedances > 0


def test_orders_without_a_value_are_no_evidence():
    """They counted as less similar, so p was as small as their share was large."""
    x, y = related(12, 2, 2)

    def compare(a, b):
        cosine = np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b)
        return np.asarray(cosine if b[0, 0] >= y[6, 0] else np.nan)

    options = {"seed": 0, "permutations": 60}
    mine = dataclasses.replace(
        MEASURES["nbs"],
        name="mine",
        function=lambda x, y: compare(x, y),
        prepare=lambda operation, x, *, name: x,
        compare=compare,
        reorder=None,
        compare_with_all=None,
    )
    start = int(np.argmax(y[:, 0]))  # the data have a value
    x, y = np.roll(x, -start, axis=0), np.roll(y, -start, axis=0)
    found = permutation_test(x, y, measure=mine, **options)
    without = np.isnan(found.null)
    assert 0 < without.sum() < 60
    assert found.exceedances == without.sum() + np.sum(found.null[~without] >= found.value)
    known = found.null[~without]
    assert found.null_mean == pytest.approx(known.mean())
    assert found.z == pytest.approx((found.value - known.mean()) / known.std(ddof=1))
    mapped = repsim.max_t({"x": x}, {"y": y, "other": -y[:, ::-1]}, measure=mine, **options)
    assert mapped.p_value[0, 0] == found.p_value
    both = np.append(known, found.value)
    assert mapped.z[0, 0] == pytest.approx((found.value - both.mean()) / both.std())
    assert mapped.chance[0, 0] == pytest.approx(known.mean())
    reached = (mapped.max_z >= mapped.z[0, 0] - 1e-9).values | without
    assert mapped.p_adjusted[0, 0] == (1 + reached.sum()) / 61
    best = repsim.alignment({"a": {"x": x}, "b": {"y": y}}, measure=mine, **options)
    chance = best.sel(model_x="a", model_y="b")
    assert chance.p_value.item() == found.p_value
    assert chance.chance.item() == pytest.approx(known.mean())
    score = repsim.calibrated_score(x, y, measure=mine, alpha=0.05, **options)
    assert (score.score, score.threshold >= score.value) == (0.0, True)


def test_values_that_are_zero_but_for_rounding_are_equal():
    # A cross: x is even and y odd in the second feature, so the covariance is exactly zero.
    x = np.array([[0.1], [0.1], [-0.3], [-0.3], [0.7], [0.7]])
    y = np.array([[1.0], [-1.0], [1.0], [-1.0], [1.0], [-1.0]]) / 3
    found = permutation_test(x, y, estimator="biased", permutations=50)
    assert abs(found.value) < 1e-12
    assert found.p_value == 1.0  # nothing is below


def test_float32_tells_the_orders_of_many_samples_apart():
    """Their deviation falls as 1/n, and below the rounding of 1 all orders counted as equal."""
    x, y = np.random.default_rng(0).standard_normal((2, 200_000, 1)).astype("float32")
    for measure in ("cka", "hsic"):
        options = {"measure": measure, "estimator": "biased", "permutations": 9}
        found = permutation_test(x, y, **options)
        wide = permutation_test(x.astype(float), y.astype(float), **options)
        assert found.p_value == wide.p_value < 1


def test_seeds():
    x, y = related(10, 2, 2)
    one, two = (permutation_test(x, y, permutations=20, seed=7) for _ in range(2))
    np.testing.assert_array_equal(one.null, two.null)
    other = permutation_test(x, y, permutations=20, seed=8)
    assert not np.array_equal(one.null, other.null)
    rng = np.random.default_rng(7)
    np.testing.assert_array_equal(permutation_test(x, y, permutations=20, seed=rng).null, one.null)
    assert not np.array_equal(permutation_test(x, y, permutations=20, seed=rng).null, one.null)
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - the global one, not touched
    permutation_test(x, y, permutations=3)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize(("shape", "dtype"), [((20, 3, 2), "float64"), ((8, 9, 20), "float32")])
def test_every_framework(eager, shape, dtype):
    x, y = related(*shape)
    expected = permutation_test(x, y, permutations=9, estimator="biased")
    a, b = eager.array(x.astype(dtype)), eager.array(y.astype(dtype))
    found = permutation_test(a, b, permutations=9, estimator="biased")
    np.testing.assert_allclose(found.null, expected.null, atol=2e-5)
    assert found.p_value == expected.p_value
    assert found.null_sd == pytest.approx(expected.null_sd, rel=1e-4)
    assert type(found.value) is float
    assert found.null.dtype == np.float64


def test_every_framework_where_y_is_prepared_anew(eager):
    x, y = related(9, 3, 2)
    expected = permutation_test(x, y, measure="procrustes", permutations=2)
    found = permutation_test(eager.array(x), eager.array(y), measure="procrustes", permutations=2)
    np.testing.assert_allclose(found.null, expected.null, rtol=1e-9)


def test_constant():
    x, _ = related(8, 3, 3)
    with pytest.warns(DegenerateWarning, match="permutation_test: y is constant") as seen:
        found = permutation_test(x, np.ones((8, 2)))
    assert len(seen) == 1
    assert math.isnan(found.p_value)
    assert math.isnan(found.value)
    assert math.isnan(found.z)
    assert len(found.null) == 0
    with pytest.warns(DegenerateWarning, match="permutation_test: y is the same"):
        found = permutation_test(x, np.ones((8, 2)), measure="rsa")  # without a closed form
    assert np.isnan([found.p_value, found.null_mean, found.null_sd, found.z]).all()
    single = permutation_test(x, x[:, :2], measure="rsa", permutations=1)
    assert np.isnan([single.null_mean, single.null_sd, single.z]).all()


def test_few_samples():
    x, y = related(3, 2, 2)
    found = permutation_test(x, y, estimator="biased", permutations=40)
    assert 0 < found.p_value <= 1
    assert not found.exact_moments  # the closed form is one of four samples
    with pytest.raises(InputError, match="permutation_test: the unbiased estimator needs at least"):
        permutation_test(x, y)


def test_repr_shows_the_result():
    found = permutation_test(*oracle())
    assert repr(found) == (
        "PermutationTest(cka=0.690923, p_value=0.001, z=4.088, 999 of 999 permutations)"
    )


def test_refuses():
    x, y = related(8, 2, 2)
    for count in (0, -3, 2.5, True, "many"):
        with pytest.raises(InputError, match="permutations must be a positive integer"):
            permutation_test(x, y, permutations=count)
    for seed in (None, -1, 1.5, "random", np.random.RandomState(0)):
        with pytest.raises(InputError, match="seed must be an integer from 0"):
            permutation_test(x, y, seed=seed)
    for level in (0.0, 1.0, 5, "low"):
        with pytest.raises(InputError, match="stop_at must be a finite number"):
            permutation_test(x, y, stop_at=level)
    with pytest.raises(InputError, match=r"cannot give a p-value of 0.01.*\n.*\n.*at least 99"):
        permutation_test(x, y, permutations=98, stop_at=0.01)
    with pytest.raises(InputError, match="no inference for a partial alignment"):
        permutation_test(x, y, given=x)
    with pytest.raises(InputError, match="permutation_test: unknown measure"):
        permutation_test(x, y, measure="ckaa")
    with pytest.raises(InputError, match="permutation_test: unknown options"):
        permutation_test(x, y, k=3)


@pytest.mark.parametrize("groups", [None, np.repeat(np.arange(6), 4)])
def test_hsic_that_is_zero_in_every_order_is_no_evidence(groups):
    """One sample apart from equal ones is constant for the unbiased estimator."""
    x = np.zeros((24, 1))
    x[3] = 1.0
    for seed in range(5):
        y = np.random.default_rng(seed).standard_normal((24, 3))
        for a, b in ((x, y), (y, x), (0 * x, y)):
            found = permutation_test(a, b, measure="hsic", permutations=19, groups=groups)
            assert (found.value, found.p_value) == (0.0, 1.0)
            assert math.isnan(found.z)
