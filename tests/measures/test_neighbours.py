"""Neighbour measures: loops over sets, ties, and lists that carry no information."""

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import repsim
from cases import each
from measures.checks import half, lives_with_its_inputs, refuses, same_gradient, undefined
from reference import neighbours as reference
from reference.data import oracle, related
from repsim.measures import MEASURES

CASES = {
    "mutual": (repsim.mutual_knn, reference.mutual, {}),
    "mutual-euclidean": (repsim.mutual_knn, reference.mutual, {"metric": "euclidean"}),
    "jaccard": (repsim.jaccard_knn, reference.jaccard, {}),
    "jaccard-euclidean": (repsim.jaccard_knn, reference.jaccard, {"metric": "euclidean"}),
    "second-order": (repsim.second_order_cosine, reference.second_order, {}),
}
SETS = [name for name in CASES if name != "second-order"]


@each(
    ("function", "options", "expected"),
    [
        (repsim.mutual_knn, {}, 0.5666666667),
        (repsim.mutual_knn, {"metric": "euclidean"}, 0.6),
        (repsim.jaccard_knn, {}, 0.44),
    ],
)
def test_oracle(function, options, expected):
    assert float(function(*oracle(), k=3, **options)) == pytest.approx(expected, abs=1e-10)


@each("name", CASES)
@each("dtype", ["float32", "float64"])
def test_values(backend, name, dtype):
    if backend.name == "jax" and dtype == "float32":
        pytest.skip("every dtype is compiled again; the registry's tests have both")
    if backend.compiled and dtype == "float32":
        pytest.skip("compiling each takes a second; eager jax covers the dtypes")
    function, expected, options = CASES[name]
    x, y = (z.astype(dtype) for z in related(12, 5, 7))
    wanted = expected(x, y, 3, **options)
    rtol = {"float32": 1e-6, "float64": 1e-12}[dtype]
    lives_with_its_inputs(backend, function, x, y, wanted, rtol, k=3, **options)


@each("name", CASES)
@each("k", [1, 2, 5, 8])
@each("p", [2, 30])
def test_every_k(name, k, p):
    function, expected, options = CASES[name]
    x, y = related(10, p, 3, seed=k)
    out = float(function(x, y, k=k, **options))
    assert out == pytest.approx(expected(x, y, k, **options), abs=1e-12)


def test_all_neighbours():
    """k = n − 1 compares all cosines, but sets of all other samples carry no information."""
    x, y = related(8, 4, 5)
    out = repsim.second_order_cosine(x, y, k=7)
    assert float(out) == pytest.approx(reference.second_order(x, y, 7), abs=1e-12)
    for function in (repsim.mutual_knn, repsim.jaccard_knn):
        with refuses(repsim.InputError, "k=7 needs at least 9 samples", "n=8"):
            function(x, y, k=7)
    with refuses(repsim.InputError, "k=8 needs at least 9 samples", "n=8"):
        repsim.second_order_cosine(x, y, k=8)


def test_independent_data_agree_by_chance():
    rng = np.random.default_rng(0)
    values = [
        float(repsim.mutual_knn(rng.standard_normal((30, 6)), rng.standard_normal((30, 6)), k=5))
        for _ in range(200)
    ]
    assert np.mean(values) == pytest.approx(5 / 29, abs=4 * np.std(values) / np.sqrt(200))


def orders(distances, k):
    """All lists of the k nearest, one for each order of equally far samples."""
    edge = sorted(distances.values())[k - 1]
    nearer = {j for j, d in distances.items() if d < edge}
    tied = [j for j, d in distances.items() if d == edge]
    return [nearer | set(rest) for rest in itertools.combinations(tied, k - len(nearer))]


@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 4))
def test_ties(seed, k):
    """The mean over all orders of equally far samples, if one side has ties."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 3, (7, 3)).astype(float), rng.standard_normal((7, 3))
    if len(np.unique(x, axis=0)) < 3:
        return
    total = 0.0
    for i, near in enumerate(reference.nearest(y, k, "euclidean")):
        far = {j: float(((x[i] - x[j]) ** 2).sum()) for j in range(7) if j != i}
        options = orders(far, k)
        total += np.mean([len(near & option) for option in options]) / k
    for factor in (1.0, 0.1):
        out = float(repsim.mutual_knn(factor * x, y, k=k, metric="euclidean"))
        assert out == pytest.approx(total / 7, abs=1e-12)


@each("name", CASES)
@each("kind", ["duplicates", "binary", "repeated"])
def test_ties_do_not_depend_on_the_order_of_samples(name, kind):
    function, _, options = CASES[name]
    rng = np.random.default_rng(1)
    x, y = related(12, 5, 6)
    if kind == "duplicates":
        x[6:9] = x[3]
        y[1] = y[2]
    elif kind == "binary":
        x = np.concatenate([np.ones((12, 1)), rng.integers(0, 2, (12, 4))], axis=1)
    else:  # the same directions at other norms
        x[6:] = x[:6] * rng.uniform(0.1, 9, (6, 1))
    for dtype in ("float32", "float64"):
        a, b = x.astype(dtype), y.astype(dtype)
        out = float(function(a, b, k=3, **options))
        assert 0 < abs(out) < 1
        for _ in range(5):
            order = rng.permutation(12)
            again = float(function(a[order], b[order], k=3, **options))
            assert again == pytest.approx(out, abs=1e-6)
        assert float(function(a, a, k=3, **options)) == pytest.approx(1, abs=1e-6)
        assert float(function(b, a, k=3, **options)) == pytest.approx(out, abs=1e-6)


def test_ties_of_decimals_are_those_of_whole_numbers():
    """Distances follow from products, whose rounding is larger than that of a small distance."""
    functions = (
        (repsim.mutual_knn, {"k": 3, "metric": "euclidean"}),
        (repsim.rank_similarity, {"k": 10, "metric": "euclidean"}),
        (repsim.edit_knn, {"k": 10, "metric": "euclidean"}),
        (repsim.information_imbalance, {}),
    )
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x, y = (rng.integers(-20, 21, (45, p)).astype(float) for p in (2, 3))
        for function, options in functions:
            expected = pytest.approx(float(function(x, y, **options)), abs=1e-9)
            assert float(function(x / 10, y / 10, **options)) == expected, (function, seed)


def test_small_angles_between_directions_are_no_ties():
    angles = np.random.default_rng(0).random(20)
    x, y = (np.stack([np.cos(a), np.sin(a)], axis=1) for a in (1e-8 * angles, 0.1 * angles))
    assert float(repsim.mutual_knn(x, y, k=3)) == pytest.approx(1, abs=1e-12)


def test_directions_that_are_equal_but_for_the_rounding_of_float32():
    """Four samples on each ray: rounding must not decide which of the others is nearest."""
    rng = np.random.default_rng(0)
    rays = rng.standard_normal((4, 1, 5))
    x = (rays * rng.uniform(0.1, 9, (4, 4, 1))).reshape(16, 5).astype(np.float32)
    y = (rays * rng.uniform(0.1, 9, (4, 4, 1))).reshape(16, 5) + 2 * rng.standard_normal((16, 5))
    # One place for three equal candidates: each neighbour in y that is one of them counts a third.
    nearest = [min(near) for near in reference.nearest(y, 1)]
    shared = sum(j // 4 == i // 4 for i, j in enumerate(nearest))
    assert 4 < shared < 16
    out = float(repsim.mutual_knn(x, y.astype(np.float32), k=1))
    assert out == pytest.approx(shared / 3 / 16, abs=1e-6)


def test_a_neighbour_that_is_a_duplicate_counts_by_its_share():
    # Sample 0 has one place and two candidates in x, one neighbour in y: half of it is shared.
    x = np.array([[0.0], [1.0], [-1.0], [10.0], [12.0]])
    y = np.array([[0.0], [1.0], [-2.0], [10.0], [12.0]])
    out = float(repsim.mutual_knn(x, y, k=1, metric="euclidean"))
    assert out == pytest.approx((0.5 + 4) / 5)
    jaccard = float(repsim.jaccard_knn(x, y, k=1, metric="euclidean"))
    assert jaccard == pytest.approx((0.5 / 1.5 + 4) / 5)


@each("name", CASES)
def test_a_large_mean_in_float32(name):
    function, _, options = CASES[name]
    x, y = ((z + 1e4).astype(np.float32) for z in related(30, 6, 7))
    out = float(function(x, y, k=4, **options))
    wanted = float(function(x.astype(float), y.astype(float), k=4, **options))
    assert out == pytest.approx(wanted, abs=1e-3)
    if "euclidean" in name:
        exact = CASES[name][1](x, y, 4, **options)
        assert out == pytest.approx(exact, abs=1e-6)


@each("name", CASES)
@each(
    ("dtype", "scale"),
    [("float32", 1e8), ("float32", 1e-8), ("float64", 1e200), ("float64", 1e-200)],
)
def test_scale_does_not_matter(name, dtype, scale):
    function, _, options = CASES[name]
    x, y = (z.astype(dtype) for z in related(10, 5, 4))
    big = (x * np.asarray(scale, dtype)).astype(dtype)
    expected = float(function(x, y, k=3, **options))
    assert float(function(big, y, k=3, **options)) == pytest.approx(expected, abs=1e-6)
    assert float(function(x, x, k=3, **options)) == pytest.approx(1, abs=1e-6)


@each("name", CASES)
def test_half_precision(name):
    function, expected, options = CASES[name]
    x, y = related(12, 6, 5)
    half(function, x, y, lambda a, b: expected(a, b, 3, **options), 1e-6, k=3, **options)


def test_gradients_of_second_order_cosines():
    same_gradient(repsim.second_order_cosine, *related(7, 3, 4, 2), k=3)


def test_sets_have_no_gradient():
    torch = pytest.importorskip("torch")
    x, y = (torch.tensor(z, requires_grad=True) for z in related(8, 5, 4))
    for name in SETS:
        function, _, options = CASES[name]
        assert not function(x, y, k=3, **options).requires_grad


@each("name", CASES)
@each("value", [0.1, 7.7])
def test_constant(name, value):
    function, _, options = CASES[name]
    x, y = np.full((11, 3), value, np.float32), related(11, 3, 4)[1].astype(np.float32)
    about = "direction" if name == "second-order" else "equally far"
    undefined(lambda: function(x, y, k=3, **options), "x", about=about)
    undefined(lambda: function(y, x, k=3, **options), "y", about=about)
    undefined(lambda: function(x, x, k=3, **options), "x", "y", about=about)


@each("name", SETS)
def test_all_equally_far(name):
    function, _, options = CASES[name]
    y = related(8, 3, 4)[1]
    undefined(lambda: function(np.eye(8), y, k=3, **options), "x", about="equally far")
    # One pair nearer than the others: now there is something to agree on.
    x = np.eye(8)
    x[1] += 0.5 * x[0]
    assert 0 < float(function(x, y, k=3, **options)) < 1


def test_orthogonal_neighbours():
    y = related(8, 3, 4)[1]
    undefined(lambda: repsim.second_order_cosine(np.eye(8), y, k=3), "x", about="orthogonal to all")
    undefined(
        lambda: repsim.second_order_cosine(y, 0.1 * np.eye(8), k=3), "y", about="orthogonal to all"
    )


@each("name", ["mutual", "jaccard", "second-order"])
def test_a_row_of_zeros_has_no_cosine(name):
    function = CASES[name][0]
    x, y = related(9, 4, 5)
    x[2] = 0
    undefined(lambda: function(x, y, k=3), "x", about="row of zeros")
    undefined(lambda: function(y, x, k=3), "y", about="row of zeros")


def test_a_row_of_zeros_has_a_distance():
    x, y = related(9, 4, 5)
    x[2] = 0
    out = float(repsim.mutual_knn(x, y, k=3, metric="euclidean"))
    assert out == pytest.approx(reference.mutual(x, y, 3, "euclidean"))


def test_constant_under_jit():
    jax = pytest.importorskip("jax")
    run = jax.jit(lambda a, b: repsim.mutual_knn(a, b, k=3))
    assert np.isnan(float(run(np.full((9, 3), 0.1), related(9, 3, 4)[1])))


@each("k", [0, -1, 2.0, "3", None, True])
@each("name", ["mutual", "jaccard", "second-order"])
def test_bad_k(name, k):
    function = CASES[name][0]
    with refuses(repsim.InputError, f"{function.__name__}: k must be", repr(k)):
        function(*related(9, 4, 5), k=k)


def test_numpy_integers_are_integers():
    x, y = related(9, 4, 5)
    assert float(repsim.mutual_knn(x, y, k=np.int64(3))) == float(repsim.mutual_knn(x, y, k=3))


def test_unknown_metric():
    with refuses(repsim.InputError, "mutual_knn: unknown metric", "'euclidean'", "'l1'"):
        repsim.mutual_knn(*related(9, 4, 5), k=3, metric="l1")


def test_pairwise():
    x, y = related(20, 4, 5)
    out = repsim.pairwise({"a": x, "b": y}, measure="mutual_knn", k=4)
    assert float(out.sel(layer_x="a", layer_y="b")) == float(repsim.mutual_knn(x, y, k=4))
    assert out.attrs["k"] == 4
    with refuses(repsim.InputError, "k=30 needs at least 32 samples"):
        repsim.pairwise({"a": x, "b": y}, measure="mutual_knn", k=30)


def test_different_distances_that_share_places_give_a_warning(eager):
    """Rows at 1e5 standard deviations from each other leave few digits of float32."""
    x, y = related(40, 40, 40)
    grid = (np.float32(0.1) * np.round(3 * x).astype(np.float32) for x in (x, y))
    cases = [(list(grid), False)] + [
        ([(far * np.eye(40) + z).astype(np.float32) for z in (x, y)], far > 1e3)
        for far in (10.0, 1e5)
    ]
    family = [m for m in MEASURES.values() if m.family == "neighbours"]
    for m in family if eager.name == "numpy" else family[:2]:
        for rows, few in cases:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                m.function(*(eager.array(z) for z in rows), **m.preset)
                m.function(*(z.astype(np.float64) for z in rows), **m.preset)
            told = [str(w.message).partition(" in few")[0] for w in caught]
            words = [f"{m.function.__name__}: the distances of {name} differ" for name in "xy"]
            assert told == words * few, (m.name, told)
