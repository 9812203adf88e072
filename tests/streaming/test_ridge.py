"""Closed-form ridge regression from streaming statistics, against loops and algebra."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference import ridge as reference
from repsim import InputError, StateError
from repsim.streaming import RidgeStatistics

RIDGES = (0.01, 1.0, 30.0)


def data(n, p, classes, *, seed=0, offset=0.0):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    x = rng.standard_normal((n, p)) * rng.uniform(0.1, 10, p) + offset
    return x + labels[:, None] * rng.standard_normal(p), labels


def statistics(x, labels, cuts=()):
    out = RidgeStatistics()
    for rows in np.split(np.arange(len(labels)), cuts):
        out.update(x[..., rows, :], labels[rows])
    return out


def solution(stats, ridge, **options):
    classifier = stats.solve(**options).weights(ridge)
    return np.asarray(classifier.weights), np.asarray(classifier.bias)[..., 0, :]


def agree(a, b, rtol=1e-9):
    for one, two in zip(a, b, strict=True):
        np.testing.assert_allclose(one, two, rtol=rtol, atol=1e-10)


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize(("n", "p"), [(40, 7), (8, 7), (7, 7), (9, 30)])
def test_the_plain_loops(n, p, standardize):
    x, labels = data(n, p, 3)
    stats = statistics(x, labels, (5,))
    assert stats.folded == (n > p)
    for ridge in RIDGES:
        expected = reference.fit(x, labels, 3, ridge, standardize)
        agree(solution(stats, ridge, standardize=standardize), expected)


def test_orthogonal_features():
    """Centred X with XᵀX = nI: W = XᵀY/(n + λ), nothing to invert."""
    n = 12
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(np.column_stack([np.ones(n), rng.standard_normal((n, 4))]))[0]
    x = basis[:, 1:] * np.sqrt(n)
    labels = np.arange(n) % 3
    y = reference.targets(labels, 3)
    for standardize in (True, False):
        for ridge in RIDGES:
            weights, bias = solution(statistics(x, labels), ridge, standardize=standardize)
            np.testing.assert_allclose(weights, x.T @ y / (n + ridge), atol=1e-12)
            np.testing.assert_allclose(bias, y.mean(0), atol=1e-12)


def test_dual_is_primal():
    """The same samples, folded into sums, or kept because constant features are added."""
    x, labels = data(20, 18, 4, offset=3.0)
    primal = statistics(x, labels, (6, 11))
    dual = statistics(np.pad(x, ((0, 0), (0, 12)), constant_values=2.0), labels, (6, 11))
    assert (dual.folded, primal.folded) == (False, True)
    for standardize in (True, False):
        for ridge in RIDGES:
            weights, bias = solution(dual, ridge, standardize=standardize)
            np.testing.assert_allclose(weights[18:], 0, atol=1e-12)
            expected = solution(primal, ridge, standardize=standardize)
            agree((weights[:18], bias), expected, rtol=1e-7)


@pytest.mark.parametrize(("n", "p"), [(12, 5), (12, 20)])
def test_a_tiny_ridge_gives_no_weight_to_directions_without_samples(n, p):
    """Its limit is the shortest solution of least squares, as of numpy.linalg.pinv."""
    rng = np.random.default_rng(4)
    x = rng.integers(-40, 40, (n, p)).astype(np.float64)
    x[:, 3], x[:, 2] = x[:, 0] + 2 * x[:, 1], x[:, 0] - x[:, 4]
    labels = np.arange(n) % 3
    y, others = reference.targets(labels, 3), rng.standard_normal((6, p))
    for scale in (1.0, 1e6):
        weights = np.linalg.pinv((x - x.mean(0)) * scale, rcond=1e-10) @ (y - y.mean(0))
        expected = (others - x.mean(0)) * scale @ weights + y.mean(0)
        for ridge in (1e-300, 1e-30, 2.0**-50 * scale**2):
            found = solution(statistics(x * scale, labels, (7,)), ridge, standardize=False)
            np.testing.assert_allclose(others * scale @ found[0] + found[1], expected, atol=1e-6)


@pytest.mark.parametrize("name", ["Ridge", "RidgeClassifier"])
@pytest.mark.parametrize(("n", "p"), [(60, 8), (10, 25)])
def test_scikit_learn(name, n, p):
    linear_model = pytest.importorskip("sklearn.linear_model")
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    x, labels = data(n, p, 3, offset=2.0)
    scaler = preprocessing.StandardScaler().fit(x)
    new = data(50, p, 3, seed=1, offset=2.0)[0]
    for ridge in RIDGES:
        theirs = getattr(linear_model, name)(alpha=ridge)
        if name == "Ridge":
            theirs.fit(scaler.transform(x), reference.targets(labels, 3))
            expected = theirs.predict(scaler.transform(new)).argmax(1)
        else:
            theirs.fit(scaler.transform(x), labels)
            expected = theirs.predict(scaler.transform(new))
        weights, bias = solution(statistics(x, labels, (4,)), ridge)
        np.testing.assert_allclose(weights.T, theirs.coef_ / scaler.scale_, rtol=1e-8, atol=1e-11)
        np.testing.assert_allclose(
            bias, theirs.intercept_ - weights.T @ scaler.mean_, rtol=1e-8, atol=1e-11
        )
        classifier = statistics(x, labels).solve().weights(ridge)
        np.testing.assert_array_equal(classifier.predict(new), expected)


@given(
    st.integers(0, 10_000),
    st.sampled_from([(12, 4), (12, 20)]),
    st.lists(st.integers(1, 11), max_size=4),
    st.integers(1, 11),
)
def test_batches_and_merging_do_not_matter(seed, size, cuts, at):
    x, labels = data(*size, 3, seed=seed, offset=50.0)
    whole = solution(statistics(x, labels), 0.7)
    agree(solution(statistics(x, labels, sorted(cuts)), 0.7), whole, rtol=1e-7)

    def first():
        return statistics(x[:at], labels[:at], [c for c in sorted(cuts) if c < at])

    def second():
        return statistics(x[at:], labels[at:], [c - at for c in sorted(cuts) if c > at])

    a, b = first(), second()
    n, kept = b.n, solution(b, 0.7)
    forward, backward = solution(first().merge(b), 0.7), solution(second().merge(a), 0.7)
    agree(forward, whole, rtol=1e-7)
    agree(backward, whole, rtol=1e-7)
    assert b.n == n  # merging into another changes nothing
    agree(solution(b, 0.7), kept, rtol=1e-12)


def test_order_of_samples_does_not_matter():
    x, labels = data(30, 5, 3)
    order = np.random.default_rng(1).permutation(30)
    agree(
        solution(statistics(x, labels, (7,)), 1.0),
        solution(statistics(x[order], labels[order], (20,)), 1.0),
    )


@given(st.integers(0, 1000), st.sampled_from([(20, 4), (9, 20)]))
def test_scale_and_translation_of_features_do_not_matter_when_standardised(seed, size):
    x, labels = data(*size, 3, seed=seed)
    rng = np.random.default_rng(seed)
    scale, shift = rng.uniform(0.01, 100, size[1]), rng.uniform(-100, 100, size[1])
    new = data(15, size[1], 3, seed=seed + 1)[0]
    weights, bias = solution(statistics(x, labels), 2.0)
    other, other_bias = solution(statistics(x * scale + shift, labels), 2.0)
    np.testing.assert_allclose(
        new @ weights + bias, (new * scale + shift) @ other + other_bias, rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize("n", [40, 6])
def test_many_problems_at_once(n):
    x, labels = data(n, 10, 3)
    other, _ = data(n, 10, 3, seed=5)
    both = statistics(np.stack([x, other]), labels, (4,))
    weights, bias = solution(both, [0.5, 8.0])
    agree((weights[0], bias[0]), solution(statistics(x, labels), 0.5))
    agree((weights[1], bias[1]), solution(statistics(other, labels), 8.0))


@pytest.mark.parametrize("n", [40, 8])
def test_assessment(n):
    x, labels = data(n, 10, 3)
    new, truth = data(30, 10, 3, seed=1)
    path = statistics(x, labels).solve()
    correct, error = path.assess(np.stack([new, -new]), truth, RIDGES)
    assert correct.shape == error.shape == (3, 2)
    for row, ridge in enumerate(RIDGES):
        model = reference.fit(x, labels, 3, ridge)
        for column, features in enumerate((new, -new)):
            expected = reference.accuracy(features, truth, *model) * 30
            assert correct[row, column] == pytest.approx(expected)
            expected = reference.squared_error(features, truth, *model)
            assert error[row, column] == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("n", [40, 6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_constant_feature_weighs_nothing(n, dtype):
    x, labels = data(n, 8, 3)
    x = x.astype(dtype)
    expected = solution(statistics(x, labels, (3,)), 1.0)
    for value in (0.1, 1e6):
        weights, bias = solution(
            statistics(np.insert(x, 2, dtype(value), axis=1), labels, (3,)), 1.0
        )
        np.testing.assert_array_equal(weights[2], 0)
        np.testing.assert_allclose(np.delete(weights, 2, axis=0), expected[0], rtol=1e-6)
        np.testing.assert_allclose(bias, expected[1], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("n", [40, 6])
def test_rounding_noise_is_constant_too(n):
    """A feature that varies only by rounding would become one of unit variance."""
    x, labels = data(n, 8, 3)
    noise = np.float32(100.0) * (1 + np.float32(1e-7) * (np.arange(n) % 2))
    weights, _ = solution(statistics(np.column_stack([x, noise]).astype(np.float32), labels), 1.0)
    np.testing.assert_array_equal(weights[-1], 0)
    clear = np.float32(100.0) * (1 + np.float32(1e-4) * (np.arange(n) % 2))
    weights, _ = solution(statistics(np.column_stack([x, clear]).astype(np.float32), labels), 1.0)
    assert np.abs(weights[-1]).max() > 0


def test_merging_keeps_the_precision_of_the_input():
    x, labels = data(40, 8, 3)
    noise = np.float32(100.0) * (1 + np.float32(1e-7) * (np.arange(40) % 2))
    single = statistics(np.column_stack([x, noise]).astype(np.float32), labels)
    weights, _ = solution(RidgeStatistics().merge(single), 1.0)
    np.testing.assert_array_equal(weights[-1], 0)


@pytest.mark.parametrize("cuts", [(), (10,), (7, 20, 30)])
def test_merging_sums_about_different_shifts(cuts):
    """The first batch of each part is far from the rest, so no term vanishes."""
    x, labels = data(60, 5, 3)
    x[:5] += 20
    x[35:40] -= 30
    parts = [
        statistics(x[:35], labels[:35], (5, *(c for c in cuts if c > 5))),
        statistics(x[35:], labels[35:], (5,)),
    ]
    assert all(part.folded for part in parts)
    expected = reference.fit(x, labels, 3, 1.0)
    agree(solution(statistics(x, labels, (5,)), 1.0), expected)
    agree(solution(RidgeStatistics().merge(parts[0]).merge(parts[1]), 1.0), expected)
    agree(solution(RidgeStatistics().merge(parts[1]).merge(parts[0]), 1.0), expected)


@pytest.mark.parametrize("n", [60, 12])
def test_features_far_from_the_origin_keep_their_digits(n):
    x, labels = data(n, 20, 3)
    far = statistics(x + 1e6, labels, (10,))
    weights, _ = solution(far, 1.0)
    # What the addition itself rounds: 1e6 · 2⁻⁵³ / 0.1.
    expected = solution(statistics((x + 1e6) - 1e6, labels), 1.0)[0]
    np.testing.assert_allclose(weights, expected, rtol=1e-6, atol=1e-8)


def test_classes_that_come_later():
    x, labels = data(40, 5, 4)
    order = np.argsort(labels)
    a = statistics(x[order], labels[order], (12, 25))
    assert a.solve(n_classes=4).coefficients.shape[-1] == 4
    agree(solution(a, 1.0), reference.fit(x, labels, 4, 1.0))


@pytest.mark.parametrize("n", [40, 4])
def test_a_class_without_samples_is_never_named(n):
    x, labels = data(n, 5, 2)
    weights, bias = solution(statistics(x, labels), 1.0, n_classes=3)
    np.testing.assert_allclose(weights[:, 2], 0, atol=1e-12)
    assert bias[2] == -1


@pytest.mark.parametrize("n", [30, 6])
def test_every_framework(eager, n):
    x, labels = data(n, 8, 3)
    stats = RidgeStatistics()
    for rows in (slice(0, 4), slice(4, n)):
        stats.update(eager.array(x[rows]), labels[rows])
    classifier = stats.solve().weights(0.5)
    assert eager.owns(classifier.weights)
    assert eager.dtype(classifier.weights).endswith("float64")
    agree(
        (eager.numpy(classifier.weights), eager.numpy(classifier.bias)[0]),
        reference.fit(x, labels, 3, 0.5),
    )
    found = eager.numpy(classifier.predict(eager.array(x)))
    np.testing.assert_array_equal(found, reference.predict(x, *reference.fit(x, labels, 3, 0.5)))
    correct, _ = stats.solve().assess(eager.array(x), labels, [0.5])
    assert eager.numpy(correct)[0] == (found == labels).sum()


@pytest.mark.parametrize("n", [30, 6])
def test_where_there_is_no_float64_the_host_has_it(n):
    """jax without x64, Apple's GPUs: float32 in, float64 statistics as NumPy arrays."""
    jax = pytest.importorskip("jax")
    x, labels = data(n, 8, 3)
    x = x.astype(np.float32)
    stats = statistics(jax.numpy.asarray(x), labels)
    classifier = stats.solve().weights(0.5)
    assert isinstance(classifier.weights, np.ndarray)
    expected = solution(statistics(x, labels), 0.5)
    agree((classifier.weights, classifier.bias[0]), expected)
    np.testing.assert_array_equal(
        classifier.predict(jax.numpy.asarray(x)), reference.predict(x, *expected)
    )


@pytest.mark.parametrize("folded", [True, False])
def test_merging_across_frameworks(folded):
    torch = pytest.importorskip("torch")
    x, labels = data(16, 4 if folded else 30, 3)
    a = statistics(x[:8], labels[:8]).merge(statistics(torch.tensor(x[8:]), labels[8:]))
    assert a.folded is folded
    agree(solution(a, 1.0), solution(statistics(x, labels), 1.0))


def test_half_precision_is_computed_wide():
    torch = pytest.importorskip("torch")
    x, labels = data(30, 6, 3)
    half = torch.tensor(x, dtype=torch.bfloat16)
    expected = reference.fit(half.double().numpy(), labels, 3, 1.0)
    agree(solution(statistics(half, labels), 1.0), expected)


class TestErrors:
    def test_nothing_added(self):
        with pytest.raises(StateError, match="no samples"):
            RidgeStatistics().solve()

    @pytest.mark.parametrize("x", [np.ones((3, 4)), np.ones(2), np.ones((2, 2, 4))])
    def test_shapes(self, x):
        stats = statistics(*data(10, 4, 2))
        with pytest.raises(InputError, match=r"RidgeStatistics.update: x must be"):
            stats.update(x, np.array([0, 1]))
        assert stats.n == 10

    def test_merging_other_features(self):
        with pytest.raises(StateError, match="same problems and features"):
            statistics(*data(10, 4, 2)).merge(statistics(*data(10, 5, 2)))

    def test_no_samples_are_no_batch(self):
        stats = statistics(*data(10, 4, 2))
        stats.update(np.ones((0, 4)), np.zeros(0, np.int64))
        assert stats.n == 10
