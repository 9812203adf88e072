"""The bootstrap of RSA: replicates and errors by plain loops, and what it refuses."""

import math

import numpy as np
import pytest
from scipy.stats import t as student

import repsim
from cases import each
from reference import rdm, repeats
from repsim import InputError
from repsim.inference import bootstrap_rsa


def data(n=12, subjects=4, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 4))
    ys = [x @ rng.standard_normal((4, 6)) + rng.standard_normal((n, 6)) for _ in range(subjects)]
    return x, ys


def draws_of(seed, draws, *units):
    """What the generator draws, as indices."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, n, (draws, n)) for n in units]


def square(x, kind="euclidean"):
    out = np.zeros((len(x), len(x)))
    out[np.triu_indices(len(x), 1)] = rdm.entries(x, kind)
    return out + out.T


def by_loops(x, ys, drawn, comparison, kind="euclidean"):
    """(draws, subjects), over the pairs of different conditions among those drawn."""
    a, others = square(x, kind), [square(y, kind) for y in ys]
    return np.array(
        [[repeats.resampled_rsa(a, b, list(rows), comparison) for b in others] for rows in drawn]
    )


@each("comparison", ["spearman", "pearson", "cosine"])
@each("kind", ["euclidean", "correlation"])
def test_the_pairs_of_copies_are_left_out(comparison, kind):
    x, ys = data(9, 2)
    found = bootstrap_rsa(
        x, ys, rdm=kind, comparison=comparison, resample="conditions", draws=50, seed=3
    )
    (drawn,) = draws_of(3, 50, 9)
    expected = by_loops(x, ys, drawn, comparison, kind)
    np.testing.assert_allclose(found.replicates, expected.mean(axis=1), rtol=1e-9)
    for r, y in enumerate(ys):
        value = float(repsim.rsa(x, y, rdm=kind, comparison=comparison))
        assert found.by_subject[r] == pytest.approx(value, rel=1e-9)
    assert found.value == pytest.approx(found.by_subject.mean())
    assert found.standard_error == pytest.approx(math.sqrt(9 / 8 * np.var(found.replicates)))


def test_many_draws_begin_as_few_do():
    """They are computed in parts: 1500 draws of 1770 pairs are more than one part holds."""
    x, ys = data(60, 2)
    options = {"comparison": "pearson", "resample": "conditions", "seed": 3}
    many = bootstrap_rsa(x, ys, draws=1500, **options)
    few = bootstrap_rsa(x, ys, draws=300, **options)
    assert len(many.replicates) == 1500
    np.testing.assert_allclose(many.replicates[:300], few.replicates, rtol=1e-12)
    last = by_loops(x, ys, draws_of(3, 1500, 60)[0][-1:], "pearson")
    np.testing.assert_allclose(many.replicates[-1:], last.mean(axis=1), rtol=1e-9)


def test_ranks_of_equal_dissimilarities():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 2, (2, 10, 4)).astype(float)
    found = bootstrap_rsa(x, y, draws=50, seed=1)
    (drawn,) = draws_of(1, 50, 10)
    np.testing.assert_allclose(found.replicates, by_loops(x, [y], drawn, "spearman")[:, 0])


def test_draws_with_equal_dissimilarities_alone_have_no_value():
    """Their deviations from the mean are rounding, and its correlation was counted."""
    n, draws = 8, 2000
    kinds = np.arange(n) % 2  # a model that tells two kinds of conditions apart
    model = np.where(kinds[:, None] == kinds, 0.3, 1.0)
    np.fill_diagonal(model, 0)
    brain = square(np.random.default_rng(1).standard_normal((n, 4)))
    drawn = np.random.default_rng(0).integers(0, n, (draws, n))
    defined = sum(len(set(kinds[row])) == 2 and len(set(row)) > 2 for row in drawn)
    for comparison in ("pearson", "spearman"):
        options = {"rdm": "precomputed", "comparison": comparison, "draws": draws}
        assert len(bootstrap_rsa(model, [brain], **options).replicates) == defined


def test_both_factors():
    x, ys = data(12, 4)
    found = bootstrap_rsa(x, ys, comparison="pearson", draws=60, seed=5)
    assert (found.resampled, found.n_samples, found.n_subjects) == ("both", 12, 4)
    drawn, people = draws_of(5, 60, 12, 4)
    values = by_loops(x, ys, drawn, "pearson")
    both = np.array([row[who].mean() for row, who in zip(values, people, strict=True)])
    conditions = values.mean(axis=1)
    subjects = np.array([found.by_subject[who].mean() for who in people])
    np.testing.assert_allclose(found.replicates, both, rtol=1e-10)
    parts = [np.var(v) for v in (both, conditions, subjects)]
    variance = repeats.variance_of_two_factors(*parts, 12, 4)
    error = math.sqrt(variance)
    assert found.standard_error == pytest.approx(error, rel=1e-9)
    assert found.error_of_conditions == pytest.approx(math.sqrt(12 / 11 * parts[1]))
    assert found.error_of_subjects == pytest.approx(math.sqrt(4 / 3 * parts[2]))
    ends = repeats.fisher_ends(found.value, error / (1 - found.value**2), student.ppf(0.975, 3))
    np.testing.assert_allclose([found.low, found.high], ends, rtol=1e-9)
    assert found.value in found
    assert "rsa=" in repr(found)


def test_the_formula_of_two_factors_is_unbiased():
    """Linear values with known variances of conditions, subjects and single answers."""
    rng = np.random.default_rng(0)
    n, r, parts = 8, 6, (1.0, 0.5, 2.0)
    truth = parts[0] / n + parts[1] / r + parts[2] / (n * r)
    found = []
    for _ in range(3000):
        y = (
            math.sqrt(parts[0]) * rng.standard_normal((n, 1))
            + math.sqrt(parts[1]) * rng.standard_normal((1, r))
            + math.sqrt(parts[2]) * rng.standard_normal((n, r))
        )
        v_c = np.var(y.mean(axis=1)) / n
        v_s = np.var(y.mean(axis=0)) / r
        left = y - y.mean(axis=1, keepdims=True) - y.mean(axis=0) + y.mean()
        v_cs = v_c + v_s + np.sum(left**2) / (n * r) ** 2
        f, g = r / (r - 1), n / (n - 1)
        found.append(f * v_s + g * v_c - f * g * (v_cs - v_s - v_c))
    assert np.mean(found) == pytest.approx(truth, rel=0.03)


def test_subjects_alone():
    x, ys = data(12, 5)
    found = bootstrap_rsa(x, ys, resample="subjects", draws=4000)
    spread = np.std(found.by_subject, ddof=1) / math.sqrt(5)
    assert found.standard_error == pytest.approx(spread, rel=0.05)
    assert found.error_of_subjects == found.standard_error
    assert math.isnan(found.error_of_conditions)


def test_the_difference_of_two_models():
    x, ys = data(12, 4)
    other = x[:, :2]
    drawn, people = draws_of(5, 60, 12, 4)
    values = by_loops(x, ys, drawn, "spearman") - by_loops(other, ys, drawn, "spearman")
    found = bootstrap_rsa(x, ys, minus=other, draws=60, seed=5)
    both = np.array([row[who].mean() for row, who in zip(values, people, strict=True)])
    np.testing.assert_allclose(found.replicates, both, atol=1e-10)
    mine = np.array([float(repsim.rsa(x, y) - repsim.rsa(other, y)) for y in ys])
    np.testing.assert_allclose(found.by_subject, mine, atol=1e-12)
    subjects = np.array([mine[who].mean() for who in people])
    parts = [np.var(v) for v in (both, values.mean(axis=1), subjects)]
    error = math.sqrt(repeats.variance_of_two_factors(*parts, 12, 4))
    assert found.standard_error == pytest.approx(error)
    step = student.ppf(0.975, 3) * error
    assert (found.low, found.high) == pytest.approx((found.value - step, found.value + step))
    assert found.p_value == pytest.approx(2 * student.sf(abs(found.value) / error, 3))
    assert found.measure == "rsa difference"

    turned = bootstrap_rsa(other, ys, minus=x, draws=60, seed=5)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))
    assert turned.p_value == pytest.approx(found.p_value)
    # What both models share is in both, so that the interval is that of their difference alone.
    apart = [bootstrap_rsa(z, ys, draws=60, seed=5).standard_error for z in (x, other)]
    assert found.standard_error < math.hypot(*apart)
    ready = [repsim.rdm(z) for z in (x, other, *ys)]
    again = bootstrap_rsa(ready[0], ready[2:], minus=ready[1], rdm="precomputed", draws=60, seed=5)
    assert again.low == pytest.approx(found.low)


def test_models_that_do_not_differ():
    x, ys = data(12, 4)
    for resample in ("conditions", "subjects", "both"):
        same = bootstrap_rsa(x, ys, minus=3 * x, resample=resample, draws=50)
        assert (same.low, same.value, same.high) == pytest.approx((0, 0, 0), abs=1e-12)
        assert same.p_value == 1
    assert math.isnan(bootstrap_rsa(x, ys, draws=50).p_value)
    with pytest.warns(repsim.DegenerateWarning, match="minus"):
        assert math.isnan(bootstrap_rsa(x, ys, minus=0 * x, draws=50).p_value)
    with pytest.raises(InputError, match="same samples(.|\n)*minus"):
        bootstrap_rsa(x, ys, minus=x[:9])


def test_one_subject_and_other_forms():
    x, ys = data()
    one = bootstrap_rsa(x, ys[0], draws=50)
    assert one.resampled == "conditions"
    assert one.error_of_conditions == one.standard_error
    assert math.isnan(one.error_of_subjects)
    assert bootstrap_rsa(x, [ys[0]], draws=50).low == one.low
    expected = bootstrap_rsa(x, ys, draws=50)
    assert bootstrap_rsa(x, dict(enumerate(ys)), draws=50).low == expected.low
    torch = pytest.importorskip("torch")
    found = bootstrap_rsa(torch.tensor(x), [torch.tensor(y) for y in ys], draws=50)
    assert found.low == pytest.approx(expected.low, rel=1e-10)
    rng = np.random.default_rng(0)
    assert bootstrap_rsa(x, ys, draws=50, seed=rng).low == expected.low
    assert bootstrap_rsa(x, ys, draws=50, seed=rng).low != expected.low
    equal = bootstrap_rsa(x, [x, x, x], draws=50)
    assert (equal.low, equal.value, equal.high) == pytest.approx((1, 1, 1))
    repeated = np.random.default_rng(0).standard_normal((9, 2, 5))
    cross = bootstrap_rsa(repeated, [repeated] * 3, rdm="crossnobis", repeats=2, draws=50)
    assert cross.value == pytest.approx(1)


def test_a_constant_subject():
    x, ys = data()
    for comparison in ("spearman", "pearson", "cosine"):
        with pytest.warns(repsim.DegenerateWarning, match=r"ys\[1\]"):
            found = bootstrap_rsa(
                x, [ys[0], np.ones((12, 3)), ys[1]], comparison=comparison, draws=50
            )
        assert math.isnan(found.value)
        assert math.isnan(found.low)
        assert len(found.replicates) == 0


def test_what_has_no_bootstrap():
    x, ys = data()
    refused = [
        ("copies of a condition are ties", {"comparison": "rho_a"}),
        ("singular", {"comparison": "whitened"}),
        ("comparison", {"comparison": "cosin"}),
        ("resample", {"resample": "rdms"}),
        ("at least 50", {"draws": 10}),
        ("level", {"level": 95}),
        ("seed", {"seed": -1}),
        ("rdm", {"rdm": "mahalanobis"}),
        ("repeats", {"rdm": "crossnobis"}),
    ]
    for match, options in refused:
        with pytest.raises(InputError, match=match):
            bootstrap_rsa(x, ys, **options)
    for match, given in (
        ("at least 8 samples", (x[:7], [y[:7] for y in ys])),
        ("needs at least 3 of them", (x, ys[:2])),
        ("same samples", (x[:9], ys)),
        ("sequence or a mapping", (x, 3)),
        ("looks like an RDM", (repsim.rdm(x), ys)),
    ):
        with pytest.raises(InputError, match=match):
            bootstrap_rsa(*given)
    with pytest.raises(repsim.NonFiniteError, match="x"):
        bootstrap_rsa(np.where(x > 2, np.nan, x) * np.nan, ys)
    with pytest.raises(repsim.ArrayTypeError):
        bootstrap_rsa("x", ys)
    for swapped in ys, {"a": ys[0]}:
        with pytest.raises(repsim.ArrayTypeError, match="Pass the subjects as ys"):
            bootstrap_rsa(swapped, x)
    with pytest.raises(InputError, match="got 2\n  Pass resample='conditions'"):
        bootstrap_rsa(x, ys[:2])


def test_ready_rdms():
    x, ys = data()
    expected = bootstrap_rsa(x, ys, draws=50)
    rdms = [repsim.rdm(y) for y in ys]
    upper = [d[np.triu_indices(12, 1)] for d in rdms]
    for several in (rdms, np.stack(rdms), upper):
        found = bootstrap_rsa(repsim.rdm(x), several, rdm="precomputed", draws=50)
        np.testing.assert_allclose(found.replicates, expected.replicates, rtol=1e-12)
    for match, given in (
        ("bootstrap_rsa: x must be an RDM", (x, ys)),
        (
            "bootstrap_rsa: ys\\[1\\] must be symmetric",
            (rdms[0], [rdms[1], np.triu(rdms[2]), rdms[0]]),
        ),
        ("ys\\[0\\] must be an RDM(.|\n)*list\\(rdms\\)", (rdms[0], np.stack(upper))),
    ):
        with pytest.raises(InputError, match=match):
            bootstrap_rsa(*given, rdm="precomputed")
