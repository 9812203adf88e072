"""RSA: the published values, ties, rows without a direction, constant RDMs."""

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr

import repsim
from cases import each
from measures.checks import (
    half,
    lives_with_its_inputs,
    refuses,
    right_gradient,
    same_gradient,
    undefined,
)
from reference import rdm as reference
from reference.data import oracle, related

RDMS = ("euclidean", "sqeuclidean", "correlation", "cosine")
COMPARISONS = ("spearman", "rho_a", "pearson", "cosine", "whitened")
EVERY = [(rdm, comparison) for rdm in RDMS for comparison in COMPARISONS]


@each(
    ("options", "expected"),
    [
        ({}, 0.55928853754941),
        ({"comparison": "pearson"}, 0.58394514121023),
        ({"rdm": "correlation"}, 0.61620553359684),
        ({"comparison": "rho_a"}, 0.55928853754941),
        ({"comparison": "rho_a", "rdm": "correlation"}, 0.61620553359684),
        ({"comparison": "cosine", "rdm": "sqeuclidean"}, 0.8226500472305),
        ({"comparison": "pearson", "rdm": "sqeuclidean"}, 0.5648409110677),
        ({"comparison": "whitened", "rdm": "sqeuclidean"}, 0.6379457573457),
    ],
)
def test_oracle(options, expected):
    assert float(repsim.rsa(*oracle(), **options)) == pytest.approx(expected, abs=1e-12)


@each(("rdm", "comparison"), EVERY)
@each("dtype", ["float32", "float64"])
def test_values(backend, rdm, comparison, dtype):
    if backend.name == "jax" and dtype == "float32":
        pytest.skip("every dtype is compiled again; the registry's tests have both")
    if backend.compiled and (dtype == "float32" or (rdm, comparison) not in EVERY[::5]):
        pytest.skip("compiling each takes a second; eager jax covers the rest")
    x, y = (z.astype(dtype) for z in related(12, 5, 7))
    expected = reference.rsa(x, y, rdm, comparison)
    rtol = {"float32": 1e-5, "float64": 1e-11}[dtype]
    lives_with_its_inputs(backend, repsim.rsa, x, y, expected, rtol, rdm=rdm, comparison=comparison)


def test_the_whitened_cosine_of_squared_distances_is_linear_cka():
    """Which is why there is no other name for it."""
    x, y = related(9, 4, 5)
    inner = np.eye(9) - 1 / 9
    a, b = (-inner @ repsim.rdm(z, "sqeuclidean") @ inner for z in (x, y))
    expected = (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())
    assert float(repsim.cka(x, y)) == pytest.approx(expected, abs=1e-12)


def test_whitened_builds_no_matrix_of_pairs():
    x, y = related(600, 5, 6)  # 179 700 pairs: V would take 258 GB
    assert 0.1 < float(repsim.rsa(x, y, rdm="sqeuclidean", comparison="whitened")) < 1


def test_repeated_measurements(eager):
    """Without noise that repeats share, the true geometry; the axis of repeats must be there."""
    x, y = related(9, 4, 5)
    rng = np.random.default_rng(1)
    a, b = (z[:, None] + rng.standard_normal((9, 3, z.shape[1])) for z in (x, y))
    for comparison in COMPARISONS:
        options = {"rdm": "crossnobis", "repeats": 3, "comparison": comparison}
        off = np.triu_indices(9, 1)
        expected = reference.COMPARISON[comparison](
            *(reference.crossnobis(z, np.eye(z.shape[2]))[off] for z in (a, b))
        )
        out = eager.call(repsim.rsa, a, b, **options)
        assert float(out) == pytest.approx(expected, abs=1e-10)
        found = repsim.pairwise({"a": a}, {"b": b}, measure="rsa", **options)
        assert found.item() == pytest.approx(expected, abs=1e-10)
    with refuses(repsim.InputError, "rsa: 'crossnobis' needs repeated", "repeats="):
        repsim.rsa(a, b, rdm="crossnobis")
    told = ("rsa: x must hold 2 repeats", "(n, 2, p)", "(9, 3, 4)", "A model has no repeats")
    with refuses(repsim.InputError, *told):
        repsim.rsa(a, b, rdm="crossnobis", repeats=2)
    with refuses(repsim.InputError, "xs['a'] must hold 5 repeats"):
        repsim.pairwise({"a": a}, {"b": b}, measure="rsa", rdm="crossnobis", repeats=5)
    with refuses(repsim.InputError, "repeats must be an integer of at least 2"):
        repsim.rsa(a, b, rdm="crossnobis", repeats=1)
    with refuses(repsim.InputError, "only 'crossnobis' takes repeats"):
        repsim.rsa(a, b, repeats=3)


def all_orders(d):
    """The ranks of d in each order of its equal entries."""
    groups = [np.flatnonzero(d == value) for value in np.unique(d)]
    for orders in itertools.product(*(itertools.permutations(group) for group in groups)):
        ranks = np.empty(len(d))
        ranks[np.concatenate(orders)] = np.arange(len(d))
        yield ranks


def test_rho_a_is_the_mean_over_all_orders_of_equal_dissimilarities():
    x, y = np.array([[0.0], [1.0], [3.0], [4.0]]), np.array([[0.0], [2.0], [1.0], [5.0]])
    a, b = pdist(x), pdist(y)
    assert len(set(a)) < 6
    pairs = itertools.product(all_orders(a), all_orders(b))
    expected = np.mean([np.corrcoef(r, s)[0, 1] for r, s in pairs])
    assert reference.rsa(x, y, comparison="rho_a") == pytest.approx(expected, abs=1e-12)
    assert float(repsim.rsa(x, y, comparison="rho_a")) == pytest.approx(expected, abs=1e-12)
    assert abs(expected - float(repsim.rsa(x, y))) > 0.005
    assert float(repsim.rsa(x, x, comparison="rho_a")) < 1


@each(("rdm", "comparison"), EVERY)
def test_trailing_axes_are_features(rdm, comparison):
    x, y = related(9, 12, 4)
    out = repsim.rsa(x.reshape(9, 2, 3, 2), y, rdm=rdm, comparison=comparison)
    assert float(out) == float(repsim.rsa(x, y, rdm=rdm, comparison=comparison))


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(4, 14), levels=st.integers(2, 4))
def test_equal_distances_have_equal_ranks(seed, n, levels):
    """Small integers have many equal distances; rounding must not order them."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, levels, (n, 5)), rng.integers(0, levels, (n, 6))
    a, b = (np.round(pdist(z, "sqeuclidean")) for z in (x, y))
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return
    expected = spearmanr(a, b)[0]
    for dtype in ("float32", "float64"):
        # Tenths are not exact, so in float32 they have no ties.
        for factor in (1.0, 2.0**-20, *([0.1, 1e-6] if dtype == "float64" else [])):
            out = repsim.rsa((factor * x).astype(dtype), y.astype(dtype))
            assert float(out) == pytest.approx(expected, abs=1e-6)


def test_different_distances_that_share_a_rank_give_a_warning(eager):
    """Rows of 3e5 standard deviations leave Spearman few digits of float32; Kendall has fewer."""
    noise = related(60, 60, 60)
    for far, comparison in ((1e3, "spearman"), (3e5, "spearman"), (3e4, "kendall")):
        rows = [(far * np.eye(60) + z).astype(np.float32) for z in noise]
        exact = repsim.rsa(*(z.astype(np.float64) for z in rows), comparison=comparison)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            out = repsim.rsa(*(eager.array(z) for z in rows), comparison=comparison)
            grid = (np.float32(0.1) * np.round(4 * z).astype(np.float32) for z in noise)
            repsim.rsa(*grid, comparison=comparison)  # equal distances
        few = far > 1e3
        words = [f"rsa: the dissimilarities of {name} differ in few digits" for name in "xy"]
        assert [str(w.message).partition(",")[0] for w in caught] == words * few
        assert (abs(float(out) - float(exact)) > 1e-3) is few


def test_duplicated_samples():
    x, y = related(8, 5, 6)
    rows = [*range(8), 0, 0, 3]
    expected = reference.rsa(x[rows], y[rows])
    assert float(repsim.rsa(x[rows], y[rows])) == pytest.approx(expected, abs=1e-12)
    # In another order, and with directions that are equal up to a factor.
    out = repsim.rsa((x * np.arange(1, 9)[:, None])[rows], y[rows], rdm="cosine")
    same = repsim.rsa(x[rows], y[rows], rdm="cosine")
    assert float(out) == pytest.approx(float(same), abs=1e-12)


def precise(x, rdm):
    """The RDM of data with a large mean: 1 − cos cancels even in float64, ‖u − v‖²/2 does not."""
    x = x.astype(np.longdouble)
    if rdm == "correlation":
        x = x - x.mean(axis=1, keepdims=True)
    if not rdm.endswith("euclidean"):
        x = x / np.sqrt((x * x).sum(axis=1, keepdims=True))
    i, j = np.triu_indices(len(x), 1)
    d = ((x[i] - x[j]) ** 2).sum(axis=1)
    return np.asarray(np.sqrt(d) if rdm == "euclidean" else d, np.float64)


@each("rdm", RDMS)
@each("mean", [30, 1e4])
def test_a_large_mean_in_float32(eager, rdm, mean):
    if eager.name == "jax" and mean == 30:
        pytest.skip("the larger one is harder")
    x, y = ((z + mean).astype(np.float32) for z in related(20, 6, 7))
    for comparison in ("spearman", "pearson", "whitened"):
        expected = reference.COMPARISON[comparison](precise(x, rdm), precise(y, rdm))
        out = repsim.rsa(eager.array(x), eager.array(y), rdm=rdm, comparison=comparison)
        # Data on a grid of 1e-3 have distances that agree to 17 bits, and are not equal.
        assert float(out) == pytest.approx(expected, abs=1e-4 if comparison == "spearman" else 1e-6)


@each("rdm", RDMS)
@each(
    ("dtype", "scale"),
    [("float32", 1e8), ("float32", 1e-8), ("float64", 1e200), ("float64", 1e-200)],
)
def test_scale_does_not_matter(rdm, dtype, scale):
    x, y = (z.astype(dtype) for z in related(10, 5, 4))
    for comparison in COMPARISONS:
        options = {"rdm": rdm, "comparison": comparison}
        expected = float(repsim.rsa(x, y, **options))
        big = np.asarray(x * np.asarray(scale, dtype), dtype)
        assert float(repsim.rsa(big, y, **options)) == pytest.approx(expected, abs=1e-6)
        assert float(repsim.rsa(big, big, **options)) == pytest.approx(1, abs=1e-6)


@each("comparison", COMPARISONS)
def test_half_precision(comparison):
    x, y = related(12, 6, 5)
    half(
        repsim.rsa,
        x,
        y,
        lambda a, b: reference.rsa(a, b, "euclidean", comparison),
        # bfloat16 makes near-ties, which ranks of a coarser mantissa may join.
        2e-3 if comparison == "spearman" else 1e-6,
        comparison=comparison,
    )


@each("rdm", RDMS)
@each("comparison", ["pearson", "cosine", "whitened"])
def test_gradients(rdm, comparison):
    options = {"rdm": rdm, "comparison": comparison}
    right_gradient(repsim.rsa, *related(6, 4, 5, 2), **options)
    if rdm == "correlation" and comparison == "pearson":
        same_gradient(repsim.rsa, *related(6, 4, 5, 2), **options)


def test_gradients_exist_at_duplicates():
    torch = pytest.importorskip("torch")
    x, y = (torch.tensor(z) for z in related(8, 5, 4, 2))
    x[3] = x[2]
    for rdm in RDMS:
        a = x.clone().requires_grad_()
        repsim.rsa(a, y, rdm=rdm, comparison="pearson").backward()
        assert bool(torch.isfinite(a.grad).all())
        assert float(a.grad.abs().max()) > 0


def test_ranks_have_no_gradient():
    torch = pytest.importorskip("torch")
    x, y = (torch.tensor(z, requires_grad=True) for z in related(8, 5, 4))
    assert not repsim.rsa(x, y).requires_grad


@each(("rdm", "comparison"), [(r, c) for r, c in EVERY if r == "euclidean"])
@each("value", [0.0, 0.1, 7.7])
def test_constant(rdm, comparison, value):
    x = np.full((11, 3), value, np.float32)
    y = related(11, 3, 4)[1].astype(np.float32)

    def call(a, b):
        return lambda: repsim.rsa(a, b, rdm=rdm, comparison=comparison)

    undefined(call(x, y), "x", about="same for all samples")
    undefined(call(y, x), "y", about="same for all samples")
    undefined(call(x, x), "x", "y", about="same for all samples")


def test_all_samples_equally_far():
    y = related(6, 3, 4)[1]
    for x in (np.eye(6), 0.1 * np.eye(6, dtype=np.float32), np.eye(6) + 1000):
        for comparison in ("spearman", "pearson"):
            undefined(
                lambda x=x, c=comparison: repsim.rsa(x, y.astype(x.dtype), comparison=c),
                "x",
                about="same dissimilarity",
            )
    assert 0 < float(repsim.rsa(np.eye(6), y, comparison="cosine")) < 1


def test_rows_without_a_direction(eager):
    if eager.name == "jax":
        pytest.skip("the registry's tests cover it")
    x, y = related(9, 4, 5)
    zero, flat = x.copy(), x.copy()
    zero[2] = 0
    flat[3] = 0.7
    b = eager.array(y)
    for comparison in COMPARISONS:
        undefined(
            lambda c=comparison: repsim.rsa(eager.array(zero), b, rdm="cosine", comparison=c),
            "x",
            about="row of zeros",
        )
        undefined(
            lambda c=comparison: repsim.rsa(b, eager.array(flat), rdm="correlation", comparison=c),
            "y",
            about="same in all features",
        )
    # One feature has no correlation with itself over features.
    undefined(
        lambda: repsim.rsa(eager.array(x[:, :1]), b, rdm="correlation"),
        "x",
        about="same in all features",
    )


@each(("rdm", "comparison"), [("euclidean", "spearman"), ("cosine", "pearson")])
def test_undefined_under_jit(rdm, comparison):
    jax = pytest.importorskip("jax")
    x, y = np.zeros((9, 3)), related(9, 3, 4)[1]
    run = jax.jit(lambda a, b: repsim.rsa(a, b, rdm=rdm, comparison=comparison))
    assert np.isnan(float(run(x, y)))


def test_one_feature():
    x, y = related(10, 1, 1)
    assert float(repsim.rsa(x, y)) == pytest.approx(reference.rsa(x, y), abs=1e-12)


def test_errors():
    x, y = related(9, 4, 5)
    with refuses(repsim.InputError, "rsa: unknown rdm", "'cosine'", "'manhattan'"):
        repsim.rsa(x, y, rdm="manhattan")
    with refuses(repsim.InputError, "rsa: unknown rdm", "an array (2,)"):
        repsim.rsa(x, y, rdm=np.zeros(2))
    with refuses(repsim.InputError, "'mahalanobis' needs the noise covariance", "precomputed"):
        repsim.rsa(x, y, rdm="mahalanobis")
    with refuses(repsim.InputError, "rsa: unknown comparison", "'pearson'", "'tau'"):
        repsim.rsa(x, y, comparison="tau")
    with refuses(repsim.InputError, "rsa", "at least 3 samples"):
        repsim.rsa(x[:2], y[:2])
    with refuses(repsim.InputError, "same samples"):
        repsim.rsa(x, y[:-1])
    x[4, 1] = np.nan
    with refuses(repsim.NonFiniteError, "rsa: x", "row 4"):
        repsim.rsa(x, y)
