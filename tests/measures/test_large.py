"""Many samples: lists and blocks in place of matrices; the same values in less memory."""

import tracemalloc

import numpy as np
import pytest

import repsim
from cases import each
from measures.checks import undefined
from reference import neighbours as reference
from reference.data import related

METRICS = ("cosine", "euclidean")


@each("metric", METRICS)
@pytest.mark.slow
def test_neighbours_of_many_samples_are_those_of_loops(metric):
    """More samples than one group of distances, duplicates, and several blocks of rows."""
    x, y = related(700, 5, 6)
    x[100:130] = x[7]
    y[650:] = y[:50]
    order = np.random.default_rng(0).permutation(700)
    for k in (3, 40, 698):
        out = float(repsim.mutual_knn(x, y, k=k, metric=metric))
        moved = float(repsim.mutual_knn(x[order], y[order], k=k, metric=metric))
        assert moved == pytest.approx(out, abs=1e-12)
        assert float(repsim.mutual_knn(x, x, k=k, metric=metric)) == pytest.approx(1, abs=1e-12)
    x, y = related(200, 5, 6)
    for k in (3, 40):
        expected = reference.mutual(x, y, k, metric)
        assert float(repsim.mutual_knn(x, y, k=k, metric=metric)) == pytest.approx(expected)
        expected = reference.jaccard(x, y, k, metric)
        assert float(repsim.jaccard_knn(x, y, k=k, metric=metric)) == pytest.approx(expected)


@each("metric", METRICS)
def test_memory_of_neighbours_grows_with_n_k(metric):
    n = 6500
    x, y = (np.random.default_rng(seed).standard_normal((n, 4)) for seed in range(2))
    tracemalloc.start()
    repsim.mutual_knn(x, y, k=5, metric=metric)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * n * n / 3


def test_few_clusters_of_many_equal_samples():
    """All the others of a cluster share the places of its samples."""
    n, k = 600, 5
    labels = np.arange(n) % 3
    x = np.eye(3)[labels]
    y = np.eye(3)[np.roll(labels, 1)] + 2
    assert float(repsim.mutual_knn(x, y, k=k, metric="euclidean")) == pytest.approx(1)
    y = np.eye(3)[np.sort(labels)]
    # Shares of places: k/199 on both sides, for those that share both clusters.
    joint = 3 * labels + np.sort(labels)
    both = [(joint == joint[i]).sum() - 1 for i in range(n)]
    out = float(repsim.mutual_knn(x, y, k=k, metric="euclidean"))
    assert out == pytest.approx(np.mean(both) / 199)


def test_only_some_samples_are_equally_far_from_all_others():
    """A block of samples without neighbours of their own still counts."""
    n = 1200
    x = np.eye(n)
    x[0] += 0.5 * x[1]
    y = related(n, 4, 5)[0]
    out = float(repsim.mutual_knn(x, x, k=2, metric="euclidean"))
    assert out == pytest.approx(1)
    assert 0 < float(repsim.mutual_knn(x, y, k=2, metric="euclidean")) < 0.1
    undefined(lambda: repsim.mutual_knn(np.eye(n), y, k=2), "x", about="equally far")


@each("estimator", ["biased", "unbiased"])
@each("dtype", ["float32", "float64"])
def test_a_large_gram_is_centred_as_a_small_one(estimator, dtype):
    """The same value by features, by blocks in place, and for a traced array."""
    x, y = (z.astype(dtype) for z in related(400, 5, 6))
    expected = float(repsim.cka(x, y, estimator=estimator))
    k, l = x @ x.T, y @ y.T  # noqa: E741
    before = k.copy()
    out = float(repsim.cka_from_gram(k, l, estimator=estimator))
    tolerance = {"float32": 1e-5, "float64": 1e-12}[dtype]
    assert out == pytest.approx(expected, abs=tolerance)
    np.testing.assert_array_equal(k, before)
    undefined(
        lambda: repsim.cka_from_gram(np.full((400, 400), 0.1, dtype), l, estimator=estimator),
        "k",
        about="constant",
    )


@each("estimator", ["biased", "unbiased"])
def test_distance_correlation_of_many_samples(estimator):
    x, y = related(500, 4, 5)
    a, b = (np.sqrt(((z[:, None] - z) ** 2).sum(-1)) for z in (x, y))
    wanted = float(repsim.cka_from_gram(-a, -b, estimator=estimator))
    out = repsim.distance_correlation(x, y, estimator=estimator)
    assert float(out) == pytest.approx(wanted, rel=1e-10)
    torch = pytest.importorskip("torch")
    s, t = (torch.tensor(z, requires_grad=True) for z in (x, y))
    traced = repsim.distance_correlation(s, t, estimator=estimator)
    assert traced.requires_grad
    assert float(traced.detach()) == pytest.approx(wanted, rel=1e-10)


def test_ranks_of_many_dissimilarities():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 4, (120, 3)).astype(float), rng.standard_normal((120, 4))
    pairs = np.triu_indices(120, 1)
    a, b = (((z[:, None] - z) ** 2).sum(-1)[pairs] for z in (x, y))
    wanted = float(spearmanr(a, b).statistic)
    assert float(repsim.rsa(x, y)) == pytest.approx(wanted, abs=1e-9)
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        traced = jax.jit(repsim.rsa)(x, y)
    assert float(traced) == pytest.approx(float(repsim.rsa(x, y)), abs=1e-12)


def test_whitened_correlation_of_many_samples():
    """In place, and traced by a compiler: the same value."""
    x, y = related(120, 4, 5)
    options = {"rdm": "sqeuclidean", "comparison": "whitened"}
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        traced = jax.jit(lambda a, b: repsim.rsa(a, b, **options))(x, y)
    assert float(repsim.rsa(x, y, **options)) == pytest.approx(float(traced), rel=1e-11)
