"""The jackknife over batches: exact for few batches, over a bounded number of blocks for many."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import repsim
from reference import kernels, minibatch
from repsim import MinibatchCKA
from repsim.kernels import RBF
from streaming.batches import accumulate, data, loops, split

CAPACITY = 128


def pairs(count, n=6, p=3, seed=0, mix=1.0):
    """Batches of two representations that share causes."""
    rng = np.random.default_rng(seed)
    causes = mix * rng.standard_normal((count, n, p))
    return (causes + rng.standard_normal((count, n, p)) for _ in range(2))


def exact(xs, ys):
    """Delete one batch at a time, from sums of per-batch products: O(count) for 1000 batches."""

    def u_centred(x):
        x = x - x.mean(1, keepdims=True)
        k = x @ x.transpose(0, 2, 1)
        n = k.shape[-1]
        k = k * (1 - np.eye(n))
        rows = k.sum(2, keepdims=True)
        a = k - rows / (n - 2) - rows.transpose(0, 2, 1) / (n - 2)
        a = a + k.sum((1, 2), keepdims=True) / ((n - 1) * (n - 2))
        return a * (1 - np.eye(n))

    a, b = u_centred(xs), u_centred(ys)
    xy, xx, yy = ((u * v).sum((1, 2)) for u, v in ((a, b), (a, a), (b, b)))
    left = (xy.sum() - xy) / np.sqrt((xx.sum() - xx) * (yy.sum() - yy))
    k = len(xy)
    return math.sqrt((k - 1) / k * ((left - left.mean()) ** 2).sum())


def streamed(xs, ys):
    return accumulate([{"x": x} for x in xs], [{"y": y} for y in ys])


def test_the_vectorised_reference_is_the_loop():
    xs, ys = pairs(7)
    expected = minibatch.jackknife_standard_error(list(xs), list(ys))
    assert exact(xs, ys) == pytest.approx(expected, rel=1e-10)


@given(sizes=st.lists(st.integers(4, 9), min_size=2, max_size=6), seed=st.integers(0, 10**6))
def test_equals_the_plain_loop(sizes, seed):
    xs, ys = (split(side, sizes) for side in data(sum(sizes), seed))
    error = accumulate(xs, ys).standard_error()
    expected = loops(xs, ys, of=minibatch.jackknife_standard_error)
    np.testing.assert_allclose(error.values, expected, rtol=1e-7, atol=1e-12)
    assert error.attrs["n_blocks"] == len(sizes)
    assert error.dims == ("layer_x", "layer_y")
    assert error.name == "standard_error"


def test_of_another_kernel():
    xs, ys = (split(side, [5, 7, 6]) for side in data(18))
    error = accumulate(xs, ys, RBF(sigma=2.0)).standard_error()
    expected = loops(
        xs, ys, lambda x: kernels.rbf_fixed(x, 2.0), minibatch.jackknife_standard_error
    )
    np.testing.assert_allclose(error.values, expected, rtol=1e-9)


def test_of_a_model_with_itself_is_zero_on_the_diagonal():
    xs = split(data(24)[0], [6] * 4)
    error = accumulate(xs).standard_error().values
    np.testing.assert_allclose(np.diagonal(error), 0, atol=1e-14)
    np.testing.assert_allclose(error, error.T, rtol=1e-9, atol=1e-14)
    assert error[0, 1] > 1e-3


@pytest.mark.parametrize("count", [2, CAPACITY - 1, CAPACITY])
def test_exact_up_to_the_capacity(count):
    xs, ys = pairs(count)
    error = streamed(xs, ys).standard_error()
    assert error.item() == pytest.approx(exact(xs, ys), rel=1e-8)
    assert error.attrs["n_blocks"] == count


@pytest.mark.parametrize("count", [CAPACITY + 1, 300, 1000])
def test_bounded_beyond_the_capacity(count):
    xs, ys = pairs(count)
    acc = streamed(xs, ys)
    error = acc.standard_error()
    assert CAPACITY // 2 <= error.attrs["n_blocks"] <= CAPACITY
    assert len(acc.state_dict()["blocks"]["xy"]) == error.attrs["n_blocks"]
    batches = acc.state_dict()["blocks"]["batches"]
    assert batches.sum() == count
    assert len(set(batches[:-1])) == 1
    # An error from 64 blocks or more is known to 1/√128 = 9 %.
    assert error.item() == pytest.approx(exact(xs, ys), rel=0.25)
    # And the value is untouched by the blocks: the sums of all batches.
    a, b = list(xs), list(ys)
    if count < 200:
        assert acc.compute().item() == pytest.approx(minibatch.minibatch_cka(a, b), rel=1e-11)


def test_the_value_of_1000_batches_does_not_depend_on_the_blocks():
    xs, ys = pairs(1000, n=4)
    parts = [streamed(xs[s], ys[s]) for s in (slice(0, 100), slice(100, 450), slice(450, 1000))]
    merged = parts[2].merge(parts[0]).merge(parts[1])
    assert merged.compute().item() == pytest.approx(streamed(xs, ys).compute().item(), rel=1e-12)
    assert merged.n_batches == 1000


@pytest.mark.parametrize("workers", [3, 40, 1000])
def test_after_merging_the_error_is_that_of_equal_blocks(workers):
    """No block may hold most of the data, for any shares of the workers."""
    xs, ys = pairs(1000, mix=0.7)
    total = MinibatchCKA()
    for part in np.array_split(np.arange(1000), workers):
        total.merge(streamed(xs[part], ys[part]))
    error = total.standard_error()
    batches = total.state_dict()["blocks"]["batches"]
    assert batches.sum() == 1000
    assert 32 <= error.attrs["n_blocks"] <= CAPACITY
    assert batches.max() <= 40, f"{batches.max()} of 1000 batches are in one block"
    assert error.item() == pytest.approx(exact(xs, ys), rel=0.3)


@pytest.mark.parametrize("counts", [(20, 129), (129, 20), (300, 129), (3, 700)])
def test_blocks_of_different_sizes_are_brought_to_one(counts):
    xs, ys = pairs(sum(counts))
    first = streamed(xs[: counts[0]], ys[: counts[0]])
    first.merge(streamed(xs[counts[0] :], ys[counts[0] :]))
    sizes = first.state_dict()["blocks"]["batches"]
    assert sizes.sum() == sum(counts)
    smaller = sizes < sizes.max()
    assert smaller.sum() <= 2, sizes  # what was left over on either side
    assert first.standard_error().item() == pytest.approx(exact(xs, ys), rel=0.25)


def test_updates_after_many_merges_still_make_blocks():
    xs, ys = pairs(600)
    total = MinibatchCKA()
    for b in range(400):
        total.merge(streamed(xs[b : b + 1], ys[b : b + 1]))
    for b in range(400, 600):
        total.update({"x": xs[b]}, {"y": ys[b]})
    assert total.state_dict()["blocks"]["batches"].max() <= 40


def test_intervals_cover():
    """t intervals of nominal 95 % from 12 batches, over 150 data sets."""
    covered, ratios, values = 0, [], []
    truth = 0.25  # (mix² / (mix² + 1))² at mix = 1: equal, isotropic covariances
    t = stats.t.ppf(0.975, 11)
    for seed in range(150):
        acc = streamed(*pairs(12, n=12, seed=seed))
        value, error = acc.compute().item(), acc.standard_error().item()
        covered += abs(value - truth) <= t * error
        values.append(value)
        ratios.append(error)
    assert 0.88 <= covered / 150 <= 0.99
    assert np.sqrt(np.mean(np.square(ratios))) == pytest.approx(np.std(values), rel=0.2)


def test_a_single_batch_has_none():
    acc = accumulate([data(8)[0]])
    with pytest.warns(repsim.RepsimWarning, match="one batch has no spread"):
        error = acc.standard_error()
    assert np.isnan(error.values).all()
    assert error.attrs["n_blocks"] == 1


@pytest.mark.parametrize("two_models", [True, False])
def test_a_layer_that_varies_in_one_batch_alone_has_none_and_says_so(two_models):
    acc, rng = MinibatchCKA(), np.random.default_rng(0)
    for at in range(5):
        x = rng.standard_normal((8, 3))
        dead = x[:, :2] * (at == 2)
        both = {"x": x, "dead": dead}
        acc.update({"x": x}, both) if two_models else acc.update(both)
    assert np.isfinite(acc.compute().sel(layer_x="x", layer_y="dead"))
    with pytest.warns(repsim.DegenerateWarning, match="one block.* 'dead'"):
        error = acc.standard_error()
    assert np.isnan(error.sel(layer_y="dead")).all()
    assert np.isfinite(error.sel(layer_x="x", layer_y="x"))


@pytest.mark.parametrize("scale", [1e-4, 1e-7, 1e-9])
def test_a_batch_that_holds_nearly_all_of_a_layer_leaves_no_rounding(scale):
    # the sums without it are far smaller than its own, as where units are saturated in the others
    xs, ys = pairs(5)
    xs = xs * np.where(np.arange(5) == 2, 1, scale)[:, None, None]
    expected = minibatch.jackknife_standard_error(list(xs), list(ys))
    error = streamed(xs, ys).standard_error().item()
    np.testing.assert_allclose(error, expected, rtol=1e-9)


def test_short_batches_do_not_count_as_batches():
    xs, ys = (split(side, [6, 3, 7, 2, 8]) for side in data(26))
    error = accumulate(xs, ys).standard_error()
    expected = loops(xs, ys, of=minibatch.jackknife_standard_error)
    np.testing.assert_allclose(error.values, expected, rtol=1e-9)
    assert error.attrs["n_blocks"] == 3


def test_nothing_yet():
    with pytest.raises(repsim.StateError, match="standard_error"):
        MinibatchCKA().standard_error()
