"""The jackknife over conditions and subjects: deletions and errors by plain loops."""

import math

import numpy as np
import pytest
from scipy.stats import t as student

import repsim
from cases import each
from reference import inference as reference
from reference import repeats
from reference.kernels import linear
from repsim import DegenerateWarning, InputError
from repsim.inference import jackknife_subjects


def data(n=10, subjects=4, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 4)) + 5
    ys = [
        x @ rng.standard_normal((4, 6 + r)) + (1 + r) * rng.standard_normal((n, 6 + r))
        for r in range(subjects)
    ]
    return x, ys


def by_deletion(x, ys, groups):
    """(subjects, groups): the CKA without each group."""
    return np.array([reference.jackknife(linear(x), linear(y), groups)[0] for y in ys])


def jackknife_variance(value, left, groups, n):
    """Busing et al. 1999, Eq. 4, from pseudo-values."""
    k = len(groups)
    estimate = k * value - sum((1 - len(g) / n) * left[i] for i, g in enumerate(groups))
    total = 0.0
    for i, g in enumerate(groups):
        h = n / len(g)
        total += (h * value - (h - 1) * left[i] - estimate) ** 2 / (h - 1)
    return total / k


@each("labels", [None, [0, 0, 1, 2, 2, 2, 3, 4, 5, 6, 7, 7]])
@each("third", [False, True])
def test_errors_are_those_of_deleting_conditions_and_of_the_spread_of_subjects(labels, third):
    n, r = (10 if labels is None else len(labels)), 4
    x, ys = data(n, r)
    groups = [[i] for i in range(n)]
    if labels is not None:
        groups = [[i for i in range(n) if labels[i] == g] for g in range(8)]
    values = np.array([float(repsim.cka(x, y, estimator="unbiased")) for y in ys])
    left = by_deletion(x, ys, groups)
    minus = x[:, :2] if third else None
    if third:
        values -= [float(repsim.cka(minus, y, estimator="unbiased")) for y in ys]
        left -= by_deletion(minus, ys, groups)
    value, means = values.mean(), left.mean(axis=0)
    v_c = jackknife_variance(value, means, groups, n)
    v_s = sum((v - value) ** 2 for v in values) / (r * (r - 1))
    own = [
        jackknife_variance(v - value, row - means, groups, n)
        for v, row in zip(values, left, strict=True)
    ]
    variance = max(v_c + v_s - sum(own) / (r * (r - 1)), v_c, v_s)
    expected = {"conditions": v_c, "subjects": v_s, "both": variance}
    k = len(groups)
    freedom = {"conditions": k - 1, "subjects": r - 1, "both": min(k, r) - 1}
    for resample, wanted in expected.items():
        found = jackknife_subjects(x, ys, minus=minus, groups=labels, resample=resample)
        assert found.value == pytest.approx(value, rel=1e-9)
        np.testing.assert_allclose(found.by_subject, values, atol=1e-10)
        assert found.standard_error == pytest.approx(math.sqrt(wanted), rel=1e-6)
        others = (r * value - values) / (r - 1)
        np.testing.assert_allclose(
            found.replicates, others if resample == "subjects" else means, atol=1e-8
        )
        q, error = student.ppf(0.975, freedom[resample]), math.sqrt(wanted)
        ends = value - q * error, value + q * error
        if third:
            assert found.p_value == pytest.approx(
                2 * student.sf(abs(value) / error, freedom[resample]), rel=1e-5
            )
        else:
            ends = repeats.fisher_ends(value, error / (1 - value**2), q)
            assert math.isnan(found.p_value)
        assert (found.low, found.high) == pytest.approx(ends, rel=1e-6)
        assert (found.n_samples, found.n_subjects, found.resampled) == (n, r, resample)
        assert found.n_groups == (None if labels is None else k)
    assert found.error_of_conditions == pytest.approx(math.sqrt(v_c), rel=1e-6)
    assert found.error_of_subjects == pytest.approx(math.sqrt(v_s), rel=1e-6)


def test_one_subject_is_the_jackknife_of_two_arrays():
    x, (y,) = data(12, 1)
    found, plain = jackknife_subjects(x, y), repsim.jackknife(x, y)
    assert found.resampled == "conditions"
    assert found.standard_error == pytest.approx(plain.standard_error)
    np.testing.assert_allclose(found.replicates, plain.replicates)
    assert math.isnan(found.error_of_subjects)


def test_names_of_subjects_do_not_matter():
    x, ys = data()
    named = jackknife_subjects(x, {f"subject {r}": y for r, y in enumerate(ys)})
    assert named.standard_error == jackknife_subjects(x, ys).standard_error


def test_equal_models_do_not_differ():
    x, ys = data()
    found = jackknife_subjects(x, ys, minus=2 * x)
    assert found.p_value == 1
    assert found.value == pytest.approx(0, abs=1e-12)


def test_a_constant_model_warns_once():
    x, ys = data()
    with pytest.warns(DegenerateWarning) as caught:
        found = jackknife_subjects(np.ones_like(x), ys)
    assert len(caught) == 1
    assert math.isnan(found.value)
    assert math.isnan(found.low)


def test_what_it_refuses():
    x, ys = data()
    for arguments, options, message in (
        ((x[:7], [y[:7] for y in ys]), {}, "at least 8"),
        ((x, ys[:2]), {}, "at least 3 of them.*got 2.*resample='conditions'"),
        ((x, ys), {"groups": [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]}, "at least 8 groups"),
        (([x, x], ys), {}, r"x must be one array.*jackknife_subjects\(model, subjects\)"),
        ((x, ys), {"resample": "condition"}, "unknown resample.*Did you mean .conditions."),
        ((x, [*ys[:3], ys[3][:9]]), {}, "9"),
        ((x, ys), {"minus": x[:9]}, "minus"),
        ((x, ys), {"level": 1.5}, "level"),
    ):
        with pytest.raises((InputError, TypeError), match=f"(?s){message}"):
            jackknife_subjects(*arguments, **options)


def test_an_interval_about_the_same_conditions_leaves_none_out():
    """A model that is constant without one condition has such an interval."""
    x, ys = data()
    x[2:] = x[2]
    found = jackknife_subjects(x, ys, resample="subjects", groups=[0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
    assert found.low < found.value < found.high
    with pytest.warns(DegenerateWarning, match="constant without one of its samples"):
        assert math.isnan(jackknife_subjects(x, ys).standard_error)
