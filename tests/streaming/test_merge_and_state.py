"""Accumulators that are joined, saved, restored and sent elsewhere."""

import copy
import io
import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import repsim
from repsim import MinibatchCKA, StateError
from repsim.kernels import RBF, Laplacian, Polynomial
from streaming.batches import accumulate, data, flat, named, same_state, split


def parts_of(count, kernel="linear", seed=0, y=True):
    """One accumulator for each batch, and one that has seen all batches."""
    sizes = [4 + b % 3 for b in range(count)]
    xs, ys = (split(side, sizes) for side in data(sum(sizes), seed))
    all_of_it = accumulate(xs, ys if y else None, kernel)
    each = [accumulate([a], [b] if y else None, kernel) for a, b in zip(xs, ys, strict=True)]
    return each, all_of_it


def assert_same(a, b, rtol=1e-12):
    np.testing.assert_allclose(a.compute().values, b.compute().values, rtol=rtol, atol=rtol / 100)
    assert a.compute().attrs == b.compute().attrs
    assert list(a.compute().layer_x.values) == list(b.compute().layer_x.values)


# Merging


@given(order=st.permutations(range(6)), cut=st.integers(0, 6), y=st.booleans())
def test_merging_in_any_order_and_grouping(order, cut, y):
    each, expected = parts_of(6, y=y)
    left, right = MinibatchCKA(), MinibatchCKA()
    for b in order[:cut]:
        left.merge(each[b])
    for b in order[cut:]:
        right.merge(each[b])
    merged = left.merge(right)
    assert merged is left
    assert_same(merged, expected)
    np.testing.assert_allclose(
        merged.standard_error().values, expected.standard_error().values, rtol=1e-9, atol=1e-13
    )


def test_merging_does_not_change_the_other():
    each, _ = parts_of(3)
    before = each[1].state_dict()
    each[0].merge(each[1])
    each[0].update(*[named(np.asarray, side) for side in data(7)])
    each[0].merge(each[2])
    assert same_state(each[1].state_dict(), before)


def test_merging_with_one_that_is_empty():
    each, _ = parts_of(1)
    expected = each[0].compute()
    assert each[0].merge(MinibatchCKA()).compute().identical(expected)
    assert MinibatchCKA().merge(each[0]).compute().identical(expected)
    with pytest.raises(StateError):
        MinibatchCKA().merge(MinibatchCKA()).compute()


@pytest.mark.parametrize("kernel", ["rbf", "laplacian"])
def test_an_empty_one_takes_over_the_bandwidths(kernel):
    xs, ys = (split(side, [9, 8]) for side in data(17))
    total = MinibatchCKA(kernel=kernel).merge(accumulate(xs[:1], ys[:1], kernel))
    total.update(xs[1], ys[1])
    assert_same(total, accumulate(xs, ys, kernel))


def test_merging_counts_short_batches():
    each, _ = parts_of(2)
    for part in each:
        part.update(*[{k: v[:2] for k, v in side.items()} for side in data(3)])
    merged = each[0].merge(each[1])
    assert (merged.n_skipped_batches, merged.n_skipped_samples) == (2, 4)
    assert merged.n_samples == 9


def test_merging_with_itself_is_refused():
    """Samples that count twice would make standard errors too small."""
    x = np.random.default_rng(0).standard_normal((6, 3))
    accumulators = [MinibatchCKA(), repsim.StreamingLinearCKA(), repsim.StreamingCovariance()]
    for acc in accumulators:
        acc.update({"a": x})
        with pytest.raises(StateError, match="count twice"):
            acc.merge(acc)
        assert acc.n_batches == 1


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (lambda x, y: accumulate([x], [y], "cosine"), "one kernel"),
        (lambda x, y: accumulate([x], [y], Polynomial(degree=3)), "one kernel"),
        (lambda x, y: accumulate([x]), "same layers"),
        (lambda x, y: accumulate([y], [x]), "same layers"),
        (lambda x, y: accumulate([{**x, "more": x["fc"]}], [y]), "same layers"),
        (lambda x, y: accumulate([dict(reversed(x.items()))], [y]), "same layers"),
        (lambda x, y: accumulate([x], [dict(reversed(y.items()))]), "same layers"),
    ],
)
def test_accumulators_that_do_not_match_are_refused(other, says):
    x, y = data(8)
    acc = accumulate([x], [y])
    before = acc.state_dict()
    with pytest.raises(StateError, match=says):
        acc.merge(other(x, y))
    assert same_state(acc.state_dict(), before)


def test_bandwidths_of_different_pilot_batches():
    xs, ys = (split(side, [9, 8]) for side in data(17))
    apart = [accumulate([x], [y], "rbf") for x, y in zip(xs, ys, strict=True)]
    with pytest.raises(StateError, match="bandwidth") as caught:
        apart[0].merge(apart[1])
    assert "spawn()" in str(caught.value)
    assert "'conv'" in str(caught.value) or "'norm'" in str(caught.value)
    only_y = accumulate(xs[:1], [{k: 2 * v for k, v in ys[0].items()}], "rbf")
    with pytest.raises(StateError, match="bandwidth.*\n.*'(patch|block)'"):
        accumulate(xs[:1], ys[:1], "rbf").merge(only_y)
    for scale in (1e-6, 1e6):  # a difference counts relative to the bandwidth
        scaled = [
            {name: factor * v for name, v in xs[0].items()} for factor in (scale, 1.01 * scale)
        ]
        with pytest.raises(StateError, match="bandwidth"):
            accumulate(scaled[:1], kernel="rbf").merge(accumulate(scaled[1:], kernel="rbf"))
        near = [{name: (1 + 1e-9) * v for name, v in scaled[0].items()}]
        merged = accumulate(scaled[:1], kernel="rbf").merge(accumulate(near, kernel="rbf"))
        assert merged.n_batches == 2
    fixed = [accumulate([x], [y], RBF(sigma=2.0)) for x, y in zip(xs, ys, strict=True)]
    assert_same(fixed[0].merge(fixed[1]), accumulate(xs, ys, RBF(sigma=2.0)))


@pytest.mark.parametrize("kernel", ["rbf", "laplacian", "linear"])
def test_spawned_accumulators_merge(kernel):
    xs, ys = (split(side, [9, 8, 7, 6]) for side in data(30))
    expected = accumulate(xs, ys, kernel)
    first = accumulate(xs[:1], ys[:1], kernel)
    workers = [first.spawn() for _ in range(3)]
    for worker, x, y in zip(workers, xs[1:], ys[1:], strict=True):
        assert worker.n_batches == worker.n_samples == 0
        assert worker.layers_x == []
        worker.update(x, y)
    for worker in workers:
        first.merge(worker)
    assert_same(first, expected)


@pytest.mark.parametrize("there", ["torch", "jax"])
@pytest.mark.parametrize("kernel", ["rbf", "laplacian"])
def test_spawn_for_a_worker_with_another_framework(kernel, there):
    """A bandwidth is a plain number, so a worker may use another framework or device."""
    torch = pytest.importorskip("torch")
    other = torch.tensor if there == "torch" else pytest.importorskip("jax").numpy.asarray
    mine = np.asarray if there == "torch" else torch.tensor
    xs, ys = (split(side, [8, 8]) for side in data(16, dtype="float32"))
    first = accumulate(xs[:1], ys[:1], kernel, mine)
    worker = first.spawn()
    worker.update(named(other, xs[1]), named(other, ys[1]))
    assert_same(first.merge(worker), accumulate(xs, ys, kernel), rtol=1e-5)


def test_spawn_is_independent():
    xs, _ = data(8)
    acc = accumulate([xs], kernel="rbf")
    child = acc.spawn()
    child.update({"another": xs["fc"]})
    assert set(acc.state_dict()["bandwidths_x"]) == set(xs)
    assert acc.layers_x == list(xs)


def test_reset():
    xs, ys = data(9)
    acc = accumulate([xs, {k: v[:2] for k, v in xs.items()}], None, "rbf")
    acc.reset()
    assert (acc.n_samples, acc.n_batches, acc.n_skipped_batches, acc.n_skipped_samples) == (0,) * 4
    with pytest.raises(StateError):
        acc.compute()
    acc.update({k: 3 * v for k, v in ys.items()}, {"z": xs["fc"]})  # other layers, other mode
    expected = accumulate([{k: 3 * v for k, v in ys.items()}], [{"z": xs["fc"]}], "rbf")
    assert acc.compute().identical(expected.compute())
    assert acc.state_dict()["bandwidths_x"] == expected.state_dict()["bandwidths_x"]


def test_reset_forgets_the_sharing_of_grams():
    a, b, c = (v @ v.T for v in data(8)[0].values())
    acc = MinibatchCKA()
    acc.update_grams({"1": a, "2": a, "3": b})
    acc.reset()
    acc.update_grams({"1": a, "2": b, "3": b, "4": c})
    expected = MinibatchCKA()
    expected.update_grams({"1": a, "2": b, "3": b.copy(), "4": c})
    np.testing.assert_allclose(acc.compute().values, expected.compute().values, rtol=1e-13)


# State


def through_pickle(state):
    return pickle.loads(pickle.dumps(state))


def through_npz(state):
    """A state holds only arrays for .npz and values for JSON."""
    leaves = flat(state)
    arrays = {k: v for k, v in leaves.items() if isinstance(v, np.ndarray)}
    rest = json.loads(json.dumps({k: v for k, v in leaves.items() if k not in arrays}))
    file = io.BytesIO()
    np.savez(file, **arrays)
    file.seek(0)
    with np.load(file, allow_pickle=False) as loaded:
        leaves = {**rest, **{k: loaded[k] for k in loaded.files}}

    def rebuild(value, path="state"):
        if isinstance(value, dict):
            return {k: rebuild(v, f"{path}.{k}") for k, v in value.items()}
        return leaves[path]

    return rebuild(state)


@pytest.mark.parametrize("through", [through_pickle, through_npz], ids=["pickle", "npz"])
@pytest.mark.parametrize(
    "kernel",
    ["linear", "cosine", Polynomial(3, 0.5, 2.0), RBF(0.5, "off_diagonal"), RBF(sigma=1.5),
     "laplacian", Laplacian(sigma=2.0)],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("y", [True, False], ids=["two models", "one model"])
def test_state_round_trip(through, kernel, y):
    xs, ys = (split(side, [6, 3, 7, 5]) for side in data(21))
    acc = accumulate(xs[:3], ys[:3] if y else None, kernel)
    back = MinibatchCKA.from_state_dict(through(acc.state_dict()))
    assert back.kernel == acc.kernel
    with pytest.warns(repsim.RepsimWarning, match="fewer than 4"):
        result = acc.compute()
    with pytest.warns(repsim.RepsimWarning, match="fewer than 4"):
        assert back.compute().identical(result)
    np.testing.assert_array_equal(back.standard_error().values, acc.standard_error().values)
    assert same_state(back.state_dict(), acc.state_dict())

    for each in (acc, back):  # and both continue in the same way
        each.update(xs[3], ys[3] if y else None)
    with pytest.warns(repsim.RepsimWarning):
        np.testing.assert_array_equal(back.compute().values, acc.compute().values)


def test_state_after_many_batches():
    rng = np.random.default_rng(0)
    batches = [
        {"x": rng.standard_normal((4, 2)), "z": rng.standard_normal((4, 2))} for _ in range(300)
    ]
    acc = accumulate(batches[:290])
    back = MinibatchCKA.from_state_dict(acc.state_dict())
    for each in (acc, back):
        for batch in batches[290:]:
            each.update(batch)
    assert back.compute().identical(acc.compute())
    np.testing.assert_array_equal(back.standard_error().values, acc.standard_error().values)


def test_the_state_is_a_copy():
    xs, _ = (split(side, [6, 7]) for side in data(13))
    acc = accumulate(xs[:1])
    state = acc.state_dict()
    before = copy.deepcopy(state)
    acc.update(xs[1])
    assert same_state(state, before)
    back = MinibatchCKA.from_state_dict(state)
    value = back.compute().values
    mine = acc.compute()
    for taken in (state, acc.state_dict()):
        taken["blocks"]["xy"][...] = 7
        taken["layers_x"].append("?")
    np.testing.assert_array_equal(back.compute().values, value)
    assert acc.compute().identical(mine)


def test_an_empty_state():
    back = MinibatchCKA.from_state_dict(MinibatchCKA(kernel="cosine").state_dict())
    xs, _ = data(8)
    back.update(xs)
    assert back.compute().identical(accumulate([xs], kernel="cosine").compute())


@pytest.mark.parametrize("kernel", ["linear", "rbf", "laplacian"])
def test_a_state_continues_in_another_framework(eager, kernel):
    xs, ys = (split(side, [8, 8, 8]) for side in data(24))
    expected = accumulate(xs, ys, kernel)
    began = accumulate(xs[:1], ys[:1], kernel)
    acc = MinibatchCKA.from_state_dict(through_pickle(began.state_dict()))
    for x, y in zip(xs[1:], ys[1:], strict=True):
        acc.update(named(eager.array, x), named(eager.array, y))
    assert_same(acc, expected, rtol=1e-11)

    # and back: NumPy continues what this framework began
    began = accumulate(xs[:1], ys[:1], kernel, eager.array)
    acc = MinibatchCKA.from_state_dict(through_pickle(began.state_dict()))
    for x, y in zip(xs[1:], ys[1:], strict=True):
        acc.update(x, y)
    assert_same(acc, expected, rtol=1e-11)

    # or the two are merged
    left = accumulate(xs[:1], ys[:1], kernel, eager.array)
    right = MinibatchCKA.from_state_dict(left.spawn().state_dict())
    for x, y in zip(xs[1:], ys[1:], strict=True):
        right.update(x, y)
    assert_same(left.merge(right), expected, rtol=1e-11)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_frameworks_may_change_from_batch_to_batch(kernel):
    torch = pytest.importorskip("torch")
    grams = [{k: v @ v.T for k, v in b.items()} for b in split(data(24)[0], [8, 8, 8])]
    for frameworks in ((np.asarray, torch.tensor), (torch.tensor, np.asarray)):
        acc, expected = MinibatchCKA(), MinibatchCKA()
        for array, batch in zip((*frameworks, frameworks[0]), grams, strict=True):
            shared = {k: array(v) for k, v in batch.items()}
            shared["again"] = shared["conv"]  # an index that is kept between batches
            acc.update_grams(shared)
            expected.update_grams({**batch, "again": batch["conv"]})
        np.testing.assert_allclose(acc.compute().values, expected.compute().values, rtol=1e-12)


@pytest.mark.parametrize("state", [None, 3, "repsim.MinibatchCKA/1", {}, {"format": "other/1"}])
def test_an_argument_that_is_not_a_state(state):
    with pytest.raises(StateError, match="not a state"):
        MinibatchCKA.from_state_dict(state)


def test_a_state_with_parts_missing():
    state = accumulate([data(8)[0]]).state_dict()
    for key in set(state) - {"format", "repsim_version"}:
        with pytest.raises(StateError):
            MinibatchCKA.from_state_dict({k: v for k, v in state.items() if k != key})


def test_a_state_is_not_continued_with_another_kernel():
    """The sums belong to one kernel, and another kernel must not continue them."""
    state = accumulate([data(8)[0]]).state_dict()
    with pytest.raises(StateError, match="kernel"):
        MinibatchCKA.from_state_dict(state, kernel=RBF())


class Quadratic:
    """A kernel that the user wrote."""

    def gram(self, x):
        return (x @ x.T + 1) ** 2

    def fit(self, x):
        return self

    def __eq__(self, other):
        return isinstance(other, Quadratic)

    __hash__ = None


def test_a_users_kernel():
    xs = split(data(13)[0], [6, 7])
    acc = accumulate(xs, kernel=Quadratic())
    np.testing.assert_allclose(
        acc.compute().values,
        accumulate(xs, kernel=Polynomial(2, 1.0, 1.0)).compute().values,
        rtol=1e-12,
    )
    state = through_pickle(acc.state_dict())
    with pytest.raises(StateError, match="kernel="):
        MinibatchCKA.from_state_dict(state)
    back = MinibatchCKA.from_state_dict(state, kernel=Quadratic())
    np.testing.assert_array_equal(back.compute().values, acc.compute().values)


def test_an_accumulator_pickles():
    acc = accumulate([data(8)[0]], kernel="rbf")
    assert pickle.loads(pickle.dumps(acc)).compute().identical(acc.compute())
    for kind in (repsim.StreamingLinearCKA, repsim.StreamingCovariance):
        acc = kind()
        acc.update(*data(12))
        assert pickle.loads(pickle.dumps(acc)).compute().identical(acc.compute())
