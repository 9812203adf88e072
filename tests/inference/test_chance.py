"""The biased CKA by chance, and the score above it."""

import math

import numpy as np
import pytest

import repsim
from reference import inference as reference
from reference import kernels as grams
from reference.data import related
from repsim import DegenerateWarning, InputError, calibrated_score, chance_floor


def independent(n=30, p=80, q=90, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, p)), rng.standard_normal((n, q))


@pytest.mark.parametrize(("kernel", "gram"), [("linear", grams.linear), ("rbf", grams.rbf)])
@pytest.mark.parametrize("shape", [(5, 2, 1), (5, 9, 30)])
def test_floor_is_the_mean_of_all_permutations(kernel, gram, shape):
    x, y = related(*shape)
    every = reference.all_permuted(gram(x), gram(y), "biased")
    assert float(chance_floor(x, y, kernel=kernel)) == pytest.approx(every.mean(), rel=1e-10)


def test_floor_of_white_noise_is_where_independent_data_lie():
    x, y = independent(40, 400, 300)
    floor = float(chance_floor(x, y))
    assert floor > 0.85
    assert float(repsim.cka(x, y)) == pytest.approx(floor, abs=0.02)


def test_floor_of_two_samples_is_one():
    # One direction each: any two centred pairs of points are the same up to scale.
    x, y = related(2, 3, 4)
    assert float(chance_floor(x, y)) == pytest.approx(1.0, rel=1e-12)


def test_floor_in_every_framework(backend):
    x, y = related(9, 4, 30)
    expected = float(chance_floor(x, y))
    out = backend.call(chance_floor, x.astype("float32"), y.astype("float32"))
    assert backend.owns(out)
    assert tuple(out.shape) == ()
    assert backend.dtype(out) == "float32"
    assert float(out) == pytest.approx(expected, rel=1e-5)


def test_floor_of_a_constant():
    with pytest.warns(DegenerateWarning, match="chance_floor: x is constant"):
        assert math.isnan(chance_floor(np.ones((6, 2)), related(6, 2, 2)[1]))


def test_floor_names_itself_in_errors():
    with pytest.raises(InputError, match="chance_floor: x and y must describe the same samples"):
        chance_floor(np.ones((6, 2)), np.ones((5, 2)))


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
def test_score_of_the_same_is_one(estimator):
    x, _ = independent()
    assert calibrated_score(x, 3 * x + 1, estimator=estimator).score == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
def test_score_of_independent_data_is_zero_but_for_alpha(estimator):
    scores = [
        calibrated_score(
            *independent(12, 20, 30, seed), permutations=39, alpha=0.25, estimator=estimator
        ).score
        for seed in range(80)
    ]
    # Above zero with a probability of 0.25 at most: Binomial(80, .25) exceeds 36 once in 40 000.
    above = sum(score > 0 for score in scores)
    assert 4 <= above <= 36
    assert min(scores) == 0.0


def test_score_by_its_definition():
    x, noise = np.random.default_rng(0).standard_normal((2, 20, 4))
    y = x + noise
    test = repsim.permutation_test(x, y, permutations=99, seed=3)
    found = calibrated_score(x, y, permutations=99, alpha=0.1, seed=3)
    tau = sorted([test.value, *test.null])[90 - 1]
    assert found.threshold == pytest.approx(tau, abs=1e-12)
    assert found.score == pytest.approx((test.value - tau) / (1 - tau), abs=1e-12)
    assert 0 < found.score < found.value < 1
    assert (found.measure, found.alpha, found.permutations, found.n_samples) == ("cka", 0.1, 99, 20)
    assert repr(found) == (
        f"CalibratedScore(cka={found.value:.4f}, score={found.score:.4f}, "
        f"threshold={found.threshold:.4f} at alpha=0.1)"
    )


def test_score_is_above_zero_only_if_the_test_rejects():
    for seed in range(12):
        x, noise = np.random.default_rng(seed).standard_normal((2, 8, 2))
        y = x + noise
        found = calibrated_score(x, y, permutations=19, alpha=0.2, seed=seed)
        p = repsim.permutation_test(x, y, permutations=19, seed=seed).p_value
        assert found.score == 0 or p <= 0.2


def test_permuted_values_that_rounding_makes_smaller_are_equal():
    """The score was 1e-16 with a p-value above α."""
    for seed, n, options in (
        (9, 6, {"measure": "cka"}),
        (9, 6, {"measure": "nbs"}),
        (37, 6, {"measure": "distance_correlation"}),
        (41, 6, {"measure": "cka", "estimator": "biased"}),
    ):
        rng = np.random.default_rng(seed)
        x, y = np.eye(3)[rng.integers(0, 3, n)], 1.7 * np.eye(2)[rng.integers(0, 2, n)]
        y += x @ rng.standard_normal((3, 2))
        for dtype in (np.float64, np.float32):
            found = calibrated_score(
                x.astype(dtype), y.astype(dtype), permutations=39, seed=seed, **options
            )
            assert found.score == 0


def test_score_of_another_measure():
    x, y = independent(24, 5, 5)
    options = {"measure": "mutual_knn", "k": 3, "permutations": 19}
    assert calibrated_score(x, 2 * x, **options).score == 1.0
    assert calibrated_score(x, y, **options).score < 0.3


def test_score_of_a_constant():
    x, _ = independent(12, 3, 3)
    with pytest.warns(DegenerateWarning, match="y is constant"):
        assert math.isnan(calibrated_score(x, np.ones((12, 2)), permutations=19).score)


def test_score_where_every_order_is_as_good():
    # Two groups of equal samples: after any permutation the CKA is 1.
    x = np.repeat([[0.0], [1.0]], 4, axis=0)
    with pytest.warns(DegenerateWarning, match="permuted samples reach the greatest value"):
        found = calibrated_score(
            x, x, estimator="biased", groups=np.repeat([0, 1], 4), permutations=19
        )
    assert found.value == found.threshold == pytest.approx(1.0)
    assert math.isnan(found.score)


def test_score_refuses():
    x, y = independent(10, 2, 2)
    with pytest.raises(InputError, match=r"similarity whose greatest value is 1.\n  procrustes"):
        calibrated_score(x, y, measure="procrustes")
    with pytest.raises(InputError, match="similarity whose greatest value is 1"):
        calibrated_score(x, y, measure="hsic")
    with pytest.raises(InputError, match=r"no quantile for alpha=0.05.\n  Ask for at least 19"):
        calibrated_score(x, y, permutations=18)
    for alpha in (0, 1.0, -0.1, "low"):
        with pytest.raises(InputError, match="alpha must be a finite number above 0 and below 1"):
            calibrated_score(x, y, alpha=alpha)
