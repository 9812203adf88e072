"""Ordered neighbours: loops over lists, ties over all subsets, and what they share with sets."""

import numpy as np
import pytest

import repsim
from cases import each
from measures.checks import half, lives_with_its_inputs, refuses, undefined
from reference import neighbours as reference
from reference.data import oracle, related

CASES = {
    "rank": (repsim.rank_similarity, reference.rank_similarity, 0.6555555556),
    "joint": (repsim.joint_rank_jaccard, reference.joint_rank_jaccard, 0.3377777778),
    "cycle": (repsim.cycle_knn, reference.cycle, 0.9),
    "lcs": (repsim.lcs_knn, reference.lcs, 1.6),
    "edit": (repsim.edit_knn, reference.edit, 0.4),
}
BEST = {"rank": 1, "joint": 1, "lcs": 3, "edit": 1}


@each("name", CASES)
def test_oracle(name):
    function, loops, expected = CASES[name]
    assert float(function(*oracle(), k=3)) == pytest.approx(expected, abs=1e-10)
    assert loops(*oracle(), 3) == pytest.approx(expected, abs=1e-10)


@each("name", CASES)
def test_values(eager, name):
    function, loops, _ = CASES[name]
    x, y = related(12, 5, 7)
    for metric in ("cosine", "euclidean"):
        wanted = loops(x, y, 3, metric)
        lives_with_its_inputs(eager, function, x, y, wanted, 1e-12, k=3, metric=metric)


@each("name", CASES)
@each("k", [1, 2, 5, 8])
def test_every_k(name, k):
    function, loops, _ = CASES[name]
    for p, seed in ((2, 0), (30, 1)):
        x, y = related(10, p, 3, seed=seed)
        assert float(function(x, y, k=k)) == pytest.approx(loops(x, y, k), abs=1e-12)
        x, y = np.random.default_rng(seed).standard_normal((2, 10, 4))
        assert float(function(x, y, k=k)) == pytest.approx(loops(x, y, k), abs=1e-12)


@each("seed", range(6))
def test_ties_follow_the_rule_over_all_subsets(seed):
    """Points of a small grid: many distances are equal, and some samples are duplicates."""
    rng = np.random.default_rng(seed)
    x, y = (rng.integers(0, 3, (9, 2)).astype(float) for _ in range(2))
    for k in (1, 3):
        terms = [reference.tied_terms(x, y, i, k) for i in range(9)]
        for name, wanted in zip(("rank", "lcs", "edit"), np.mean(terms, axis=0), strict=True):
            out = float(CASES[name][0](x, y, k=k, metric="euclidean"))
            assert out == pytest.approx(wanted, abs=1e-12), name
        weights = [[reference.tied(z, i, k)[0] for i in range(9)] for z in (x, y)]
        ways = [
            max(min(w, weights[0][j].get(i, 0.0)) for j, w in weights[1][i].items())
            for i in range(9)
        ]
        out = float(repsim.cycle_knn(x, y, k=k, metric="euclidean"))
        assert out == pytest.approx(np.mean(ways), abs=1e-12)


@each("name", CASES)
@each("kind", ["duplicates", "binary", "repeated"])
def test_ties_do_not_depend_on_the_order_of_samples(name, kind):
    function = CASES[name][0]
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
        out = float(function(a, b, k=3))
        assert out > 0
        for _ in range(5):
            order = rng.permutation(12)
            assert float(function(a[order], b[order], k=3)) == pytest.approx(out, abs=1e-6)
        if name in BEST:
            assert float(function(a, a, k=3)) == pytest.approx(BEST[name], abs=1e-6)
            assert float(function(b, a, k=3)) == pytest.approx(out, abs=1e-6)
            assert out <= BEST[name]


def test_bounds_by_sets():
    rng = np.random.default_rng(0)
    for _ in range(10):
        x = rng.standard_normal((40, 3))
        y = x + rng.standard_normal((40, 3))
        lcs = float(repsim.lcs_knn(x, y, k=6))
        assert float(repsim.edit_knn(x, y, k=6)) <= lcs / 6 + 1e-12
        assert lcs <= 6 * float(repsim.mutual_knn(x, y, k=6)) + 1e-12
        joint, jaccard = (f(x, y, k=6) for f in (repsim.joint_rank_jaccard, repsim.jaccard_knn))
        assert float(joint) <= float(jaccard)


def test_neighbours_that_none_share():
    """Two rings in other orders: no list has a member in common."""
    angle = np.arange(12) * (2 * np.pi / 12)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1) + 1e-3 * related(12, 2, 2)[0]
    far = ring[np.arange(12) * 5 % 12]
    for name in ("rank", "joint", "lcs", "edit"):
        assert float(CASES[name][0](ring, far, k=2, metric="euclidean")) == 0


def test_the_step_back_is_taken_in_x():
    """Sample 3 is nobody's neighbour in x, but has neighbours on both sides."""
    x = np.array([[0.0], [1.0], [2.2], [9.0], [0.4]])
    y = np.array([[0.0], [1.0], [2.2], [3.5], [0.4]])
    for a, b in ((x, y), (y, x)):
        out = float(repsim.cycle_knn(a, b, k=1, metric="euclidean"))
        assert out == pytest.approx(reference.cycle(a, b, 1, "euclidean"))


@each("name", CASES)
def test_half_precision(name):
    function, loops, _ = CASES[name]
    half(function, *related(12, 6, 5), lambda a, b: loops(a, b, 3), 1e-6, k=3)


@each("name", CASES)
def test_equal_distances(name):
    function = CASES[name][0]
    y = related(8, 3, 4)[1]
    for x in (np.eye(8), np.full((8, 3), 0.1)):
        undefined(lambda a=x: function(a, y, k=3), "x", about="equally far")
        undefined(lambda a=x: function(y, a, k=3), "y", about="equally far")
        undefined(lambda a=x: function(a, a, k=3), "x", "y", about="equally far")
    x = related(8, 3, 4)[0]
    x[2] = 0
    undefined(lambda: function(x, y, k=3), "x", about="row of zeros")


@each("name", CASES)
def test_errors(name):
    function = CASES[name][0]
    x, y = related(9, 4, 5)
    with refuses(repsim.InputError, f"{function.__name__}: k must be"):
        function(x, y, k=0)
    with refuses(repsim.InputError, "k=8 needs at least 10 samples", "n=9"):
        function(x, y, k=8)
    with refuses(repsim.InputError, f"{function.__name__}: unknown metric", "'l1'"):
        function(x, y, k=3, metric="l1")


def test_values_that_cannot_be_read():
    jax = pytest.importorskip("jax")
    x, y = related(9, 4, 5)
    for function, _, _ in CASES.values():
        run = jax.jit(lambda a, b, function=function: function(a, b, k=3))
        with refuses(repsim.ArrayTypeError, f"{function.__name__}: x", "can be read", "jax.jit"):
            run(x, y)


def test_pairwise():
    x, y = related(20, 4, 5)
    for name, (function, _, _) in CASES.items():
        out = repsim.pairwise({"a": x, "b": y}, measure=function.__name__, k=4)
        assert float(out.sel(layer_x="a", layer_y="b")) == float(function(x, y, k=4)), name
        assert float(out.sel(layer_x="b", layer_y="a")) == float(function(y, x, k=4)), name
