"""Closed forms, and the formulas as plain loops."""

import math

import numpy as np
import pytest

from reference import attention_maps as reference
from repsim.attention import (
    entropy,
    grid_distances,
    mean_distance,
    prefix_mass,
    rollout,
    uniform_distance,
)

UNIFORM = [
    ((2, 2), 1, 0, (2 + math.sqrt(2)) / 4),
    ((3, 3), 1, 0, 1.4533112732956903),
    (7, 1, 0, 3.60946544177551),
    (14, 1, 0, 7.280764193235398),
    (14, 16, 0, 116.49222709176636),
    ((2, 3), 1, 0, 1.1738327891384424),
    ((7, 14), (32, 16), 0, 116.01553620456495),
    (14, 16, 1, 115.90089598977764),
    (1, 5, 0, 0.0),
]
CASES = [
    ((3, 3), (1, 1), 0),
    ((2, 4), (16, 16), 1),
    ((3, 2), (8, 4), 2),
    ((1, 5), (3.5, 2), 5),
    ((1, 1), (1, 1), 1),
]


def uniform(tokens, heads=2):
    return np.full((heads, tokens, tokens), 1 / tokens)


@pytest.mark.parametrize(("grid", "patch_size", "prefix", "expected"), UNIFORM)
class TestUniform:
    def test_closed_form(self, grid, patch_size, prefix, expected):
        out = uniform_distance(grid, patch_size, prefix)
        assert type(out) is float
        assert out == pytest.approx(expected, rel=1e-14)

    def test_distance_of_uniform_weights(self, grid, patch_size, prefix, expected):
        tokens = len(grid_distances(grid)) + prefix
        out = mean_distance(uniform(tokens), grid, patch_size, prefix)
        np.testing.assert_allclose(out, [expected] * 2, rtol=1e-12)

    def test_renormalised_does_not_see_the_prefix(self, grid, patch_size, prefix, expected):
        patches = len(grid_distances(grid))
        weights = uniform(patches + prefix)
        out = mean_distance(weights, grid, patch_size, prefix, renormalize=True)
        whole = expected * (patches + prefix) / patches
        np.testing.assert_allclose(out, [whole] * 2, rtol=1e-12)
        np.testing.assert_allclose(
            prefix_mass(weights, prefix), prefix / (patches + prefix), rtol=1e-12
        )
        np.testing.assert_allclose(entropy(weights, prefix), math.log(patches + prefix), rtol=1e-12)


@pytest.mark.parametrize(("grid", "patch_size", "prefix"), CASES)
class TestLoops:
    def weights(self, make_weights, grid, prefix):
        tokens = grid[0] * grid[1] + prefix
        return make_weights(2, 3, tokens, tokens)

    @pytest.mark.parametrize("renormalize", [False, True])
    def test_mean_distance(self, make_weights, grid, patch_size, prefix, renormalize):
        weights = self.weights(make_weights, grid, prefix)
        out = mean_distance(weights, grid, patch_size, prefix, renormalize=renormalize)
        expected = [
            [reference.mean_distance(h, grid, patch_size, prefix, renormalize) for h in image]
            for image in weights
        ]
        np.testing.assert_allclose(out, expected, rtol=1e-12)

    def test_entropy_and_prefix_mass(self, make_weights, grid, patch_size, prefix):
        weights = self.weights(make_weights, grid, prefix)
        expected = [[reference.entropy(h, prefix) for h in image] for image in weights]
        np.testing.assert_allclose(entropy(weights, prefix), expected, rtol=1e-12)
        expected = [[reference.prefix_mass(h, prefix) for h in image] for image in weights]
        np.testing.assert_allclose(prefix_mass(weights, prefix), expected, rtol=1e-12)

    def test_uniform_distance(self, make_weights, grid, patch_size, prefix):
        patches = grid[0] * grid[1]
        expected = reference.uniform_distance(grid, patch_size) * patches / (patches + prefix)
        assert uniform_distance(grid, patch_size, prefix) == pytest.approx(expected, rel=1e-13)

    def test_grid_distances(self, make_weights, grid, patch_size, prefix):
        cells = reference.cells(grid)
        expected = [[reference.distance(a, b, patch_size) for b in cells] for a in cells]
        out = grid_distances(grid, patch_size)
        assert out.dtype == np.float64
        np.testing.assert_allclose(out, expected, rtol=1e-14)


class TestDistance:
    def test_identity_is_nowhere(self):
        assert mean_distance(np.eye(12)[None], (3, 4), 16).tolist() == [0.0]
        assert mean_distance(np.eye(13)[None], (3, 4), 16, 1, renormalize=True).tolist() == [0.0]

    @pytest.mark.parametrize(("width", "shift"), [(5, 1), (5, 2), (8, 3), (4, 4)])
    def test_cyclic_shift_of_columns(self, width, shift):
        rows, step = 3, 16
        weights = np.zeros((rows, width, rows, width))
        for r in range(rows):
            for c in range(width):
                weights[r, c, r, (c + shift) % width] = 1
        weights = weights.reshape(1, rows * width, rows * width)
        out = mean_distance(weights, (rows, width), (99, step))
        np.testing.assert_allclose(out, [2 * shift * (width - shift) / width * step], rtol=1e-13)

    def test_plain_shrinks_with_attention_to_cls_and_renormalised_does_not(self, make_weights):
        patches = make_weights(1, 6, 6)
        weights = np.zeros((1, 7, 7))
        weights[:, :, 0] = 0.75
        weights[:, 1:, 1:] = 0.25 * patches
        weights[:, 0, 0] = 1
        whole = mean_distance(patches, (2, 3), 4)
        np.testing.assert_allclose(mean_distance(weights, (2, 3), 4, 1), whole / 4, rtol=1e-13)
        renormalised = mean_distance(weights, (2, 3), 4, 1, renormalize=True)
        np.testing.assert_allclose(renormalised, whole, rtol=1e-13)

    def test_queries_ask_and_keys_are_seen(self):
        # Patch 0 alone looks elsewhere, at the far end: the mean over queries is a third of it.
        weights = np.eye(3)
        weights[0] = [0, 0, 1]
        assert mean_distance(weights[None], (1, 3), 6).tolist() == [4.0]

    def test_a_row_of_zeros(self):
        weights = np.eye(3)[[2, 1, 0]]
        weights[1] = 0
        plain = mean_distance(weights[None], (1, 3))
        np.testing.assert_allclose(plain, [4 / 3])
        np.testing.assert_allclose(mean_distance(weights[None], (1, 3), renormalize=True), [2])
        assert entropy(weights[None]).tolist() == [0.0]
        assert prefix_mass(weights[None], 1).tolist() == [0.5]

    def test_undefined_where_no_patch_is_seen(self):
        from repsim import DegenerateWarning

        cls = np.zeros((3, 3))
        cls[:, 0] = 1
        weights = np.stack([cls, np.eye(3)])
        with pytest.warns(DegenerateWarning, match=r"^mean_distance: in 1 of the maps") as caught:
            out = mean_distance(weights, (1, 2), prefix=1, renormalize=True)
        assert caught[0].filename == __file__
        np.testing.assert_array_equal(out, [np.nan, 0])
        np.testing.assert_array_equal(mean_distance(weights, (1, 2), prefix=1), [0, 0])

    def test_no_images(self):
        assert mean_distance(np.zeros((0, 2, 4, 4)), 2).shape == (0, 2)

    def test_patch_of_both_sides(self, make_weights):
        weights = make_weights(2, 6, 6)
        np.testing.assert_array_equal(
            mean_distance(weights, (2, 3), 16), mean_distance(weights, (2, 3), (16, 16))
        )
        np.testing.assert_array_equal(
            mean_distance(weights[:, :4, :4] / weights[:, :4, :4].sum(-1, keepdims=True), 2),
            mean_distance(weights[:, :4, :4] / weights[:, :4, :4].sum(-1, keepdims=True), (2, 2)),
        )


class TestSpread:
    def test_entropy_of_two_keys(self):
        weights = np.asarray([[[0.5, 0.5, 0], [0.5, 0.25, 0.25], [1, 0, 0]]])
        np.testing.assert_allclose(entropy(weights), [(1 + 1.5) * math.log(2) / 3], rtol=1e-15)

    def test_entropy_of_one_key_is_zero_and_not_minus_zero(self):
        assert not np.signbit(entropy(np.eye(3)[None]))[0]

    def test_entropy_between_other_tokens(self, make_weights):
        weights = make_weights(2, 4, 7)
        expected = [reference.entropy(head) for head in weights]
        np.testing.assert_allclose(entropy(weights), expected, rtol=1e-13)

    def test_prefix_asks_nothing(self, make_weights):
        weights = make_weights(2, 5, 5)
        changed = weights.copy()
        changed[:, :2] = np.eye(5)[:2]
        for function in (entropy, prefix_mass):
            np.testing.assert_array_equal(function(weights, 2), function(changed, 2))

    def test_without_prefix_there_is_no_mass(self, make_weights):
        assert prefix_mass(make_weights(2, 5, 5), 0).tolist() == [0.0, 0.0]


class TestRollout:
    def test_loops(self, make_weights):
        layers = [make_weights(h, 6, 6, seed=s) for s, h in enumerate((3, 2, 4))]
        np.testing.assert_allclose(rollout(layers), reference.rollout(layers), rtol=1e-12)

    def test_leading_axes(self, make_weights):
        layers = [make_weights(2, 5, 3, 4, 4, seed=s) for s in range(2)]
        out = rollout(layers)
        assert out.shape == (2, 5, 4, 4)
        np.testing.assert_allclose(
            out[1, 3], reference.rollout([layer[1, 3] for layer in layers]), rtol=1e-12
        )

    def test_identity(self):
        np.testing.assert_array_equal(rollout([np.eye(4)[None]] * 3), np.eye(4))

    def test_last_layer_stands_left(self):
        shift, pool = np.eye(3)[[1, 2, 0]], np.eye(3)[[0, 0, 0]]
        first, last = (0.5 * (a + np.eye(3)) for a in (shift, pool))
        np.testing.assert_allclose(rollout([shift[None], pool[None]]), last @ first)
        assert not np.allclose(last @ first, first @ last)

    @pytest.mark.parametrize(("heads", "combine"), [("max", np.max), ("min", np.min)])
    def test_other_ways_to_combine_heads(self, make_weights, heads, combine):
        layers = [make_weights(3, 4, 4, seed=s) for s in range(2)]
        expected = np.eye(4)
        for layer in layers:
            mixed = 0.5 * combine(layer, axis=0) + 0.5 * np.eye(4)
            expected = mixed / mixed.sum(axis=1, keepdims=True) @ expected
        np.testing.assert_allclose(rollout(layers, heads=heads), expected, rtol=1e-13)

    def test_a_row_of_zeros_passes_its_token_on(self):
        weights = np.full((1, 2, 2), 0.5)
        weights[0, 1] = 0
        np.testing.assert_allclose(rollout([weights]), [[0.75, 0.25], [0, 1]])

    def test_generators_and_stacks(self, make_weights):
        layers = make_weights(4, 3, 5, 5)
        np.testing.assert_array_equal(rollout(layer for layer in layers), rollout(list(layers)))
        np.testing.assert_array_equal(rollout(layers), rollout(list(layers)))
