"""StreamingLinearCKA: the value of all samples at once, for any batches."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import repsim
from reference import exact, kernels
from repsim import StateError, StreamingLinearCKA
from streaming.batches import data, same_state, split

ESTIMATORS = ("biased", "unbiased")


def streamed(xs, ys, sizes, estimator="unbiased", array=np.asarray):
    acc = StreamingLinearCKA(estimator=estimator)
    second = split(ys, sizes) if ys else [None] * len(sizes)
    for a, b in zip(split(xs, sizes), second, strict=True):
        convert = lambda layers: {name: array(x) for name, x in layers.items()}  # noqa: E731
        acc.update(convert(a), convert(b) if b else None)
    return acc


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("two", [False, True])
@pytest.mark.parametrize("sizes", [[40], [1] * 40, [1, 30, 9], [20, 20]])
def test_whole_grams(estimator, two, sizes):
    xs, ys = data(40)
    ys = ys if two else None
    expected = exact.cka_matrix(xs, ys, kernels.linear, estimator)
    got = streamed(xs, ys, sizes, estimator).compute()
    np.testing.assert_allclose(got.values, expected, atol=1e-11)
    assert got.attrs["n_samples"] == 40
    assert got.attrs["n_batches"] == len(sizes)
    assert list(got.layer_x.values) == list(xs)
    assert list(got.layer_y.values) == list(ys or xs)


@given(cut=st.integers(1, 29), two=st.booleans(), estimator=st.sampled_from(ESTIMATORS))
def test_merging(cut, two, estimator):
    xs, ys = data(30)
    for name in xs:  # a first batch that is far from the rest
        xs[name][:cut] += 10
    ys = ys if two else None
    expected = streamed(xs, ys, [30], estimator)
    both = [
        ({n: x[s] for n, x in xs.items()}, ys and {n: y[s] for n, y in ys.items()})
        for s in (slice(0, cut), slice(cut, 30))
    ]
    left, right = (StreamingLinearCKA(estimator=estimator) for _ in both)
    left.update(*both[0])
    right.update(*both[1])
    before = right.state_dict()
    merged = left.merge(right)
    assert merged is left
    assert merged.n_samples == 30
    np.testing.assert_allclose(merged.compute().values, expected.compute().values, atol=1e-11)
    assert same_state(before, right.state_dict())
    empty = StreamingLinearCKA(estimator=estimator).merge(merged)
    np.testing.assert_array_equal(empty.compute().values, merged.compute().values)
    assert empty.merge(StreamingLinearCKA(estimator=estimator)).n_samples == 30


@pytest.mark.parametrize("two", [False, True])
def test_state_continues_to_the_same_bits(two):
    xs, ys = data(30)
    ys = ys if two else None
    sizes = [9, 21]
    acc = streamed({n: x[:9] for n, x in xs.items()}, ys and {n: y[:9] for n, y in ys.items()}, [9])
    again = StreamingLinearCKA.from_state_dict(acc.state_dict())
    again.update({n: x[9:] for n, x in xs.items()}, ys and {n: y[9:] for n, y in ys.items()})
    whole = streamed(xs, ys, sizes)
    np.testing.assert_array_equal(again.compute().values, whole.compute().values)
    assert again.n_batches == 2


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_means_far_from_zero_in_float32(estimator):
    xs, ys = data(60)
    xs = {n: (x + 1000).astype(np.float32) for n, x in xs.items()}
    got = streamed(xs, ys, [1, 30, 29], estimator).compute()
    wide = {n: x.astype(np.float64) - 1000 for n, x in xs.items()}
    expected = exact.cka_matrix(wide, ys, lambda x: kernels.linear(kernels.centred(x)), estimator)
    np.testing.assert_allclose(got.values, expected, atol=1e-10)


def test_torch_and_a_move_to_numpy():
    xs, ys = data(30)
    expected = streamed(xs, ys, [15, 15]).compute()
    acc = streamed(xs, ys, [15, 15], array=torch.tensor)
    np.testing.assert_allclose(acc.compute().values, expected.values, atol=1e-12)
    mixed = streamed({n: x[:15] for n, x in xs.items()}, {n: y[:15] for n, y in ys.items()}, [15])
    rest = [{n: torch.tensor(x[15:]) for n, x in side.items()} for side in (xs, ys)]
    mixed.update(*rest)
    np.testing.assert_allclose(mixed.compute().values, expected.values, atol=1e-12)


def test_the_order_of_the_layers_in_a_batch_does_not_matter():
    xs, _ = data(30)
    acc = StreamingLinearCKA()
    acc.update({n: x[:15] for n, x in xs.items()})
    acc.update({n: xs[n][15:] for n in reversed(xs)})
    expected = streamed(xs, None, [15, 15]).compute()
    np.testing.assert_array_equal(acc.compute().values, expected.values)


@pytest.mark.parametrize("two", [False, True])
def test_a_constant_layer(two):
    xs, ys = data(30)
    xs["norm"] = np.full((30, 5), 0.1)
    acc = streamed(xs, ys if two else None, [3, 27])
    with pytest.warns(repsim.DegenerateWarning, match="NaN\\): x 'norm'\\."):
        got = acc.compute()
    assert np.isnan(got.sel(layer_x="norm")).all()
    assert np.isfinite(got.sel(layer_x="conv")).sum() == 2
    if two:
        with pytest.warns(repsim.DegenerateWarning, match="NaN\\): y 'norm'\\."):
            assert np.isnan(streamed(ys, xs, [3, 27]).compute().sel(layer_y="norm")).all()


def test_the_warning_of_chance_names_the_layers_most_alike_by_chance():
    rng = np.random.default_rng(0)
    xs, ys = (
        {name: rng.standard_normal((20, p)) for name, p in sizes}
        for sizes in (
            (("few", 2), ("many", 60)),
            (("wide", 50), ("narrow", 2)),
        )
    )
    for side, where in ((ys, "x 'many' with y 'wide'"), (None, "x 'few' with x 'many'")):
        with pytest.warns(repsim.ChanceWarning, match=f"here for {where}, because") as caught:
            streamed(xs, side, [20], "biased").compute()
        assert len(caught) == 1


def test_features_whose_fourth_powers_vanish_are_nan_and_named():
    xs, ys = data(30)
    right = streamed(xs, ys, [3, 27]).compute().values
    for power in (-240, -262, -266, -270, -700):
        acc = streamed({name: x * 2.0**power for name, x in xs.items()}, ys, [3, 27])
        if power == -240:
            np.testing.assert_allclose(acc.compute().values, right, rtol=1e-10)
            continue
        with pytest.warns(repsim.DegenerateWarning, match="where fourth powers vanish"):
            assert np.isnan(acc.compute().values).all()


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
        (repsim.ArrayTypeError, "one framework", (xs, {n: torch.tensor(y) for n, y in ys.items()})),
    ]
    for error, match, batch in refused:
        with pytest.raises(error, match=match):
            acc.update(*batch)
    assert same_state(acc.state_dict(), before)


def test_states_that_do_not_belong():
    xs, ys = data(30)
    acc = streamed(xs, ys, [30])
    with pytest.raises(StateError, match="at least 4"):
        streamed({n: x[:3] for n, x in xs.items()}, None, [3]).compute()
    with pytest.raises(StateError, match="one estimator"):
        acc.merge(StreamingLinearCKA(estimator="biased"))
    with pytest.raises(StateError, match="same layers"):
        acc.merge(streamed(xs, None, [30]))
    with pytest.raises(StateError, match="not a state"):
        StreamingLinearCKA.from_state_dict({"format": "x"})
    state = acc.state_dict()
    del state["moments"]
    with pytest.raises(StateError, match="moments"):
        StreamingLinearCKA.from_state_dict(state)
