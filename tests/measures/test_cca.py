"""Canonical correlations: values, rank, thresholds, weights, derivatives."""

import functools
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import repsim
from cases import each
from measures.checks import right_gradient, same_gradient
from reference import canonical
from reference.data import oracle, related

FUNCTIONS = [repsim.cca, repsim.svcca, repsim.pwcca]
STATISTICS = ("mean_rho", "mean_rho_squared")


def undefined(call, *names):
    """The result is NaN, and the warnings name exactly these."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        out = call()
    assert [w.category for w in caught] == [repsim.DegenerateWarning] * len(names)
    for w, name in zip(caught, names, strict=True):
        assert name in str(w.message)
        assert w.filename == __file__
    assert np.isnan(float(out))
    return [str(w.message) for w in caught]


def test_values():
    x, y = oracle()
    assert float(repsim.cca(x, y)) == pytest.approx(0.91709360564531, rel=1e-13)
    squared = repsim.cca(x, y, statistic="mean_rho_squared")
    assert float(squared) == pytest.approx(0.84171081490803, rel=1e-13)
    assert float(repsim.svcca(x, y, variance=0.8)) == pytest.approx(0.82453597487461, rel=1e-13)
    assert float(repsim.pwcca(x, y)) == pytest.approx(0.92505962589567, rel=1e-13)


shapes = st.tuples(st.integers(20, 40), st.integers(1, 8), st.integers(1, 8))


@given(shape=shapes, seed=st.integers(0, 2**32 - 1))
def test_against_covariances(shape, seed):
    x, y = related(*shape, seed)
    for statistic in STATISTICS:
        value = float(repsim.cca(x, y, statistic=statistic))
        assert value == pytest.approx(canonical.cca(x, y, statistic), rel=1e-8)
    assert float(repsim.pwcca(x, y)) == pytest.approx(canonical.pwcca(x, y), rel=1e-7)


@given(
    shape=shapes,
    seed=st.integers(0, 2**32 - 1),
    keep=st.one_of(
        st.fixed_dictionaries({"variance": st.sampled_from([0.3, 0.5, 0.9, 0.999, 1.0])}),
        st.fixed_dictionaries({"directions": st.integers(1, 8)}),
    ),
    statistic=st.sampled_from(STATISTICS),
)
def test_svcca_against_covariances(shape, seed, keep, statistic):
    x, y = related(*shape, seed)
    value = float(repsim.svcca(x, y, **keep, statistic=statistic))
    assert value == pytest.approx(canonical.svcca(x, y, **keep, statistic=statistic), rel=1e-7)


def test_svcca_keeps_099_of_the_variance_by_default():
    x, y = related(60, 8, 7, 3)
    x, y = x * 0.4 ** np.arange(8), y * 0.4 ** np.arange(7)
    value = float(repsim.svcca(x, y))
    assert value == float(repsim.svcca(x, y, variance=0.99))
    assert value == pytest.approx(canonical.svcca(x, y, variance=0.99), rel=1e-9)
    assert abs(value - float(repsim.svcca(x, y, variance=0.95))) > 1e-3
    assert abs(value - float(repsim.svcca(x, y, variance=1.0))) > 1e-3


def orthonormal(n, p):
    """Centred, orthonormal columns."""
    z = np.random.default_rng(0).standard_normal((n, p))
    return np.linalg.qr(z - z.mean(0))[0]


def directions_kept(x, variance):
    """The number of directions whose correlation with a single feature is that of this share."""
    y = np.random.default_rng(1).standard_normal((len(x), 1))
    value = float(repsim.svcca(x, y, variance=variance))
    numbers = range(1, x.shape[1] + 1)
    values = [float(repsim.svcca(x, y, directions=number)) for number in numbers]
    assert (np.diff(values) > 1e-8).all()
    return 1 + int(np.argmin(np.abs(np.array(values) - value)))


def test_svcca_counts_variance_and_not_singular_values():
    """One direction of 16 with 99 % of the variance has 0.72 of the sum of singular values."""
    x = orthonormal(200, 16) * np.where(np.arange(16) == 0, np.sqrt(99 * 15), 1.0)
    assert directions_kept(x, 0.98) == 1
    assert directions_kept(x, 0.995) == 9


def test_a_share_that_is_reached_exactly_is_reached():
    """Orthogonal directions of equal variance: a half of ten is five of them, not six."""
    for many in (3, 4, 10, 11, 12):
        x = orthonormal(many + 16, many) / 3
        for kept in range(1, many + 1):
            assert directions_kept(x, kept / many) == kept
            if kept < many:
                assert directions_kept(x, kept / many + 1e-6) == kept + 1


def test_more_directions_than_there_are_is_all_of_them():
    x, y = related(30, 3, 5)
    assert float(repsim.svcca(x, y, directions=99)) == pytest.approx(
        float(repsim.cca(x, y)), rel=1e-12
    )


@each("dtype", ["float32", "float64"])
@each("statistic", STATISTICS)
def test_dependent_columns_add_no_direction(dtype, statistic):
    x, y = (z.astype(dtype) for z in related(40, 4, 3, 5))
    expected = float(repsim.cca(x, y, statistic=statistic))
    constant = np.full((40, 1), 0.1, dtype)
    for more in (x, x[:, :1] + x[:, 1:2], 3 * x[:, 2:], constant, x.sum(1, keepdims=True)):
        wide = np.concatenate([x, more.astype(dtype)], axis=1)
        assert float(repsim.cca(wide, y, statistic=statistic)) == pytest.approx(expected, rel=2e-6)
        assert float(repsim.cca(y, wide, statistic=statistic)) == pytest.approx(expected, rel=2e-6)
    weighted = float(repsim.pwcca(y, x))
    doubled = np.concatenate([x, x], axis=1)
    assert float(repsim.pwcca(y, doubled)) == pytest.approx(weighted, rel=2e-6)
    twice = np.concatenate([y, y], axis=1)
    assert float(repsim.pwcca(twice, x)) == pytest.approx(weighted, rel=2e-6)


@each("dtype", ["float32", "float64"])
def test_a_small_feature_is_a_direction(dtype):
    """CCA does not see the scale of a column, even far below the rounding of the largest."""
    x, y = (z.astype(dtype) for z in related(40, 4, 3, 5))
    small = (x * np.asarray([1e-12, 1.0, 1.0, 1e10])).astype(dtype)
    assert float(repsim.cca(small, y)) == pytest.approx(float(repsim.cca(x, y)), rel=1e-5)


def test_the_weights_are_those_of_the_columns_of_x():
    """PWCCA of a pair of independent coordinates, in closed form."""
    q = orthonormal(30, 4)
    x = q[:, :2] * [5.0, 2.0]
    y = np.stack([q[:, 0] * 0.8 + q[:, 2] * 0.6, q[:, 1] * 0.3 + q[:, 3] * np.sqrt(0.91)], 1)
    assert float(repsim.cca(x, y)) == pytest.approx(0.55, rel=1e-12)
    assert float(repsim.pwcca(x, y)) == pytest.approx((5 * 0.8 + 2 * 0.3) / 7, rel=1e-12)
    assert float(repsim.pwcca(y, x)) == pytest.approx(0.55, rel=1e-12)
    # A narrower y: one correlation, for any weight of the other direction of x.
    assert float(repsim.pwcca(x, y[:, 1:])) == pytest.approx(0.3, rel=1e-12)


def test_equal_correlations_share_their_weight():
    """Equal correlations determine no basis: the value is the mean over all bases, c(2) = 2/π."""
    q = orthonormal(30, 6)
    x = q[:, :3] * [3.0, 4.0, 2.0]
    third = 0.5 * q[:, 2] + np.sqrt(0.75) * q[:, 3]
    shared = np.stack([q[:, 0], q[:, 1], third], axis=1)
    narrow = np.stack([0.6 * q[:, 0] + 0.8 * q[:, 3], q[:, 4]], axis=1)
    for turn in (np.eye(3), orthonormal(3, 3), np.triu(np.ones((3, 3)))):
        expected = (28 / np.pi + 1) / (28 / np.pi + 2)
        assert float(repsim.pwcca(x, shared @ turn)) == pytest.approx(expected, rel=1e-12)
    # Two directions of x correlate with nothing, and one of them counts.
    expected = 0.6 * 3 / (3 + 12 / np.pi)
    assert float(repsim.pwcca(x, narrow)) == pytest.approx(expected, rel=1e-12)


def test_columns_that_both_share_make_no_value_arbitrary():
    """Two shared columns have ρ = 1 twice; rounding had chosen one of many values (.62 to .66)."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 7))
    y = np.concatenate([x[:, :2], rng.standard_normal((30, 3))], axis=1)
    turn = rng.standard_normal((5, 5))
    total = weights = 0.0
    for z, other in ((x, y), (x * (1 + 1e-13), y), (3.7 * x + 5, y @ turn), (x[:, ::-1], y)):
        value = float(repsim.pwcca(z, other))
        assert value == pytest.approx(0.6026170552394867, rel=1e-12)
        in_torch = repsim.pwcca(torch.asarray(z.copy()), torch.asarray(other))
        assert float(in_torch) == pytest.approx(value, rel=1e-12)
        single = repsim.pwcca(z.astype("float32"), other.astype("float32"))
        assert float(single) == pytest.approx(value, rel=1e-5)
    # The mean over random bases of the two directions, from the formula of the paper.
    variates, rho = canonical.variates(x, y)
    centred = x - x.mean(0)
    for angle in np.linspace(0, np.pi, 20001)[:-1]:
        cos, sin = np.cos(angle), np.sin(angle)
        basis = variates.copy()
        basis[:, :2] = variates[:, :2] @ [[cos, -sin], [sin, cos]]
        alpha = np.abs(basis.T @ centred).sum(1)
        total, weights = total + alpha @ rho, weights + alpha.sum()
    assert total / weights == pytest.approx(0.6026170552394867, rel=1e-6)


def test_independent_data_by_chance():
    """The mean squared correlation of independent data is max(p, q)/(n - 1) on average."""
    rng = np.random.default_rng(0)
    n, p, q = 20, 6, 3
    values = [
        float(
            repsim.cca(
                rng.standard_normal((n, p)),
                rng.standard_normal((n, q)),
                statistic="mean_rho_squared",
            )
        )
        for _ in range(400)
    ]
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values) - p / (n - 1)) < 4 * error


@each("function", FUNCTIONS)
def test_as_many_features_as_samples(function):
    """Every correlation with anything is 1: not a similarity."""
    options = {"variance": 1.0} if function is repsim.svcca else {}
    name = function.__name__
    for p in (9, 10, 30):
        x, y = related(10, p, 2)
        (message,) = undefined(lambda a=x, b=y: function(a, b, **options), f"{name}: x spans all 9")
        assert "10 centred samples" in message
        undefined(lambda a=x, b=y: function(b, a, **options), f"{name}: y spans all 9")
    x, y = related(10, 8, 2)
    assert 0 < float(function(x, y, **options)) <= 1


def test_svcca_of_more_features_than_samples():
    x, y = related(12, 40, 30, 2)
    value = float(repsim.svcca(x, y, directions=3))
    assert value == pytest.approx(canonical.svcca(x, y, directions=3), rel=1e-8)
    undefined(lambda: repsim.svcca(x, y, directions=11), "x spans", "y spans")


@each("function", FUNCTIONS)
def test_constant(function):
    x, y = related(20, 3, 4)
    x[:] = [0.1, 0.3, 7.7]
    name = function.__name__
    undefined(lambda: function(x, y), f"{name}: x is constant")
    undefined(lambda: function(y, x), f"{name}: y is constant")
    undefined(lambda: function(x, x), f"{name}: x is constant", f"{name}: y is constant")


def under_jit(values, *arrays):
    """All values of one compilation."""
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        return [float(out) for out in jax.jit(values)(*arrays)]


def test_undefined_under_jit():
    x, y = related(8, 3, 2)
    wide = related(8, 9, 2)[0]

    def values(a, b):
        return repsim.cca(a, b), repsim.svcca(a, b, variance=1.0), repsim.pwcca(a, b)

    assert under_jit(values, x, y) == pytest.approx(list(map(float, values(x, y))), rel=1e-10)
    assert np.isnan(under_jit(values, np.ones((8, 3)), y)).all()
    assert np.isnan(under_jit(values, wide, y)).all()


def test_columns_not_kept_weigh_nothing_under_jit():
    """Inside jit the basis keeps its shape, and directions that are not kept are zero."""
    x, y = related(20, 4, 3, 5)
    x = np.concatenate([x, x[:, :2]], axis=1)
    y[:, 1] = 0.3

    def values(a, b):
        return (
            repsim.cca(a, b),
            repsim.cca(a, b, statistic="mean_rho_squared"),
            repsim.svcca(a, b, variance=0.6),
            repsim.svcca(a, b, directions=1),
            repsim.pwcca(a, b),
        )

    assert under_jit(values, x, y) == pytest.approx(list(map(float, values(x, y))), rel=1e-9)


def test_options_are_checked():
    x, y = related(20, 3, 4)
    for bad in ("rho", None, True):
        with pytest.raises(repsim.InputError, match=r"cca: unknown statistic.*\n.*'mean_rho'"):
            repsim.cca(x, y, statistic=bad)
    for bad in (0, -0.5, 1.1, 99, "0.99", True):
        with pytest.raises(repsim.InputError, match=r"svcca: variance must be"):
            repsim.svcca(x, y, variance=bad)
    for bad in (0, -1, 2.0, "3", True):
        with pytest.raises(repsim.InputError, match=r"svcca: directions must be"):
            repsim.svcca(x, y, directions=bad)
    with pytest.raises(repsim.InputError, match=r"not both.*\n.*0\.5, directions=2"):
        repsim.svcca(x, y, variance=0.5, directions=2)


def gradients(function, x, y, **options):
    torch = pytest.importorskip("torch")
    a, b = (torch.tensor(z, requires_grad=True) for z in (x, y))
    value = function(a, b, **options)
    return float(value.detach()), *(g.numpy() for g in torch.autograd.grad(value, (a, b)))


def test_no_gradient_where_there_is_no_value():
    """It was 0, as at a maximum."""
    x, y = related(10, 3, 2)
    wide = related(10, 12, 12)[0]
    for function in FUNCTIONS:
        options = {"variance": 1.0} if function is repsim.svcca else {}
        for a, b in ((wide, y), (y, wide), (np.ones_like(x), y), (x, np.ones_like(y))):
            with pytest.warns(repsim.DegenerateWarning):
                value, *both = gradients(function, a, b, **options)
            assert np.isnan(value)
            assert all(np.isnan(g).all() for g in both)


@each("function", FUNCTIONS)
def test_gradients_where_everything_is_shared(function):
    """The value is 1, its maximum; the gradient of pwcca(x, x) was NaN for some x."""
    x = related(12, 4, 2)[0]
    turn = np.random.default_rng(1).standard_normal((4, 4))
    for y in (x, 3 * x + 1, x[:, ::-1].copy(), x[:, :2].copy(), x @ turn):
        for a, b in ((x, y), (y, x)):
            value, *both = gradients(function, a, b)
            if value == pytest.approx(1, abs=1e-12):
                np.testing.assert_allclose(both[0], 0, atol=1e-9)
                np.testing.assert_allclose(both[1], 0, atol=1e-9)


def whitened(n=9, p=3, q=2):
    x, y = related(n, p, q, 2)
    return np.linalg.qr(x - x.mean(0))[0], y


def test_gradients_of_whitened_features():
    """Their singular values are equal, but the span has a derivative; it was NaN."""
    for x, y in (whitened(), whitened()[::-1]):
        for options in ({}, {"statistic": "mean_rho_squared"}):
            right_gradient(repsim.cca, x, y, **options)
        right_gradient(repsim.pwcca, x, y)
        right_gradient(repsim.svcca, x, y, variance=1.0)


def with_values(*values, n=9, p=None):
    """Features (n, p) with these singular values, and others that share directions with them."""
    x, y = related(n, len(values), 2, 2)
    turn = np.random.default_rng(0).standard_normal((p or len(values), len(values)))
    return np.linalg.qr(x - x.mean(0))[0] * values @ np.linalg.qr(turn)[0].T, y


def test_gradients_of_directions_with_equal_variance():
    """The span has a derivative unless equal directions are kept and left out; it was NaN."""
    for values, kept in (
        ((3, 3, 1, 1), {"directions": 2}), ((3, 2, 2, 1), {"variance": 0.9}),
        ((4, 4, 4, 2, 1, 1, 0.5), {"directions": 3}), ((3, 2, 1), {"directions": 3}),
    ):  # fmt: skip
        for p in (len(values), 12):  # fewer and more than samples
            x, y = with_values(*values, p=p)
            right_gradient(repsim.svcca, x, y, **kept)
            right_gradient(repsim.svcca, y, x, **kept)
    assert np.isnan(gradients(repsim.svcca, *with_values(3, 2, 2, 1), directions=2)[1]).all()


def test_second_derivatives():
    torch = pytest.importorskip("torch")
    leading = functools.partial(repsim.svcca, directions=2)
    for pair, functions in (
        (whitened(7, 2, 2), (repsim.cca, repsim.pwcca)),
        (with_values(2, 2, 1, n=7), (leading,)),
    ):
        x, y = (torch.tensor(z, requires_grad=True) for z in pair)
        for function in functions:
            # Steps that leave values nearly equal.
            assert torch.autograd.gradgradcheck(
                lambda a, f=function: f(a, y.detach()), (x,), eps=1e-7
            )


def test_weights_of_some_equal_correlations_have_no_derivative():
    x, y = related(12, 4, 2)
    y = np.concatenate([x[:, :2], y], axis=1)
    value, *both = gradients(repsim.pwcca, x, y)
    assert value == pytest.approx(float(repsim.pwcca(x, y)), abs=1e-14)
    assert all(np.isnan(g).all() for g in both)
    assert all(np.isfinite(g).all() for g in gradients(repsim.cca, x, y)[1:])


@pytest.mark.slow
def test_the_same_in_jax():
    jax = pytest.importorskip("jax")
    x, y = whitened()
    with jax.enable_x64(True):
        whole = functools.partial(repsim.svcca, variance=1.0)
        for function in (repsim.cca, repsim.pwcca, whole):
            gradient = jax.jit(jax.grad(function))
            np.testing.assert_allclose(gradient(x, y), gradients(function, x, y)[1], atol=1e-9)
            np.testing.assert_allclose(gradient(x, x), 0, atol=1e-9)
            assert np.isnan(gradient(np.ones_like(x), y)).all()


GRADIENTS = [
    (repsim.cca, {}, (9, 3, 2)),
    (repsim.cca, {"statistic": "mean_rho_squared"}, (9, 3, 2)),
    (repsim.svcca, {"variance": 0.8}, (9, 3, 2)),
    (repsim.svcca, {"directions": 2}, (8, 12, 10)),
    (repsim.pwcca, {}, (9, 2, 3)),
]


@each(("function", "options", "shape"), GRADIENTS)
def test_gradients(function, options, shape):
    right_gradient(function, *related(*shape, 2), **options)


@pytest.mark.slow
@each(("function", "options", "shape"), [*GRADIENTS[:2], *GRADIENTS[3:]])
def test_gradients_of_jax_agree(function, options, shape):
    """Without jit, where directions that are not kept are cut off."""
    same_gradient(function, *related(*shape, 2), compiled=False, **options)


def test_directions_that_are_small_beside_clusters_samples_or_means_count():
    """In float32 some were taken for rounding: cca of these clusters was .590 for .611."""
    rng = np.random.default_rng(0)
    common = rng.standard_normal((300, 20))
    sides = [
        common @ rng.standard_normal((20, p)) / 3 + rng.standard_normal((300, p)) for p in (64, 40)
    ]
    where = {
        "clusters": 1e4 * (np.arange(300) % 3 == 0),
        "a sample": 1e4 * (np.arange(300) == 7),
        "a mean": np.full(300, 1e3),
    }
    for name, far in where.items():
        moved = [z + far[:, None] * rng.standard_normal(z.shape[1]) for z in sides]
        x, y = (z.astype(np.float32) for z in moved)
        for function, options in (
            (repsim.cca, {}),
            (repsim.pwcca, {}),
            (repsim.eigenspace_overlap, {}),
            (repsim.shape_distance, {"alpha": 0}),
            (repsim.gulp, {"ridge": 0}),
            (repsim.linear_regression_r2, {}),
        ):
            found = float(function(x, y, **options))
            exact = float(function(x.astype(float), y.astype(float), **options))
            assert found == pytest.approx(exact, abs=1e-3), (name, function.__name__)
        streamed = repsim.StreamingCovariance()
        for rows in np.array_split(np.arange(300), 3):
            streamed.update({"x": x[rows]}, {"y": y[rows]})
        assert streamed.compute("cca").item() == pytest.approx(float(repsim.cca(x, y)), abs=1e-4), (
            name
        )


@each("dtype", ["float32", "float64"])
def test_the_rounding_of_large_means_adds_no_directions(dtype):
    """It did where features depend on each other: cca was .47 for .73, in float64 too."""
    rng = np.random.default_rng(0)
    z, noise = rng.standard_normal((2, 100, 5))
    near = [a @ rng.standard_normal((5, 20)) for a in (z, z + noise)]
    far = [(a + 1e4).astype(dtype) for a in near]
    for function, options in (
        (repsim.cca, {}),
        (repsim.pwcca, {}),
        (repsim.svcca, {"variance": 1.0}),
        (repsim.shape_distance, {"alpha": 0}),
        (repsim.gulp, {"ridge": 0}),
        (repsim.linear_regression_r2, {}),
        (repsim.linear_regression_r2, {"folds": 5}),
        (repsim.predictivity, {"model": "ols"}),
        (repsim.predictivity, {"model": "pls"}),
    ):
        found, expected = (float(function(*sides, **options)) for sides in (far, near))
        assert found == pytest.approx(expected, abs=2e-5), (function.__name__, options)
    assert len(repsim.CCAAlignment().fit(*far).correlations_) == 5
