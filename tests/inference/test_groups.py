"""Labels of samples that belong together, for every function that takes them."""

import numpy as np
import pytest

import repsim
from reference.data import related
from repsim import InputError, inference

FUNCTIONS = (repsim.permutation_test, repsim.jackknife, inference.subsample)
X, Y = related(12, 3, 3)


@pytest.mark.parametrize("function", FUNCTIONS)
class TestRefuses:
    def test_another_number_of_labels(self, function):
        with pytest.raises(InputError, match=r"got 11 labels for n=12 samples"):
            function(X, Y, groups=[0] * 11)

    def test_one_group(self, function):
        with pytest.raises(InputError, match="at least two groups"):
            function(X, Y, groups=np.zeros(12))

    @pytest.mark.parametrize("groups", ["abcdefghijkl", 12, {0: 1}.items])
    def test_labels_that_are_not_a_list(self, function, groups):
        with pytest.raises(InputError, match="one label for each sample"):
            function(X, Y, groups=groups)

    def test_a_matrix(self, function):
        with pytest.raises(InputError, match=r"one-dimensional.\n  got shape \(12, 1\)"):
            function(X, Y, groups=np.arange(12)[:, None])

    @pytest.mark.parametrize("missing", [None, float("nan")])
    def test_a_missing_label(self, function, missing):
        with pytest.raises(InputError, match="a label for every sample.\n  got .* in row 3"):
            function(X, Y, groups=[1, 1, 1, missing, *[2] * 8])

    def test_labels_that_cannot_be_compared(self, function):
        with pytest.raises(InputError, match=r"can be compared: .*\n  got \[1\] in row 0"):
            function(X, Y, groups=[[1], [2]] * 6)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_labels_of_any_kind_say_the_same(function):
    options = {} if function is repsim.jackknife else {"seed": 5}
    kinds = [
        np.repeat([7, 3, 5, 1], 3),
        ["d", "d", "d", "b", "b", "b", "c", "c", "c", "a", "a", "a"],
        [(0, "x")] * 3 + [(1, "x")] * 3 + [(0, "y")] * 3 + [(1, "y")] * 3,
        np.repeat([0.5, 0.25, 2.0, 1.0], 3),
    ]
    found = [function(X, Y, groups=groups, **options) for groups in kinds]
    values = [f.null if isinstance(f, inference.PermutationTest) else f.replicates for f in found]
    for other in values[1:]:
        np.testing.assert_array_equal(values[0], other)
    assert [f.n_groups for f in found] == [4] * 4
    assert len(np.unique(np.round(values[0], 12))) > 2


def test_labels_are_compared_and_not_their_names():
    found = repsim.jackknife(X, Y, groups=[1, "1", 2, "2"] * 3)
    assert found.n_groups == 4


def test_the_order_of_the_groups_is_that_of_first_appearance():
    """The jackknife leaves out one group after the other, in this order."""
    found = repsim.jackknife(X, Y, groups=[*"bab", *"cacbcaabc"])
    labels = np.array([*"babcacbcaabc"])
    for label, replicate in zip("bac", found.replicates, strict=True):
        rows = labels != label
        expected = repsim.cka(X[rows], Y[rows], estimator="unbiased")
        assert replicate == pytest.approx(float(expected), rel=1e-9), label


def test_a_measure_that_holds_groups_out_is_told_them():
    """Views of an object in another fold predict it, so the value was far too high."""
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(10), 4)
    x, y = (rng.standard_normal((10, p))[labels] for p in (4, 3))
    x, y = (z + 0.3 * rng.standard_normal(z.shape) for z in (x, y))
    options = {"folds": 3, "ridge": 0.5}
    inferred = {"measure": "predictivity", "groups": labels, "seed": 2, **options}

    def value(rows_x, rows_y=None):
        a, b = x[rows_x], y[rows_x if rows_y is None else rows_y]
        return float(repsim.predictivity(a, b, groups=labels[rows_x], **options))

    every = np.arange(40)
    draw = np.random.default_rng(2)
    orders = [every.reshape(4, 10)[:, draw.permutation(10)].reshape(-1) for _ in range(6)]
    test = repsim.permutation_test(x, y, permutations=6, **inferred)
    np.testing.assert_allclose(test.null, [value(every, order) for order in orders], rtol=1e-9)
    mapped = repsim.max_t({"x": x}, {"y": y}, permutations=6, **inferred)
    draw = np.random.default_rng(2)
    kept = [np.flatnonzero(np.isin(labels, draw.permutation(10)[:5])) for _ in range(6)]
    halves = inference.subsample(x, y, draws=6, **inferred)
    np.testing.assert_allclose(halves.replicates, [value(rows) for rows in kept], rtol=1e-9)
    for found in (test.value, mapped.predictivity.item(), halves.value):
        assert found == pytest.approx(value(every))
    apart = float(repsim.predictivity(x, y, **options))
    assert value(every) < 0 < apart
