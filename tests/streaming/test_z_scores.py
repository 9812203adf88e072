"""z under permutation within batches: all permutations, and sums over batches."""

import math

import numpy as np
import pytest

import repsim
from reference import inference as reference
from reference import kernels
from repsim import MinibatchCKA, StateError
from streaming.batches import accumulate, data, loops, split


def z_of(xs, ys, **options):
    return accumulate(xs, ys, **options).z_scores()


@pytest.mark.parametrize("sizes", [[5], [4, 5], [5, 4, 4]])
def test_equals_every_permutation_within_the_batches(sizes):
    xs, ys = (split(side, sizes) for side in data(sum(sizes)))
    expected = loops(xs, ys, of=reference.minibatch_z)
    found = z_of(xs, ys)
    np.testing.assert_allclose(found.values, expected, rtol=1e-10)
    assert found.dims == ("layer_x", "layer_y")
    assert found.layer_x.values.tolist() == list(xs[0])
    assert found.name == "z"


def test_one_batch_is_cka_in_units_of_its_standard_deviation():
    x, y = data(30)
    acc = accumulate([x], [y])
    np.testing.assert_allclose(acc.z_scores(), acc.compute() * math.sqrt(30 * 27 / 2), rtol=1e-12)
    test = repsim.permutation_test(x["conv"], y["block"], permutations=1)
    found = acc.z_scores().sel(layer_x="conv", layer_y="block").item()
    assert found == pytest.approx(test.z, rel=1e-10)


def test_grows_with_the_root_of_the_number_of_batches():
    x, y = data(12)
    one, nine = z_of([x], [y]), z_of([x] * 9, [y] * 9)
    np.testing.assert_allclose(nine, 3 * one, rtol=1e-12)


def test_of_independent_layers_is_around_zero_with_unit_variance():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(20):
        acc = MinibatchCKA()
        for _ in range(8):
            sides = [{str(i): rng.standard_normal((10, 3)) for i in range(4)} for _ in range(2)]
            acc.update(*sides)
        found.append(acc.z_scores().values)
    # 320 values of mean 0 and variance 1, in blocks of 16 that share their layers.
    assert abs(np.mean(found)) < 0.25
    assert 0.7 < np.std(found) < 1.3


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_a_model_with_itself(kernel):
    xs = split(data(16)[0], [8, 8])
    itself, both = z_of(xs, None, kernel=kernel), z_of(xs, xs, kernel=kernel)
    np.testing.assert_allclose(itself.values, both.values, rtol=1e-12)
    assert (np.diag(itself.values) >= itself.values.max(axis=1) - 1e-9).all()


def test_survives_merging_and_saving():
    sizes = [6, 7, 5, 9]
    xs, ys = (split(side, sizes) for side in data(sum(sizes)))
    expected = z_of(xs, ys).values
    left, right = accumulate(xs[:1], ys[:1]), accumulate(xs[1:], ys[1:])
    back = MinibatchCKA.from_state_dict(left.state_dict())
    np.testing.assert_array_equal(back.z_scores(), left.z_scores())
    np.testing.assert_allclose(back.merge(right).z_scores(), expected, rtol=1e-12)
    empty = MinibatchCKA.from_state_dict(MinibatchCKA().state_dict())
    np.testing.assert_allclose(empty.merge(back).z_scores(), expected, rtol=1e-12)
    np.testing.assert_allclose(back.merge(MinibatchCKA()).z_scores(), expected, rtol=1e-12)
    back.reset()
    back.update(xs[0], ys[0])
    np.testing.assert_allclose(back.z_scores(), left.z_scores(), rtol=1e-12)


def test_joined_blocks_keep_it():
    # There are more batches than blocks, and sums of blocks do not give variances of batches.
    sizes = [4] * 150
    xs, ys = (split(side, sizes) for side in data(600))
    halves = [accumulate(xs[:75], ys[:75]), accumulate(xs[75:], ys[75:])]
    whole = accumulate(xs, ys)
    assert len(whole.block_sums().blocks) < 150
    np.testing.assert_allclose(whole.z_scores(), halves[0].merge(halves[1]).z_scores(), rtol=1e-10)


@pytest.mark.parametrize("scale", [1e-15, 1e15, 1e35])
def test_scale_does_not_matter(scale):
    xs, ys = (split(side, [5, 6]) for side in data(11))
    scaled = [{name: scale * x for name, x in batch.items()} for batch in xs]
    np.testing.assert_allclose(z_of(scaled, ys), z_of(xs, ys), rtol=1e-9)


def test_every_framework(eager):
    xs, ys = (split(side, [5, 6]) for side in data(11))
    found = z_of(xs, ys, array=eager.array)
    np.testing.assert_allclose(found, z_of(xs, ys), rtol=1e-9)
    assert found.dtype == np.float64


def test_a_constant_layer_is_nan():
    x, y = data(8)
    acc = accumulate([{**x, "flat": np.full((8, 2), 0.3)}], [y])
    assert np.isnan(acc.z_scores().sel(layer_x="flat")).all()
    assert np.isfinite(acc.z_scores().sel(layer_x=list(x))).all()


def test_a_refused_batch_leaves_no_trace():
    x, y = data(8)
    acc = accumulate([x], [y])
    before = acc.z_scores()
    with pytest.raises(repsim.NonFiniteError):
        acc.update({**x, "conv": x["conv"] * np.nan}, y)
    np.testing.assert_array_equal(acc.z_scores(), before)


def test_nothing_to_compute_from():
    with pytest.raises(StateError, match=r"MinibatchCKA.z_scores: there is nothing"):
        MinibatchCKA().z_scores()
    state = accumulate([data(8)[0]]).state_dict()
    del state["null_sd"]
    with pytest.raises(StateError, match="null_sd"):
        MinibatchCKA.from_state_dict(state)


def test_kernels_of_the_reference_agree():
    xs, ys = (split(side, [5]) for side in data(5))
    gram = kernels.polynomial
    expected = loops(xs, ys, gram, of=reference.minibatch_z)
    np.testing.assert_allclose(z_of(xs, ys, kernel="polynomial"), expected, rtol=1e-10)
