"""Noise ceilings: by plain loops, and what they promise."""

import numpy as np
import pytest

import repsim
from cases import each
from reference import rdm, repeats
from repsim import InputError, noise_ceiling

RSA = ("spearman", "rho_a", "kendall", "kendall_a", "pearson", "cosine")
MATRICES = ("cka", "rv2", "distance_correlation", "rsa", "rsa_whitened", "rsa_correlation")


def subjects(n=14, count=5, noise=1.0, seed=0, widths=(6, 9, 4, 7, 5)):
    """Subjects with features of their own, who see the same causes."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((n, 3))
    return [
        truth @ rng.standard_normal((3, widths[s % len(widths)]))
        + noise * rng.standard_normal((n, widths[s % len(widths)]))
        for s in range(count)
    ]


@each("comparison", RSA)
@each("kind", ["euclidean", "correlation"])
def test_rsa_by_loops(comparison, kind):
    arrays = subjects()
    expected = repeats.ceiling_of_rdms([rdm.entries(x, kind) for x in arrays], comparison)
    found = noise_ceiling(arrays, measure="rsa", comparison=comparison, rdm=kind)
    np.testing.assert_allclose([found.from_others, found.from_all], expected, rtol=1e-10)
    assert found.lower == pytest.approx(expected[0].mean())
    assert found.upper == pytest.approx(expected[1].mean())
    assert (found.n_repeats, found.n_samples, found.pool) == (5, 14, "matrices")


def test_ranks_of_ties():
    """Integers have equal distances; the average of two repeats ties again."""
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 2, (9, 4)).astype(float) for _ in range(4)]
    for comparison in ("spearman", "rho_a", "kendall", "kendall_a"):
        expected = repeats.ceiling_of_rdms([rdm.entries(x) for x in arrays], comparison)
        found = noise_ceiling(arrays, comparison=comparison)
        np.testing.assert_allclose([found.from_others, found.from_all], expected, rtol=1e-10)


@each("estimator", ["biased", "unbiased"])
def test_cka_by_centred_grams(estimator):
    """The average of normalised centred Grams, compared by their cosine."""
    arrays = subjects()
    centre = {"biased": repsim.estimators.double_centre, "unbiased": repsim.estimators.u_centre}
    grams = [centre[estimator](np, x @ x.T) for x in arrays]
    grams = [k / np.linalg.norm(k) for k in grams]
    found = noise_ceiling(arrays, measure="cka", estimator=estimator)
    for r, k in enumerate(grams):
        total = sum(grams)
        assert found.from_all[r] == pytest.approx(np.sum(k * total) / np.linalg.norm(total))
        left = total - k
        assert found.from_others[r] == pytest.approx(np.sum(k * left) / np.linalg.norm(left))


@each("measure", [*MATRICES[:3], "rsa_whitened"])
def test_no_model_beats_the_upper_bound(measure):
    arrays = subjects()
    options = {"estimator": "unbiased"} if measure in ("cka", "distance_correlation") else {}
    upper = noise_ceiling(arrays, measure=measure).upper
    entry = repsim.measures.MEASURES[measure]
    rng = np.random.default_rng(1)
    models = [*arrays, *(rng.standard_normal((14, p)) for p in (2, 9, 40))]
    models += [np.concatenate([x / np.linalg.norm(x) for x in arrays], axis=1)]
    for model in models:
        scores = [entry.function(model, x, **entry.preset, **options) for x in arrays]
        assert np.mean(scores) <= upper + 1e-12


def test_the_truth_lies_between():
    """On average over data sets; the true model has no noise."""
    found = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        truth = rng.standard_normal((20, 3))
        arrays = [
            truth @ rng.standard_normal((3, 12)) + 2 * rng.standard_normal((20, 12))
            for _ in range(6)
        ]
        ceiling = noise_ceiling(arrays, comparison="pearson")
        score = np.mean([repsim.rsa(truth, x, comparison="pearson") for x in arrays])
        found.append((ceiling.lower, score, ceiling.upper))
    lower, score, upper = np.mean(found, axis=0)
    assert lower < score < upper


@each("measure", ["cca", "linear_regression_r2", "mutual_knn", "procrustes", "gulp", "cka"])
def test_features_by_loops(measure):
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((30, 4))
    arrays = [truth + 0.7 * rng.standard_normal((30, 4)) for _ in range(4)]
    options = {"k": 5} if measure == "mutual_knn" else {}
    estimator = {"estimator": "unbiased"} if measure == "cka" else {}
    function = lambda x, y: float(getattr(repsim, measure)(x, y, **options, **estimator))  # noqa: E731
    expected = repeats.ceiling_of_features(arrays, function)
    found = noise_ceiling(arrays, measure=measure, pool="features", **options)
    np.testing.assert_allclose([found.from_others, found.from_all], expected, rtol=1e-9)
    assert found.lower < found.upper
    distance = not found.similarity
    assert distance == (measure in ("procrustes", "gulp"))
    np.testing.assert_allclose(
        [found.lower, found.upper], np.sort(expected.mean(axis=1)), rtol=1e-9
    )
    assert (found.lower == pytest.approx(expected[1].mean())) == distance


def test_what_repeats_may_be():
    arrays = subjects(widths=(6,))
    expected = noise_ceiling(arrays)
    for given in ({f"s{i}": x for i, x in enumerate(arrays)}, np.stack(arrays), tuple(arrays)):
        assert noise_ceiling(given).lower == expected.lower
    torch = pytest.importorskip("torch")
    found = noise_ceiling([torch.tensor(x, requires_grad=True) for x in arrays])
    assert found.upper == pytest.approx(expected.upper, rel=1e-12)
    single = noise_ceiling(np.stack(arrays).astype(np.float32))
    assert single.upper == pytest.approx(expected.upper, rel=1e-4)
    same = noise_ceiling([arrays[0], 3 * arrays[0]], comparison="pearson")
    assert same.lower == pytest.approx(1)
    assert same.upper == pytest.approx(1)
    assert "5 repeats of 14 samples" in repr(expected)


def test_a_constant_repeat():
    arrays = [*subjects(), np.ones((14, 3))]
    for measure in MATRICES:
        with pytest.warns(repsim.DegenerateWarning, match=r"repeats\[5\]"):
            found = noise_ceiling(arrays, measure=measure)
        assert np.isnan(found.lower)
        assert np.isnan(found.upper)


@pytest.mark.parametrize("kind", ["cosine", "correlation"])
def test_a_repeat_with_a_row_that_has_no_direction(kind):
    arrays = subjects()
    arrays[2][3] = 0
    for comparison in ("spearman", "rho_a", "kendall", "pearson", "cosine", "whitened"):
        with pytest.warns(repsim.DegenerateWarning, match=r"repeats\[2\] has a row"):
            found = noise_ceiling(arrays, rdm=kind, comparison=comparison)
        assert np.isnan([found.lower, found.upper, *found.from_all]).all()


def test_what_has_no_ceiling():
    arrays = subjects()
    refused = [
        ("compares no matrices.*\n.*'rsa'", {"measure": "cca"}),
        ("same features of all repeats", {"measure": "cca", "pool": "features"}),
        ("pool", {"pool": "mean"}),
        ("unknown measure", {"measure": "nonsense"}),
        ("partial alignment", {"measure": "cka", "given": arrays[0]}),
        ("not a cosine", {"measure": "cka", "features": "sampled"}),
        ("unknown options", {"kernel": "rbf"}),
    ]
    for match, options in refused:
        with pytest.raises(InputError, match=match):
            noise_ceiling(arrays, **options)
    bad = np.array(arrays[1])
    bad[3, 2] = np.nan
    for match, given in (
        ("at least 2 arrays", arrays[:1]),
        ("sequence or a mapping", 5),
        (r"several subjects.*\n.*, which is one \(n, p\)", arrays[0]),
        ("same samples", [arrays[0], arrays[1][:9]]),
        (r"repeats\[1\]", [arrays[0], bad]),
    ):
        with pytest.raises(InputError, match=match):
            noise_ceiling(given)
    with pytest.raises(repsim.ArrayTypeError):
        noise_ceiling(["a", "b"])


def test_samples_by_repeats_are_doubted():
    """Recordings are often stored as stimuli by repeats by neurons."""
    recording = np.random.default_rng(0).standard_normal((12, 5, 7))
    with pytest.warns(repsim.RepsimWarning, match=r"pass numpy.moveaxis\(repeats, 1, 0\)"):
        expected = noise_ceiling(recording)
    assert noise_ceiling(list(recording)).lower == expected.lower  # no warning
    assert noise_ceiling(np.moveaxis(recording, 1, 0)).n_samples == 12


@each("comparison", [*RSA, "whitened"])
def test_ready_rdms(comparison):
    arrays = subjects()
    expected = noise_ceiling(arrays, comparison=comparison)
    rdms = [repsim.rdm(x) for x in arrays]
    found = noise_ceiling(rdms, rdm="precomputed", comparison=comparison)
    assert (found.lower, found.upper) == pytest.approx((expected.lower, expected.upper))
    with pytest.raises(InputError, match="noise_ceiling: repeats.0. must be an RDM"):
        noise_ceiling(arrays, rdm="precomputed", comparison=comparison)
    upper = [x[np.triu_indices(len(x), 1)] for x in rdms]
    for more in (upper, np.stack(rdms), np.stack(upper)):
        assert noise_ceiling(more, rdm="precomputed", comparison=comparison).upper == found.upper
    many = np.stack(rdms * 6)  # more subjects than samples, which are not taken for repeats
    noise_ceiling(many, rdm="precomputed", comparison=comparison)
    with pytest.raises(InputError, match="'precomputed'"):
        noise_ceiling(rdms, rdm="precomputed", pool="features")
