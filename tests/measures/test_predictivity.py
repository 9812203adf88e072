"""Predictivity: refits in plain NumPy and scikit-learn, folds, groups, noise, undefined values."""

import numpy as np
import pytest

import repsim
from cases import each
from measures.checks import half, lives_with_its_inputs, refuses, right_gradient, undefined
from reference import prediction as reference
from reference.data import oracle, related

GROUPS = [0, 0, 1, 2, 2, 2, 3, 1, 4, 4, 5, 6, 6, 0]
OPTIONS = [
    {},
    {"score": "r2", "reduce": "median", "folds": 4},
    {"model": "ols", "score": "r2"},
    {"model": "pls", "components": 2},
    {"groups": GROUPS, "folds": 3, "ridge": 0.1},
    {"reliability": [0.5, 0.8, 1.0], "folds": 14},
    {"reliability": 0.7, "score": "r2"},
]


def test_published_values():
    x, y = oracle()
    assert float(repsim.predictivity(x, y)) == pytest.approx(0.47741796, abs=5e-9)
    out = repsim.predictivity(x, y, model="pls", components=2, reduce="median")
    # scikit-learn has 0.37793704 where it stops at tol=1e-6, and this without a tolerance.
    assert float(out) == pytest.approx(0.3781110, abs=5e-8)


@pytest.mark.slow
@each("options", OPTIONS)
@each("dtype", ["float32", "float64"])
def test_values(backend, options, dtype):
    if "jax" in backend.name and (dtype == "float32" or backend.compiled):
        pytest.skip("compiling each takes seconds")
    x, y = (z.astype(dtype) for z in related(14, 5, 3))
    expected = reference.predictivity(x, y, **options)
    rtol = {"float32": 1e-4, "float64": 1e-8}[dtype]
    lives_with_its_inputs(backend, repsim.predictivity, x, y, expected, rtol, **options)


@each("shape", [(14, 5, 3), (14, 30, 3), (14, 4, 25), (14, 30, 25)])
@each(
    "options",
    [{"ridge": 0.1}, {"ridge": 30.0}, {"model": "ols"}, {"model": "pls", "components": 3}],
)
@pytest.mark.slow
def test_more_features_than_samples(shape, options):
    x, y = related(*shape)
    expected = reference.predictivity(x, y, **options)
    out = float(repsim.predictivity(x, y, **options))
    assert out == pytest.approx(expected, abs=1e-8)


@each("shape", [(30, 5, 3), (30, 60, 3)])
def test_small_penalties_keep_their_digits(shape):
    """Normal equations would lose those of features whose variances differ by 1e12."""
    x, y = related(*shape)
    x = x * np.geomspace(1, 1e-6, shape[1])
    for ridge in (1e-12, 1e-8, 1e-4, 1.0, 1e4):
        expected = reference.predictivity(x, y, ridge=ridge)
        left, values, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
        out = float(repsim.predictivity(x, y, ridge=ridge))
        turned = float(repsim.predictivity(left * values, y, ridge=ridge))
        assert out == pytest.approx(turned, abs=1e-7)
        if ridge >= 1e-4:
            assert out == pytest.approx(expected, abs=1e-7)


def test_against_scikit_learn():
    """A second opinion that shares no line with either."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    cross_decomposition = pytest.importorskip("sklearn.cross_decomposition")
    selection = pytest.importorskip("sklearn.model_selection")
    x, y = related(30, 8, 5)
    pls = cross_decomposition.PLSRegression(4, scale=False, tol=1e-20, max_iter=10**5)
    for options, model in (
        ({"ridge": 3.0}, linear_model.Ridge(alpha=3.0)),
        ({"model": "ols"}, linear_model.LinearRegression()),
        ({"model": "pls", "components": 4}, pls),
    ):
        pooled = selection.cross_val_predict(model, x, y, cv=selection.KFold(5))
        expected = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(pooled.T, y.T, strict=True)])
        out = repsim.predictivity(x, y, **options)
        assert float(out) == pytest.approx(expected, abs=1e-9)


def test_all_components_are_ordinary_regression():
    """Components end where the training samples have nothing more to offer."""
    x, y = related(20, 4, 3)
    x = np.concatenate([x, x[:, :2] - x[:, 1:3]], axis=1)  # of rank four
    out = float(repsim.predictivity(x, y, model="pls"))
    assert out == pytest.approx(float(repsim.predictivity(x, y, model="ols")), abs=1e-9)
    exact = x @ np.random.default_rng(0).standard_normal((6, 2))
    for dtype in ("float32", "float64"):
        out = repsim.predictivity(x.astype(dtype), exact.astype(dtype), model="pls", score="r2")
        assert float(out) == pytest.approx(1, abs=1e-5)


def test_the_penalty_is_chosen_inside_the_training_set():
    x, y = related(16, 9, 3)
    ridge = (0.01, 1.0, 100.0)
    out = float(repsim.predictivity(x, y, ridge=ridge))
    single = [float(repsim.predictivity(x, y, ridge=r)) for r in ridge]
    assert min(single) - 0.05 <= out <= max(single) + 0.05
    noise = np.random.default_rng(0).standard_normal(y.shape)
    chosen = float(repsim.predictivity(x, noise, ridge=(1e-9, 1e9), score="r2"))
    strong = float(repsim.predictivity(x, noise, ridge=1e9, score="r2"))
    assert chosen == pytest.approx(strong, abs=1e-12)


def test_components_after_one_that_is_far_larger():
    """What is left after two clusters far apart: small beside the whole, but no rounding."""
    x, y = related(60, 6, 8)
    far = np.arange(60)[:, None] % 2 * 1e3
    x, y = ((z + far * z[:1]).astype(np.float32) for z in (x, y))
    options = {"model": "pls", "components": 6}
    for score in ("pearson", "r2"):
        wide = repsim.predictivity(*(z.astype(float) for z in (x, y)), score=score, **options)
        narrow = repsim.predictivity(x, y, score=score, **options)
        assert float(narrow) == pytest.approx(float(wide), abs=2e-7), score


def test_features_that_are_small_beside_another_count():
    """In float32 they were taken for rounding: the value was .33 for .85, by PLS .10."""
    rng = np.random.default_rng(0)
    x, noise = rng.standard_normal((200, 20)), rng.standard_normal((200, 4))
    y = (x @ rng.standard_normal((20, 4)) / 4 + noise / 2).astype(np.float32)
    first = (x * [1e5, *[1.0] * 19]).astype(np.float32)
    clusters = (x + 1e5 * (np.arange(200) % 3 == 0)[:, None] * noise[0, 0]).astype(np.float32)
    for given in (first, clusters):
        for options in ({}, {"ridge": (0.1, 10.0)}, {"model": "ols"}, {"model": "pls"}):
            if given is clusters and options == {"model": "pls"}:
                continue  # its last components are as small as the rounding may be
            wide = repsim.predictivity(given.astype(float), y.astype(float), **options)
            narrow = repsim.predictivity(given, y, **options)
            assert float(narrow) == pytest.approx(float(wide), abs=1e-6), options
        for ridge in (0.0, 1e-12):
            options = {"folds": 5, "ridge": ridge}
            wide = repsim.linear_regression_r2(y.astype(float), given.astype(float), **options)
            narrow = repsim.linear_regression_r2(y, given, **options)
            assert float(narrow) == pytest.approx(float(wide), abs=1e-6), options
    sums = np.concatenate([x, x[:, :9] + x[:, 9:18]], axis=1).astype(np.float32)
    alone = repsim.predictivity(x.astype(np.float32), y, model="ols")
    assert repsim.predictivity(sums, y, model="ols") == pytest.approx(alone, abs=1e-6)


@each("model", ["ols", "pls", "ridge"])
@each("p", [2, 7])
def test_predictors_that_are_constant_in_training_predict_the_mean(model, p):
    """ "ols" was an error of NumPy about a singular matrix."""
    x = np.repeat([[0.0], [1.0]], 5, axis=0) * np.arange(1.0, p + 1)
    y = np.random.default_rng(0).standard_normal((10, 3))
    means = np.repeat([y[5:].mean(0), y[:5].mean(0)], 5, axis=0)
    expected = np.mean([np.corrcoef(means[:, j], y[:, j])[0, 1] for j in range(3)])
    found = repsim.predictivity(x, y, model=model, folds=2)
    assert float(found) == pytest.approx(expected, abs=1e-12)


def test_groups_are_held_out_together():
    """Copies of a sample on both sides would be predicted perfectly."""
    rng = np.random.default_rng(0)
    x, y = (
        np.tile(rng.standard_normal((20, 60)), (4, 1)),
        np.tile(rng.standard_normal((20, 3)), (4, 1)),
    )
    assert float(repsim.predictivity(x, y)) > 0.99
    groups = np.tile(np.arange(20), 4)
    assert abs(float(repsim.predictivity(x, y, groups=groups))) < 0.4
    one = float(repsim.predictivity(x, y, groups=[f"image {g}" for g in groups]))
    assert one == float(repsim.predictivity(x, y, groups=groups))


def test_the_correction_for_noise():
    """It brings the score to that of y without noise."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3000, 6))
    y = x @ rng.standard_normal((6, 8)) + rng.standard_normal((3000, 8))
    truth = {score: float(repsim.predictivity(x, y, score=score)) for score in ("pearson", "r2")}
    first, second = (y + 3 * rng.standard_normal(y.shape) for _ in range(2))
    reliability = [np.corrcoef(a, b)[0, 1] for a, b in zip(first.T, second.T, strict=True)]
    for score, expected in truth.items():
        noisy = float(repsim.predictivity(x, first, score=score))
        out = float(repsim.predictivity(x, first, score=score, reliability=reliability))
        assert noisy < expected - 0.2
        assert out == pytest.approx(expected, abs=0.05)


@each("options", OPTIONS)
def test_scales_of_the_columns_and_means(options):
    x, y = related(14, 5, 3)
    expected = float(repsim.predictivity(x, y, **options))
    moved = y * 1e6 - 3 if options.get("model") == "pls" else y * [1e-9, 1e9, -1] - [3, 0, 1e4]
    out = float(repsim.predictivity(x + 1e4, moved, **options))
    assert out == pytest.approx(expected, abs=1e-6)


@each("scale", [1e-160, 1e-20, 1e20, 1e160])
def test_a_penalty_has_the_unit_of_the_features(scale):
    x, y = related(14, 5, 3)
    weak, strong = 1e-12, 1e12
    out = float(repsim.predictivity(x * scale, y, score="r2"))
    assert out == pytest.approx(
        float(repsim.predictivity(x, y, score="r2", ridge=weak if scale > 1 else strong)), abs=1e-9
    )


@each("options", [{}, {"model": "pls", "components": 3}, {"score": "r2", "reduce": "median"}])
def test_half_precision(options):
    x, y = related(14, 5, 3)
    half(
        repsim.predictivity, x, y, lambda a, b: reference.predictivity(a, b, **options), 1e-4,
        **options,
    )  # fmt: skip


def test_gradients():
    for options in ({}, {"model": "ols", "score": "r2"}, {"model": "pls", "components": 2}):
        right_gradient(repsim.predictivity, *related(14, 4, 3), **options)


def test_undefined():
    x, y = related(12, 4, 3)
    flat = y.copy()
    flat[:, 1] = 0.1
    undefined(lambda: repsim.predictivity(x, flat), "y", about="constant column")
    undefined(lambda: repsim.predictivity(x, 0 * y + 0.1), "y", about="is constant")
    undefined(lambda: repsim.predictivity(0 * x + 0.1, y), "x", about="is constant")
    # Nothing of x covaries with y in any training set, whose means are equal.
    signs = np.array([1.0, -1, 1, -1] * 3)
    even = np.array([1.0, 1, -1, -1] * 3)
    undefined(
        lambda: repsim.predictivity(signs[:, None], even[:, None], folds=3),
        "y",
        about="predictions are constant",
    )
    assert np.isfinite(repsim.predictivity(signs[:, None], even[:, None], folds=3, score="r2"))


def test_errors():
    x, y = related(12, 4, 3)
    for options, words in (
        ({"model": "lasso"}, ("unknown model", "'pls'", "'lasso'")),
        ({"score": "spearman"}, ("unknown score", "'r2'")),
        ({"reduce": "max"}, ("unknown reduce", "'median'")),
        ({"folds": 1}, ("folds must be an integer of at least 2",)),
        ({"folds": 13}, ("folds=13 needs at least 13 samples",)),
        ({"ridge": -1}, ("ridge must be a finite number of at least 0",)),
        ({"ridge": 2.0, "model": "ols"}, ("ridge is an option of model='ridge'", "2.0")),
        ({"components": 2}, ("components is an option of model='pls'",)),
        ({"components": 0, "model": "pls"}, ("components must be a positive integer",)),
        ({"groups": [0, 1]}, ("one label for each sample", "n=12")),
        ({"groups": [0, 1, 2] * 4}, ("5 folds need at least 5 groups", "got 3 groups")),
        ({"reliability": [0.5, 0.5]}, ("one number for each column", "got 2 for 3")),
        ({"reliability": 0.0}, ("above 0 and up to 1", "Drop columns")),
        ({"reliability": 10**400}, ("above 0 and up to 1",)),
        ({"reliability": "high"}, ("above 0 and up to 1", "'high'")),
    ):
        with refuses(repsim.InputError, "predictivity: ", *words):
            repsim.predictivity(x, y, **options)


def test_pairwise_and_labels():
    x, y = related(14, 5, 3)
    out = repsim.pairwise({"a": x, "b": y}, {"c": y}, measure="predictivity", ridge=0.5)
    assert out.sel(layer_x="a").item() == float(repsim.predictivity(x, y, ridge=0.5))
    test = repsim.permutation_test(x, y, measure="predictivity", permutations=19, seed=0)
    assert test.value == pytest.approx(float(repsim.predictivity(x, y)))
    assert test.p_value < 0.2
