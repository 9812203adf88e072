"""Refusals: each message names the argument, what was passed and the repair."""

import numpy as np
import pytest

from repsim import ArrayTypeError, InputError, NonFiniteError
from repsim.attention import (
    entropy,
    grid_distances,
    mean_distance,
    prefix_mass,
    rollout,
    uniform_distance,
)

FUNCTIONS = {
    "mean_distance": lambda w: mean_distance(w, (2, 3), 16, 1),
    "entropy": lambda w: entropy(w, 1),
    "prefix_mass": lambda w: prefix_mass(w, 1),
    "rollout": lambda w: rollout([w]),
}
NAMES = {name: "layers[0]" if name == "rollout" else "weights" for name in FUNCTIONS}


@pytest.fixture
def weights(make_weights):
    return make_weights(2, 3, 7, 7)


@pytest.fixture(params=FUNCTIONS)
def refuses(request):
    """Check that a function refuses weights with a message in the house's form."""

    def check(weights, error, *parts):
        name = request.param
        with pytest.raises(error) as caught:
            FUNCTIONS[name](weights)
        assert type(caught.value) is error
        lines = str(caught.value).splitlines()
        assert lines[0].startswith(f"{name}: ")
        assert len(lines) >= 3
        assert all(line.startswith("  ") for line in lines[1:])
        assert NAMES[name] in str(caught.value)
        for part in parts:
            assert part in str(caught.value), str(caught.value)

    return check


class TestWeights:
    def test_accepted_as_they_are(self, weights):
        for function in FUNCTIONS.values():
            assert np.isfinite(function(weights)).all()

    def test_not_an_array(self, weights, refuses):
        refuses(weights.tolist(), ArrayTypeError, "list", "numpy.asarray")

    def test_complex(self, weights, refuses):
        refuses(weights + 0j, ArrayTypeError, "complex128")

    def test_one_head_without_its_axis(self, weights, refuses):
        refuses(weights[0, 0], InputError, "(7, 7)", "[None]")

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_not_finite(self, weights, refuses, bad):
        weights[1, 2, 3, 4] = bad
        refuses(weights, NonFiniteError, "1 entries", "masked")

    def test_logits(self, weights, refuses):
        refuses(np.log(weights), InputError, "least -", "softmax")

    def test_a_single_negative_weight(self, weights, refuses):
        weights[0, 0, 2, 3] += 1e-6 + weights[0, 0, 2, 2]
        weights[0, 0, 2, 2] = -1e-6
        refuses(weights, InputError, "least -1e-06")

    def test_softmax_over_the_wrong_axis(self, weights, refuses):
        turned = np.swapaxes(weights, -1, -2)
        off = np.abs(turned.sum(axis=-1) - 1)
        count, worst = f"{(off > 0.01).sum()} rows", f"by up to {off.max():.3g}"
        refuses(turned, InputError, "sum to 1", count, worst, "last axis")

    @pytest.mark.parametrize("factor", [0.985, 1.015, 1 / 0.9])
    def test_a_row_that_is_off(self, weights, refuses, factor):
        weights[1, 0, 5] *= factor
        refuses(weights, InputError, "1 rows are off", f"{abs(factor - 1):.3g}")

    @pytest.mark.parametrize("factor", [0, 0.995, 1.005])
    def test_half_precision_and_masked_rows_are_accepted(self, weights, factor):
        weights[1, 0, 5] *= factor
        for function in FUNCTIONS.values():
            function(weights)

    def test_prefix_beyond_the_tokens(self, weights):
        for function in (entropy, prefix_mass):
            with pytest.raises(InputError, match=rf"^{function.__name__}: .*beyond the prefix"):
                function(weights, 7)

    def test_wrong_values_in_the_second_layer(self, weights):
        with pytest.raises(InputError, match=r"^rollout: layers\[1\] must not be negative"):
            rollout([weights, -weights])


class TestShape:
    def test_tokens_that_are_not_the_grid(self, weights):
        with pytest.raises(InputError) as caught:
            mean_distance(weights, (2, 3))
        assert str(caught.value).splitlines() == [
            "mean_distance: queries and keys of weights must be the prefix tokens and the patches "
            "of the grid.",
            "  weights: (2, 3, 7, 7) numpy.ndarray of float64 on cpu → 7 queries, 7 keys",
            "  grid: (2, 3), prefix: 0 → 2·3 + 0 = 6 tokens",
            "  If the grid is right, prefix=1.",
        ]

    def test_attention_in_windows(self, weights):
        with pytest.raises(InputError, match="in windows"):
            mean_distance(weights, 14)

    def test_cross_attention(self, weights):
        rectangle = weights[..., :6, :]
        with pytest.raises(InputError, match="6 queries, 7 keys\n.*\n  Distances are defined"):
            mean_distance(rectangle, (2, 3), prefix=1)
        with pytest.raises(InputError, match=r"^rollout: queries and keys must be the same"):
            rollout([rectangle])

    def test_layers_of_other_tokens(self, make_weights):
        with pytest.raises(InputError, match=r"(?s)^rollout: .*layers\[1\]: \(4, 4\)"):
            rollout([make_weights(2, 5, 5), make_weights(2, 4, 4)])
        with pytest.raises(InputError, match=r"^rollout: all layers must have the same tokens"):
            rollout([make_weights(3, 2, 5, 5), make_weights(2, 5, 5)])

    def test_layers_of_other_frameworks(self, make_weights):
        torch = pytest.importorskip("torch")
        weights = make_weights(2, 5, 5)
        with pytest.raises(ArrayTypeError, match=r"^rollout: all layers must belong to one"):
            rollout([weights, torch.tensor(weights)])

    def test_no_layers(self):
        with pytest.raises(InputError, match=r"^rollout: layers must hold at least one"):
            rollout(iter([]))

    def test_unknown_heads(self, weights):
        with pytest.raises(
            InputError, match=r"(?s)unknown heads.*'mean', 'max', 'min'.*got 'median'"
        ):
            rollout([weights], heads="median")


@pytest.mark.parametrize("function", [grid_distances, uniform_distance])
class TestGrid:
    @pytest.mark.parametrize("grid", [0, -1, 2.5, (2, 0), (2, 3, 4), (2,), "14", None, True])
    def test_grid(self, function, grid):
        with pytest.raises(InputError, match=rf"(?s)^{function.__name__}: grid must be.*\n  grid:"):
            function(grid)

    @pytest.mark.parametrize("size", [0, -16, (16, 0), (1, 2, 3), np.nan, np.inf, "16", None, True])
    def test_patch_size(self, function, size):
        message = rf"(?s)^{function.__name__}: patch_size must be.*\n  patch_size:"
        with pytest.raises(InputError, match=message):
            function(2, size)

    def test_other_kinds_of_number(self, function):
        expected = function((2, 3), (4.0, 8.0))
        for grid in (np.asarray([2, 3]), [np.int32(2), np.int64(3)]):
            np.testing.assert_array_equal(function(grid, [np.float32(4), 8]), expected)
        np.testing.assert_array_equal(function(np.int64(2), np.asarray(4)[()]), function(2, 4))


@pytest.mark.parametrize("prefix", [-1, 1.0, True, "cls", None])
def test_prefix(make_weights, prefix):
    weights = make_weights(2, 4, 4)
    for function in (
        lambda: uniform_distance(2, 1, prefix),
        lambda: mean_distance(weights, 2, 1, prefix),
        lambda: entropy(weights, prefix),
        lambda: prefix_mass(weights, prefix),
    ):
        with pytest.raises(InputError, match=r"(?s): prefix must be a whole.*\n  prefix: "):
            function()
