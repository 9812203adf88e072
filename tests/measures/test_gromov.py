"""Gromov–Wasserstein: between its bounds, against POT, seeded, and what happens without POT."""

import itertools
import sys

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform
from scipy.stats import wasserstein_distance

import repsim
from cases import each
from measures.checks import half, lives_with_its_inputs, refuses, right_gradient, undefined
from reference.data import related

ot = pytest.importorskip("ot")


def distances(x, norm="mean"):
    d = pdist(x)
    return squareform(d / d.mean() if norm == "mean" else d)


def objective(d, e, plan):
    """Every quadruple, one by one."""
    return sum(
        (d[i, k] - e[j, l]) ** 2 * plan[i, j] * plan[k, l]
        for i, k in itertools.product(range(len(d)), repeat=2)
        for j, l in itertools.product(range(len(e)), repeat=2)  # noqa: E741
    )


def lower_bound(d, e):
    """Mémoli 2011: the distance of the two distributions of distances, as if unrelated."""
    levels = (np.arange(10_000) + 0.5) / 10_000
    a, b = (np.quantile(z.ravel(), levels, method="inverted_cdf") for z in (d, e))
    return np.sqrt(np.mean((a - b) ** 2))


def test_between_its_bounds():
    for seed in range(5):
        x, y = related(15, 4, 3, seed)
        d, e = distances(x), distances(y)
        out = float(repsim.gromov_wasserstein(x, y))
        paired = np.sqrt(((d - e) ** 2).mean())
        assert lower_bound(d, e) - 1e-3 <= out <= paired + 1e-12
        assert out < 0.9


def test_the_value_is_the_objective_of_a_plan():
    """That of POT from the same start."""
    x, y = related(7, 4, 3)[0], related(5, 4, 3, 1)[1]
    d, e = distances(x), distances(y)
    plan = ot.gromov.gromov_wasserstein(d, e, np.full(7, 1 / 7), np.full(5, 1 / 5), "square_loss")
    out = float(repsim.gromov_wasserstein(x, y, starts=0))
    assert out**2 == pytest.approx(objective(d, e, plan), abs=1e-12)
    assert float(repsim.gromov_wasserstein(x, y, starts=20)) <= out + 1e-12


@each("dtype", ["float32", "float64"])
def test_every_framework(eager, dtype):
    x, y = (z.astype(dtype) for z in related(12, 4, 3))
    expected = float(repsim.gromov_wasserstein(x.astype(float), y.astype(float), starts=2))
    rtol = {"float32": 1e-5, "float64": 1e-9}[dtype]
    lives_with_its_inputs(eager, repsim.gromov_wasserstein, x, y, expected, rtol, starts=2)


def test_samples_in_another_order_turned_and_scaled():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((25, 4))
    y = 3 * x[rng.permutation(25)] @ np.linalg.qr(rng.standard_normal((4, 4)))[0] + 7
    assert float(repsim.gromov_wasserstein(x, y, starts=20)) < 1e-6
    assert float(repsim.gromov_wasserstein(x, y, norm="none", starts=20)) > 1
    assert float(repsim.gromov_wasserstein(x, x)) == 0
    twice = np.concatenate([x, x])  # another number, the same distribution
    assert float(repsim.gromov_wasserstein(x, twice, starts=20, norm="none")) < 1e-6


def test_units():
    x, y = related(12, 4, 3)
    expected = float(repsim.gromov_wasserstein(x, y, norm="none", starts=1))
    for scale in (1e-150, 1e150):
        out = float(repsim.gromov_wasserstein(scale * x, scale * y, norm="none", starts=1))
        assert out / scale == pytest.approx(expected, rel=1e-9)
    cosine = float(repsim.gromov_wasserstein(x, y, metric="cosine", starts=1))
    longer = x * np.arange(1, 13)[:, None]
    own = float(repsim.gromov_wasserstein(longer, y, metric="cosine", starts=1))
    assert own == pytest.approx(cosine, rel=1e-9)


def test_more_starts_never_make_it_larger_and_seeds_repeat():
    x, y = related(14, 4, 3)[0], related(14, 4, 3, 1)[1]
    values = [float(repsim.gromov_wasserstein(x, y, starts=s)) for s in (0, 3, 10, 30)]
    assert values == sorted(values, reverse=True)
    again = float(repsim.gromov_wasserstein(x, y, starts=10))
    assert again == values[2]


def test_gradients_and_half_precision():
    x, y = related(7, 3, 3)
    right_gradient(repsim.gromov_wasserstein, x, y, starts=1)
    half(
        repsim.gromov_wasserstein, x, y,
        lambda a, b: float(repsim.gromov_wasserstein(a, b, starts=1)), 1e-5, starts=1,
    )  # fmt: skip


def test_undefined():
    x, y = related(8, 4, 3)
    undefined(
        lambda: repsim.gromov_wasserstein(0 * x + 0.1, y), "x", about="samples that are all equal"
    )
    zero = y.copy()
    zero[2] = 0
    undefined(
        lambda: repsim.gromov_wasserstein(x, zero, metric="cosine"), "y", about="row of zeros"
    )
    flat = float(repsim.gromov_wasserstein(0 * x, y, norm="none"))
    assert flat == pytest.approx(np.sqrt((distances(y, "none") ** 2).mean()))


def test_errors(monkeypatch):
    x, y = related(8, 4, 3)
    with refuses(repsim.InputError, "unknown metric", "'euclidean'"):
        repsim.gromov_wasserstein(x, y, metric="l1")
    with refuses(repsim.InputError, "unknown norm", "'mean'"):
        repsim.gromov_wasserstein(x, y, norm="max")
    with refuses(repsim.InputError, "starts must be an integer of at least 0"):
        repsim.gromov_wasserstein(x, y, starts=-1)
    with refuses(repsim.InputError, "seed must be"):
        repsim.gromov_wasserstein(x, y, seed=-1)
    jax = pytest.importorskip("jax")
    with refuses(repsim.ArrayTypeError, "gromov_wasserstein: x must have values that can be read"):
        jax.jit(repsim.gromov_wasserstein)(x, y)
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(ModuleNotFoundError, match="gromov_wasserstein needs ot, which") as e:
        repsim.gromov_wasserstein(x, y)
    assert "pip install 'pot" in str(e.value)
    assert e.value.name == "ot"


def test_a_search_that_was_cut_short_warns(monkeypatch):
    import warnings

    whole = ot.gromov.gromov_wasserstein

    def short(*arguments, **options):
        warnings.warn("numItermax reached before optimality", stacklevel=1)
        return whole(*arguments, **options)

    monkeypatch.setattr(ot.gromov, "gromov_wasserstein", short)
    with pytest.warns(repsim.RepsimWarning, match="POT stopped before it was done.*\n.*numItermax"):
        repsim.gromov_wasserstein(*related(8, 4, 3))


def test_the_lower_bound_of_the_tests_is_that_of_scipy():
    """For the first power, for which SciPy has it."""
    d, e = (distances(z) for z in related(9, 4, 3))
    levels = (np.arange(100_000) + 0.5) / 100_000
    a, b = (np.quantile(z.ravel(), levels, method="inverted_cdf") for z in (d, e))
    expected = wasserstein_distance(d.ravel(), e.ravel())
    assert np.abs(a - b).mean() == pytest.approx(expected, abs=1e-3)
