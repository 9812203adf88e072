"""Linear regression: refits in plain NumPy and scikit-learn, folds, penalties, undefined values."""

import numpy as np
import pytest

import repsim
from cases import each
from measures.checks import half, lives_with_its_inputs, refuses, right_gradient, undefined
from measures.checks import same_gradient as gradient_in_both
from reference import regression as reference
from reference.data import oracle, related

OPTIONS = {
    "plain": ({}, lambda x, y: reference.r2(x, y)),
    "ridge": ({"ridge": 0.3}, lambda x, y: reference.r2(x, y, 0.3)),
    "folds": ({"folds": 3}, lambda x, y: reference.cross_validated(x, y, 3)),
    "ridge-folds": (
        {"ridge": 0.3, "folds": 4},
        lambda x, y: reference.cross_validated(x, y, 4, (0.3,)),
    ),
    "penalties": (
        {"ridge": (0.01, 0.3, 3.0), "folds": 3},
        lambda x, y: reference.cross_validated(x, y, 3, (0.01, 0.3, 3.0)),
    ),
}


def test_oracle():
    x, y = oracle()
    assert float(repsim.linear_regression_r2(x, y)) == pytest.approx(0.86935012959245, abs=1e-12)
    assert float(repsim.linear_regression_r2(y, x)) == pytest.approx(0.78844969587931, abs=1e-12)
    assert reference.r2(x, y) == pytest.approx(0.86935012959245, abs=1e-12)


@each("name", OPTIONS)
@each("dtype", ["float32", "float64"])
def test_values(backend, name, dtype):
    if "jax" in backend.name and (dtype == "float32" or backend.compiled != (name == "penalties")):
        pytest.skip("compiling each takes seconds")
    options, expected = OPTIONS[name]
    x, y = (z.astype(dtype) for z in related(14, 5, 3))
    rtol = {"float32": 1e-4, "float64": 1e-10}[dtype]
    lives_with_its_inputs(
        backend, repsim.linear_regression_r2, x, y, expected(x, y), rtol, **options
    )


@each("ridge", [0.01, 1.0, 100.0])
@each("q", [3, 40])
def test_ridge(ridge, q):
    x, y = related(15, 4, q)
    expected = reference.r2(x, y, ridge)
    assert float(repsim.linear_regression_r2(x, y, ridge=ridge)) == pytest.approx(expected)
    assert 0 < expected < 1


@each("ridge", [0.0, 0.5])
@each("folds", [2, 5, 15])
@each("q", [3, 40])
def test_folds(folds, q, ridge):
    """With more features than samples without a penalty: the smallest of all perfect fits."""
    x, y = related(15, 4, q)
    expected = reference.cross_validated(x, y, folds, (ridge,))
    out = float(repsim.linear_regression_r2(x, y, folds=folds, ridge=ridge))
    assert out == pytest.approx(expected, rel=1e-8)


@each("seed", range(6))
def test_the_penalty_is_chosen_inside_the_training_set(seed):
    x, y = related(12, 3, 9, seed)
    x = x + 2 * np.random.default_rng(seed).standard_normal(x.shape)
    ridge = (0.001, 0.1, 1.0, 10.0)
    expected = reference.cross_validated(x, y, 4, ridge)
    out = float(repsim.linear_regression_r2(x, y, ridge=ridge, folds=4))
    assert out == pytest.approx(expected, rel=1e-9)
    single = [reference.cross_validated(x, y, 4, (r,)) for r in ridge]
    assert min(single) - 1e-9 <= out <= max(single) + 0.5
    order = float(repsim.linear_regression_r2(x, y, ridge=ridge[::-1], folds=4))
    assert order == pytest.approx(out, rel=1e-9)


def test_against_scikit_learn():
    """A second opinion that shares no line with either."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, y = related(20, 4, 6)
    model = linear_model.LinearRegression().fit(y, x)
    left = ((x - model.predict(y)) ** 2).sum()
    expected = 1 - left / ((x - x.mean(0)) ** 2).sum()
    assert float(repsim.linear_regression_r2(x, y)) == pytest.approx(expected, abs=1e-12)
    error = spread = 0.0
    for fold in range(5):
        held = np.arange(20) % 5 == fold
        unit = reference.unit(y[~held])
        model = linear_model.Ridge(alpha=0.2 * unit).fit(y[~held], x[~held])
        error += ((x[held] - model.predict(y[held])) ** 2).sum()
        spread += ((x[held] - x[~held].mean(0)) ** 2).sum()
    out = repsim.linear_regression_r2(x, y, ridge=0.2, folds=5)
    assert float(out) == pytest.approx(1 - error / spread, abs=1e-12)


def test_held_out_noise_is_not_explained():
    rng = np.random.default_rng(0)
    fitted, held = [], []
    for _ in range(100):
        x, y = rng.standard_normal((30, 4)), rng.standard_normal((30, 8))
        fitted.append(float(repsim.linear_regression_r2(x, y)))
        held.append(float(repsim.linear_regression_r2(x, y, folds=5)))
    assert np.mean(fitted) == pytest.approx(8 / 29, abs=4 * np.std(fitted) / 10)
    assert np.mean(held) < 0
    assert np.mean(held) < np.mean(fitted) - 0.3


@each("options", [{}, {"ridge": 0.1}, {"folds": 3}, {"ridge": 0.1, "folds": 3}])
def test_invariances(options):
    x, y = related(14, 4, 3)
    rng = np.random.default_rng(0)
    out = float(repsim.linear_regression_r2(x, y, **options))
    turn = [np.linalg.qr(rng.standard_normal((p, p)))[0] for p in (4, 3)]
    moved = repsim.linear_regression_r2(1e6 * x @ turn[0] + 3, 1e-6 * y @ turn[1] - 3, **options)
    assert float(moved) == pytest.approx(out, abs=1e-9)
    stretched = float(repsim.linear_regression_r2(x, y * [1.0, 9.0, 0.2], **options))
    if options.get("ridge"):
        assert abs(stretched - out) > 1e-3
    else:
        assert stretched == pytest.approx(out, abs=1e-9)
    assert abs(float(repsim.linear_regression_r2(x * [9, 1, 1, 1], y, **options)) - out) > 1e-3


def test_linearly_dependent_predictors():
    x, y = related(14, 4, 3)
    more = np.concatenate([y, y[:, :1] + y[:, 1:2], np.full((14, 1), 0.1), y], axis=1)
    plain = float(repsim.linear_regression_r2(x, y))
    assert float(repsim.linear_regression_r2(x, more)) == pytest.approx(plain, abs=1e-12)
    narrow = [z.astype(np.float32) for z in (x, more)]
    assert float(repsim.linear_regression_r2(*narrow)) == pytest.approx(plain, abs=1e-5)
    # A small feature is a feature.
    small = y * [1.0, 1e-20, 1e-40]
    assert float(repsim.linear_regression_r2(x, small)) == pytest.approx(plain, abs=1e-9)


def test_duplicated_samples():
    x, y = related(9, 4, 3)
    rows = [*range(9), 0, 0, 5]
    for options, expected in OPTIONS.values():
        out = float(repsim.linear_regression_r2(x[rows], y[rows], **options))
        assert out == pytest.approx(expected(x[rows], y[rows]), abs=1e-9)


@each("name", OPTIONS)
def test_a_large_mean_in_float32(name):
    options, expected = OPTIONS[name]
    x, y = ((z + 1e4).astype(np.float32) for z in related(30, 4, 5))
    out = float(repsim.linear_regression_r2(x, y, **options))
    assert out == pytest.approx(expected(x, y), abs=1e-6)


@each("name", OPTIONS)
@each(
    ("dtype", "scale"), [("float32", 1e8), ("float32", 1e-8), ("float64", 1e15), ("float64", 1e-15)]
)
def test_scale_does_not_matter(name, dtype, scale):
    options, _ = OPTIONS[name]
    x, y = (z.astype(dtype) for z in related(12, 4, 3))
    expected = float(repsim.linear_regression_r2(x, y, **options))
    a, b = ((z * np.asarray(scale, dtype)).astype(dtype) for z in (x, y))
    for pair in ((a, y), (x, b), (a, b)):
        out = float(repsim.linear_regression_r2(*pair, **options))
        assert out == pytest.approx(expected, abs=1e-5)


@each("name", OPTIONS)
def test_half_precision(name):
    options, expected = OPTIONS[name]
    half(repsim.linear_regression_r2, *related(14, 4, 3), expected, 1e-5, **options)


@each("name", ["plain", "ridge", "ridge-folds", "penalties"])
def test_gradients(name):
    check = gradient_in_both if name == "plain" else right_gradient
    check(repsim.linear_regression_r2, *related(9, 3, 2, 2), **OPTIONS[name][0])


@each("name", OPTIONS)
@each("value", [0.0, 0.1])
def test_constant(name, value):
    options, _ = OPTIONS[name]
    x, y = np.full((13, 3), value), related(13, 3, 4)[1]
    undefined(lambda: repsim.linear_regression_r2(x, y, **options), "x", about="constant")
    undefined(lambda: repsim.linear_regression_r2(y, x, **options), "y", about="constant")


@each("dtype", ["float32", "float64"])
@each("q", [9, 10, 60])
def test_predictors_that_explain_anything(eager, q, dtype):
    if eager.name == "jax":
        pytest.skip("the registry's tests cover it")
    x, y = (z.astype(dtype) for z in related(10, 3, q))
    a, b = eager.array(x), eager.array(y)
    undefined(lambda: repsim.linear_regression_r2(a, b), "y", about="explains anything")
    # It can be predicted like any other.
    assert 0 < float(repsim.linear_regression_r2(b, a)) < 1
    assert 0 < float(repsim.linear_regression_r2(a, b, ridge=0.1)) < 1


def test_one_less_is_not_yet_all():
    x, y = related(10, 3, 8)
    assert 0.5 < float(repsim.linear_regression_r2(x, y)) < 1


def test_undefined_under_jit():
    jax = pytest.importorskip("jax")
    x, y = related(6, 3, 9)
    with jax.enable_x64(True):
        run = jax.jit(repsim.linear_regression_r2)
        assert np.isnan(float(run(x, y)))
        assert np.isnan(float(run(x, np.ones((6, 9)))))


@each("ridge", [-1.0, float("nan"), float("inf"), "1", None, [], [0.1, -1], True])
def test_bad_penalties(ridge):
    with refuses(repsim.InputError, "linear_regression_r2: ridge", "must be", "got"):
        repsim.linear_regression_r2(*related(9, 3, 2), ridge=ridge, folds=3)


@each("folds", [0, 1, -2, 2.0, "5", True])
def test_bad_folds(folds):
    with refuses(repsim.InputError, "linear_regression_r2: folds must be", repr(folds)):
        repsim.linear_regression_r2(*related(9, 3, 2), folds=folds)


def test_errors():
    x, y = related(9, 3, 2)
    with refuses(repsim.InputError, "several penalties", "without folds"):
        repsim.linear_regression_r2(x, y, ridge=[0.1, 1.0])
    with refuses(repsim.InputError, "folds=10 needs at least 10 samples", "n=9"):
        repsim.linear_regression_r2(x, y, folds=10)
    with refuses(repsim.InputError, "at least 3 samples"):
        repsim.linear_regression_r2(x[:2], y[:2])


def test_pairwise_names_predictors_that_explain_anything():
    x, y = related(8, 3, 20)
    with pytest.warns(repsim.DegenerateWarning, match=r"xs\['wide'\] spans all 7 dimensions"):
        out = repsim.pairwise({"narrow": x, "wide": y}, measure="linear_regression_r2")
    assert np.isnan(out.sel(layer_y="wide")).all()
    assert float(out.sel(layer_x="wide", layer_y="narrow")) == float(
        repsim.linear_regression_r2(y, x)
    )


def test_gradients_of_whitened_predictors_and_where_there_is_no_value():
    """Singular values that are equal gave NaN, and a value of NaN the gradient 0."""
    torch = pytest.importorskip("torch")
    x, y = related(9, 3, 2, 2)
    white = np.linalg.qr(y - y.mean(0))[0]
    right_gradient(repsim.linear_regression_r2, x, white)
    right_gradient(repsim.linear_regression_r2, white, x)
    wide, constant = related(9, 12, 3)[0], np.ones_like(y)
    for a, b in ((x, wide), (x, constant), (constant, x)):
        for options in ({}, {"ridge": 0.1}, {"folds": 3}):
            if options and b is wide:
                continue
            leaves = [torch.tensor(z, requires_grad=True) for z in (a, b)]
            with pytest.warns(repsim.DegenerateWarning):
                value = repsim.linear_regression_r2(*leaves, **options)
            assert all(torch.isnan(g).all() for g in torch.autograd.grad(value, leaves))
