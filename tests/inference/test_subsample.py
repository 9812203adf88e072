"""Random halves: the draws, and the standard error from them."""

import math

import numpy as np
import pytest
from scipy.stats import norm as normal

import repsim
from drawn import drawn_rows
from reference.data import oracle, related
from repsim import DegenerateWarning, InputError, jackknife
from repsim.inference import subsample


@pytest.mark.parametrize("n", [8, 9])
def test_a_half_has_no_sample_twice(n):
    seen = set()
    for rows in drawn_rows(subsample, n, "x", draws=60):
        assert len(set(rows.tolist())) == len(rows) == n // 2
        seen |= set(rows.tolist())
    assert seen == set(range(n))


def test_a_half_has_whole_groups():
    labels = np.array([0, 1, 2, 0, 3, 2, 1, 2, 4])
    for rows in drawn_rows(subsample, 9, "x", groups=labels, draws=30):
        assert len(set(labels[rows])) == 2
        assert sorted(rows) == np.flatnonzero(np.isin(labels, labels[rows])).tolist()


@pytest.mark.parametrize("n", [20, 21])
@pytest.mark.parametrize("measure", ["cka", "procrustes"])
def test_by_its_definition(n, measure):
    x, y = related(n, 3, 4)
    found = subsample(x, y, measure=measure, draws=12, seed=3)
    rng = np.random.default_rng(3)
    options = {"estimator": "unbiased"} if measure == "cka" else {}
    values = []
    for _ in range(12):
        rows = np.sort(rng.permutation(n)[: n // 2])
        values.append(float(getattr(repsim, measure)(x[rows], y[rows], **options)))
    if measure == "procrustes":  # the root of a sum over samples
        values = [math.sqrt(n / (n // 2)) * value for value in values]
    np.testing.assert_allclose(found.replicates, values, rtol=1e-12)
    factor = math.sqrt((n // 2) / (n - n // 2))
    assert found.standard_error == pytest.approx(factor * np.std(values, ddof=1), rel=1e-10)
    q = 1.959963984540054
    if measure == "cka":
        z = math.atanh(found.value)
        spread = q * factor * np.std(np.arctanh(values), ddof=1)
        ends = [math.tanh(z - spread), math.tanh(z + spread)]
    else:
        spread = q * found.standard_error
        ends = [found.value - spread, found.value + spread]
    assert [found.low, found.high] == pytest.approx(ends, rel=1e-10)
    assert (found.measure, found.n_samples, found.n_groups) == (measure, n, None)


@pytest.mark.parametrize("measure", ["cka", "procrustes", "linear_regression_r2"])
@pytest.mark.parametrize("grouped", [False, True])
def test_the_difference_of_two_representations(measure, grouped):
    n, labels = 24, np.repeat(np.arange(8), 3) if grouped else None
    x, y = related(n, 2, 3)
    z = x[:, :1] + np.random.default_rng(1).standard_normal((n, 1))
    options = {"measure": measure, "draws": 12, "groups": labels, "seed": 3}
    found = subsample(x, y, minus=z, **options)
    singles = [subsample(u, y, **options) for u in (x, z)]
    np.testing.assert_allclose(
        found.replicates, singles[0].replicates - singles[1].replicates, atol=1e-12
    )
    assert found.value == pytest.approx(singles[0].value - singles[1].value)
    assert found.standard_error == pytest.approx(np.std(found.replicates, ddof=1))
    q = 1.959963984540054 * found.standard_error
    assert (found.low, found.high) == pytest.approx((found.value - q, found.value + q))
    expected = 2 * normal.sf(abs(found.value) / found.standard_error)
    turned = subsample(z, y, minus=x, **options)
    assert found.p_value == turned.p_value == pytest.approx(expected)
    assert found.measure == f"{measure} difference"
    assert found.similarity == singles[0].similarity == (measure != "procrustes")
    assert found.n_groups == (8 if grouped else None)
    same = subsample(x, y, minus=x, **options)
    assert (same.value, same.p_value, 0 in same) == (0, 1, True)
    assert math.isnan(singles[0].p_value)


@pytest.mark.parametrize(
    ("measure", "options"),
    [
        ("procrustes", {}),
        ("permutation_procrustes", {}),
        ("soft_matching", {}),
        ("rsm_norm_difference", {"norm": "frobenius"}),
        ("procrustes", {"norm": "unit"}),  # does not grow
    ],
)
def test_the_error_of_what_grows_with_n_is_that_of_new_samples(measure, options):
    """It was too small by √2, and that of the norm of RSMs by 2."""
    mix = np.random.default_rng(5).standard_normal((3, 4))

    def sampled(seed, n=80):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((n, 3))
        return x, x @ mix + rng.standard_normal((n, 4))

    spread = np.std([getattr(repsim, measure)(*sampled(seed), **options) for seed in range(400)])
    errors = [
        subsample(*sampled(seed), measure=measure, draws=40, seed=seed, **options).standard_error
        for seed in range(12)
    ]
    assert np.median(errors) / spread == pytest.approx(1, abs=0.25)


def test_agrees_with_the_jackknife():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 5))
    y = x + rng.standard_normal((200, 5))
    ratio = subsample(x, y, draws=400).standard_error / jackknife(x, y).standard_error
    assert 0.85 < ratio < 1.3


def test_copies_within_groups_need_groups():
    rng = np.random.default_rng(0)
    x, y = (np.repeat(z, 5, axis=0) for z in related(20, 4, 4))
    x, y = (z + 0.01 * rng.standard_normal(z.shape) for z in (x, y))
    whole = subsample(x, y, groups=np.repeat(np.arange(20), 5))
    assert whole.standard_error > 1.5 * subsample(x, y).standard_error
    assert whole.n_groups == 20


def test_every_framework(eager):
    x, y = related(14, 3, 20)
    expected = subsample(x, y, draws=3)
    found = subsample(eager.array(x.astype("float32")), eager.array(y.astype("float32")), draws=3)
    for name in ("value", "standard_error", "low", "high"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-3)


def test_the_same_has_no_error():
    x, _ = related(20, 4, 4)
    found = subsample(x, 2 * x, draws=10)
    assert found.standard_error == pytest.approx(0, abs=1e-9)
    assert (found.low, found.high) == (found.value, found.value)


def test_seeds():
    x, y = oracle()
    one, two = (subsample(x, y, draws=5, seed=s) for s in (1, np.random.default_rng(1)))
    np.testing.assert_array_equal(one.replicates, two.replicates)
    assert not np.array_equal(one.replicates, subsample(x, y, draws=5, seed=2).replicates)


def test_constant():
    x, _ = related(10, 3, 3)
    with pytest.warns(DegenerateWarning, match="subsample: x is constant") as seen:
        found = subsample(np.ones((10, 2)), x)
    assert len(seen) == 1
    assert math.isnan(found.standard_error)
    assert math.isnan(found.low)
    assert len(found.replicates) == 0


def test_refuses():
    x, y = related(8, 2, 2)
    assert math.isfinite(subsample(x, y, draws=3).standard_error)
    with pytest.raises(InputError, match=r"needs at least 4 samples in every half.\n  n=7"):
        subsample(x[:7], y[:7])
    with pytest.raises(InputError, match="the smallest half has 3"):
        subsample(x, y, groups=[0, 1, 1, 2, 2, 3, 3, 3])
    with pytest.raises(InputError, match="one draw has no spread"):
        subsample(x, y, draws=1)
    with pytest.raises(InputError, match="level must be a finite number above 0 and below 1"):
        subsample(x, y, level=95)
    with pytest.raises(InputError, match="draws must be a positive integer"):
        subsample(x, y, draws=0)
    with pytest.raises(InputError, match="x and minus must describe the same samples"):
        subsample(x, y, minus=x[:6])
    with pytest.raises(InputError, match=r"minus must be finite(.|\n)*from all arrays"):
        subsample(x, y, minus=np.where(x > 0, x, np.nan))
    with pytest.raises(InputError, match="no inference for a partial"):
        subsample(x, y, given=x)
