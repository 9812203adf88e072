"""StreamingCovariance: the map of `pairwise` on all samples, for any batches."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import repsim
from repsim import StateError, StreamingCovariance
from repsim.measures import MEASURES
from streaming.batches import data, named, rows, same_state, split

FOLLOW = [name for name, m in MEASURES.items() if m.prepare_contrasts is not None]

OPTIONS = [
    ("cka", {"estimator": "biased"}),
    ("hsic", {}),
    ("angular_cka", {"estimator": "biased"}),
    ("svcca", {"variance": 0.8, "statistic": "mean_rho_squared"}),
    ("svcca", {"directions": 2}),
    ("shape_distance", {"alpha": 0.5}),
    ("gulp", {"ridge": 1e-6}),
    ("linear_regression_r2", {"ridge": 0.3}),
    ("correlation_match_soft", {}),
    *((name, {}) for name in FOLLOW),
]


def quiet(call):
    """The result, or the kind of error; and the kinds of warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call()
    return result, sorted({w.category.__name__ for w in caught})


def streamed(xs, ys, sizes, array=np.asarray):
    acc = StreamingCovariance()
    second = split(ys, sizes) if ys else [None] * len(sizes)
    for a, b in zip(split(xs, sizes), second, strict=True):
        acc.update(named(array, a), named(array, b) if b else None)
    return acc


def assert_as_pairwise(acc, xs, ys, rtol=1e-11, atol=1e-12, options=OPTIONS):
    def same(measure, settings):
        expected, warned = quiet(lambda: repsim.pairwise(xs, ys, measure=measure, **settings))
        got, warned_now = quiet(lambda: acc.compute(measure, **settings))
        np.testing.assert_allclose(got.values, expected.values, rtol=rtol, atol=atol)
        assert warned_now == warned
        assert got.dims == expected.dims
        assert list(got.layer_x.values) == list(expected.layer_x.values)
        assert list(got.layer_y.values) == list(expected.layer_y.values)
        assert got.name == expected.name
        attrs = dict(got.attrs)
        assert attrs.pop("n_batches") == acc.n_batches
        assert attrs == expected.attrs

    for measure, settings in options:
        try:
            same(measure, settings)
        except AssertionError as error:
            error.add_note(f"{measure} {settings}")
            raise


@pytest.mark.parametrize("two", [False, True])
@pytest.mark.parametrize("sizes", [[60], [1] * 60, [1, 50, 9]])
def test_the_map_of_pairwise(two, sizes):
    xs, ys = data(60)
    ys = ys if two else None
    assert_as_pairwise(streamed(xs, ys, sizes), xs, ys)


@given(cut=st.integers(1, 29), two=st.booleans())
def test_merging(cut, two):
    xs, ys = data(30)
    for name in xs:  # a first part that is far from the rest
        xs[name][:cut] += 10
    ys = ys if two else None
    left, right = (
        streamed(rows(xs, s), ys and rows(ys, s), [n])
        for s, n in ((slice(0, cut), cut), (slice(cut, 30), 30 - cut))
    )
    before = right.state_dict()
    merged = left.merge(right)
    assert merged is left
    assert merged.n_samples == 30
    few = [("cka", {}), ("cca", {}), ("rv2", {}), ("procrustes", {})]
    assert_as_pairwise(merged, xs, ys, options=few)
    assert same_state(before, right.state_dict())
    empty = StreamingCovariance().merge(merged)
    np.testing.assert_array_equal(empty.compute("nbs").values, merged.compute("nbs").values)
    assert empty.merge(StreamingCovariance()).n_samples == 30


@pytest.mark.parametrize("two", [False, True])
def test_state_continues_to_the_same_bits(two):
    xs, ys = data(700)
    ys = ys if two else None
    first, rest = slice(0, 290), slice(290, 700)
    acc = streamed(rows(xs, first), ys and rows(ys, first), [270, 20])
    state = acc.state_dict()
    again = StreamingCovariance.from_state_dict(state)
    again.update(rows(xs, rest), ys and rows(ys, rest))
    whole = streamed(xs, ys, [270, 20, 410])
    np.testing.assert_array_equal(again.compute("pwcca").values, whole.compute("pwcca").values)
    assert again.n_batches == 3
    assert same_state(state, acc.state_dict())


def test_more_rows_than_are_kept():
    """Beyond 256 rows they are decomposed, in parts whose means differ."""
    xs, ys = data(900)
    for name in xs:
        xs[name] += np.linspace(0, 50, 900)[:, None]
    assert_as_pairwise(streamed(xs, ys, [1, 299, 300, 300]), xs, ys, rtol=1e-10)


def test_large_means_and_scales():
    few = [*OPTIONS[:1], ("cka", {}), ("rv2", {}), ("pwcca", {}), ("procrustes", {}), ("gulp", {})]
    for change in (
        lambda x: x + 1e4,
        lambda x: 1e-15 * x,
        lambda x: 1e15 * x,
        lambda x: 1e-120 * x,
        lambda x: 1e120 * x,
    ):
        xs, ys = ({n: change(x) for n, x in side.items()} for side in data(300))
        assert_as_pairwise(streamed(xs, ys, [30, 240, 30]), xs, ys, rtol=1e-9, options=few)


def test_float32_with_a_mean():
    """The result is float64; pairwise rounds to the dtype of the inputs."""
    xs, ys = ({n: x + np.float32(1e4) for n, x in side.items()} for side in data(300, 0, "float32"))
    assert_as_pairwise(streamed(xs, ys, [30, 270]), xs, ys, rtol=1e-6, atol=1e-6)


def test_batches_of_other_scales():
    """The unit of a layer grows with its batches; what is far below it is rounding."""
    xs, _ = data(600)
    sizes = np.repeat([1e-90, 1.0, 1e80], 200)[:, None]
    xs = {name: x * sizes for name, x in xs.items()}
    few = [("cka", {}), ("cca", {}), ("nbs", {})]
    assert_as_pairwise(streamed(xs, None, [200, 200, 200]), xs, None, options=few)


def test_ranks_are_those_of_the_samples():
    """A covariance would lose what is below 1e-8 of the largest direction."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 4))
    small = x @ np.diag([1.0, 1e-4, 1e-8, 1e-11])
    turned = small @ np.linalg.qr(rng.standard_normal((4, 4)))[0]
    xs = {
        "duplicated": np.concatenate([x, x], axis=1),
        "sum": np.concatenate([x, x[:, :1] + x[:, 1:2]], axis=1),
        "ill conditioned": turned,
    }
    ys = {"y": x[:, 2:] + rng.standard_normal((400, 2))}
    options = [("cca", {}), ("pwcca", {}), ("linear_regression_r2", {}), ("gulp", {"ridge": 0})]
    acc = streamed(xs, ys, [100, 200, 100])
    assert_as_pairwise(acc, xs, ys, rtol=1e-4, options=options)
    well = {"duplicated": xs["duplicated"], "sum": xs["sum"]}
    assert_as_pairwise(streamed(well, ys, [100, 300]), well, ys, rtol=1e-10, options=options)


def test_no_more_samples_than_features():
    rng = np.random.default_rng(0)
    xs = {"narrow": rng.standard_normal((12, 3)), "wide": rng.standard_normal((12, 40))}
    acc = streamed(xs, None, [5, 1, 6])
    assert_as_pairwise(acc, xs, None, rtol=1e-9)
    with pytest.warns(repsim.DegenerateWarning, match=r"xs\['wide'\] spans all 11 dimensions"):
        values = acc.compute("cca")
    assert np.isnan(values.sel(layer_x="wide")).all()


def test_a_constant_layer():
    xs, ys = data(300)
    xs["norm"] = np.full((300, 5), 0.1)
    xs["conv"][:, 1] = 7.3
    assert_as_pairwise(streamed(xs, ys, [3, 280, 17]), xs, ys, rtol=1e-10)


@pytest.mark.parametrize("array", ["torch", "jax", "strict"])
def test_other_frameworks(array):
    if array == "torch":
        import torch

        convert = torch.tensor
    elif array == "jax":
        import jax.numpy as jnp

        convert = jnp.asarray
    else:
        import array_api_strict

        convert = array_api_strict.asarray
    xs, ys = data(60)
    acc = streamed(xs, ys, [20, 40], array=convert)
    few = [("cka", {}), ("pwcca", {}), ("procrustes", {}), ("rv2", {}), ("gulp", {})]
    loose = array == "jax" and convert(1.0).dtype != np.float64
    assert_as_pairwise(acc, xs, ys, *((1e-5, 1e-5) if loose else ()), options=few)
    acc.update(rows(xs, slice(0, 30)), rows(ys, slice(0, 30)))  # and on in NumPy
    assert acc.n_samples == 90
    again = StreamingCovariance.from_state_dict(acc.state_dict())
    np.testing.assert_array_equal(acc.compute("cca").values, again.compute("cca").values)


def test_what_does_not_follow_from_covariances():
    xs, ys = data(30)
    acc = streamed(xs, ys, [30])
    refused = [
        ("follow from covariances.\n  those that do: 'nbs', 'procrustes'", "mutual_knn", {}),
        ("unknown measure", "nonsense", {}),
        ("only the linear kernel", "cka", {"kernel": "rbf"}),
        ("features='sampled' need the samples", "cka", {"features": "sampled"}),
        ("unknown features", "cka", {"features": "some"}),
        ("held-out samples do not follow", "linear_regression_r2", {"folds": 5}),
        ("several penalties", "linear_regression_r2", {"ridge": (1.0, 2.0)}),
        ("unknown options", "cca", {"kernel": "rbf"}),
        ("norm", "procrustes", {"norm": "other"}),
    ]
    for match, measure, settings in refused:
        with pytest.raises(repsim.InputError, match=match):
            acc.compute(measure, **settings)


def test_refusals_change_nothing():
    xs, ys = data(30)
    acc = streamed(xs, ys, [30])
    before = acc.state_dict()
    bad = {n: x.copy() for n, x in xs.items()}
    bad["norm"][3] = np.inf
    refused = [
        (repsim.NonFiniteError, r"xs\['norm'\], batch 1", (bad, ys)),
        (repsim.InputError, "layers and features of the first", (xs, None)),
        (repsim.InputError, "layers and features of the first", ({"conv": xs["conv"]}, ys)),
        (repsim.InputError, "same samples", (xs, {n: y[:9] for n, y in ys.items()})),
        (repsim.InputError, "must map layer names", (xs["conv"], ys)),
    ]
    for error, match, batch in refused:
        with pytest.raises(error, match=match):
            acc.update(*batch)
    assert same_state(acc.state_dict(), before)


def test_states_that_do_not_belong():
    xs, ys = data(30)
    acc = streamed(xs, ys, [30])
    with pytest.raises(StateError, match="at least 4 samples"):
        streamed(rows(xs, slice(0, 3)), None, [3]).compute()
    with pytest.raises(StateError, match="accumulated: 0"):
        StreamingCovariance().compute()
    with pytest.raises(StateError, match="same layers"):
        acc.merge(streamed(xs, None, [30]))
    with pytest.raises(repsim.ArrayTypeError, match="must be a StreamingCovariance"):
        acc.merge(repsim.StreamingLinearCKA())
    with pytest.raises(StateError, match="not a state"):
        StreamingCovariance.from_state_dict({"format": "x"})
    state = acc.state_dict()
    del state["waiting"]
    with pytest.raises(StateError, match="waiting"):
        StreamingCovariance.from_state_dict(state)
