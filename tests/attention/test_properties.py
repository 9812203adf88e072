"""Properties of every attention map."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from repsim.attention import (
    entropy,
    grid_distances,
    mean_distance,
    prefix_mass,
    rollout,
    uniform_distance,
)

sides = st.integers(1, 4)
steps = st.floats(0.5, 32)
seeds = st.integers(0, 2**16)


@st.composite
def maps(draw, images=1):
    """This number of stacks of maps on one grid, with sharp and flat heads and weights of 0."""
    grid, step, prefix = (draw(sides), draw(sides)), (draw(steps), draw(steps)), draw(sides) - 1
    rng = np.random.default_rng(draw(seeds))
    tokens = grid[0] * grid[1] + prefix
    weights = rng.gamma(draw(st.floats(0.1, 5)), size=(images, 2, 3, tokens, tokens)) + 1e-9
    weights = weights * (rng.random(weights.shape) < 0.8) + 1e-9 * np.eye(tokens)
    return weights / weights.sum(axis=-1, keepdims=True), grid, step, prefix, rng


@given(maps())
def test_permutation_of_images(case):
    (weights, *_), grid, step, prefix, _ = case
    for renormalize in (False, True):
        out = mean_distance(weights, grid, step, prefix, renormalize=renormalize)
        turned = mean_distance(weights[::-1], grid, step, prefix, renormalize=renormalize)
        np.testing.assert_allclose(turned, out[::-1], rtol=1e-12)
    turned = rollout([weights[::-1], weights[::-1]])
    np.testing.assert_allclose(turned, rollout([weights, weights])[::-1], atol=1e-14)


@given(maps(images=2), st.floats(0, 1))
def test_distance_of_a_mixture_is_the_mixture_of_distances(case, share):
    (a, b), grid, step, prefix, _ = case
    mixture = share * a + (1 - share) * b
    for function in (
        lambda w: mean_distance(w, grid, step, prefix),
        lambda w: prefix_mass(w, prefix),
    ):
        np.testing.assert_allclose(
            function(mixture), share * function(a) + (1 - share) * function(b), atol=1e-11
        )
    # Entropy is concave.
    least = share * entropy(a, prefix) + (1 - share) * entropy(b, prefix)
    assert (entropy(mixture, prefix) >= least - 1e-12).all()


@given(maps())
def test_renormalised_is_plain_over_the_mass_that_is_left_query_by_query(case):
    (weights, *_), grid, step, prefix, _ = case
    distances = grid_distances(grid, step)
    patches = weights[..., prefix:, prefix:]
    plain = (patches * distances).sum(axis=-1)
    left = 1 - weights[..., prefix:, :prefix].sum(axis=-1)
    out = mean_distance(weights, grid, step, prefix, renormalize=True)
    np.testing.assert_allclose(out, (plain / left).mean(axis=-1), rtol=1e-6, atol=1e-9)
    # Not the ratio of the means, unless all queries look at the prefix alike.
    assert (out >= mean_distance(weights, grid, step, prefix) - 1e-9).all()


@given(maps(), st.floats(0, 0.95))
def test_one_mass_for_all_queries_divides_the_distance(case, mass):
    (weights, *_), grid, step, prefix, _ = case
    tokens = weights.shape[-1]
    wide = np.zeros((*weights.shape[:-2], tokens + 1, tokens + 1))
    wide[..., 1:, 1:], wide[..., 0] = (1 - mass) * weights, mass
    wide[..., 0, :] = np.eye(tokens + 1)[0]
    if prefix == 0:
        np.testing.assert_allclose(prefix_mass(wide, 1), mass, rtol=1e-9)
        np.testing.assert_allclose(
            mean_distance(wide, grid, step, 1, renormalize=True),
            mean_distance(wide, grid, step, 1) / (1 - prefix_mass(wide, 1)),
            rtol=1e-9,
        )
    np.testing.assert_allclose(
        mean_distance(wide, grid, step, prefix + 1),
        (1 - mass) * mean_distance(weights, grid, step, prefix),
        rtol=1e-9,
        atol=1e-12,
    )


@given(maps(), st.floats(0.1, 10))
def test_ranges_and_scale(case, scale):
    (weights, *_), grid, step, prefix, _ = case
    diagonal = np.hypot((grid[0] - 1) * step[0], (grid[1] - 1) * step[1])
    for renormalize in (False, True):
        out = mean_distance(weights, grid, step, prefix, renormalize=renormalize)
        assert ((out >= 0) & (out <= diagonal * (1 + 1e-12))).all()
        larger = (step[0] * scale, step[1] * scale)
        scaled = mean_distance(weights, grid, larger, prefix, renormalize=renormalize)
        np.testing.assert_allclose(scaled, scale * out, rtol=1e-10)
    bits = entropy(weights, prefix)
    assert ((bits >= 0) & (bits <= np.log(weights.shape[-1]) + 1e-12)).all()
    mass = prefix_mass(weights, prefix)
    assert ((mass >= 0) & (mass <= 1 + 1e-12)).all()


@given(maps())
def test_mirrored_images(case):
    (weights, *_), grid, step, prefix, _ = case
    order = np.arange(grid[0] * grid[1]).reshape(grid)[:, ::-1].ravel() + prefix
    order = np.concatenate([np.arange(prefix), order])
    mirrored = weights[..., order[:, None], order]
    np.testing.assert_allclose(
        mean_distance(mirrored, grid, step, prefix),
        mean_distance(weights, grid, step, prefix),
        rtol=1e-11,
    )


@given(maps())
def test_entropy_does_not_ask_where_the_keys_are(case):
    (weights, *_), _, _, prefix, rng = case
    order = rng.permutation(weights.shape[-1])
    np.testing.assert_allclose(
        entropy(weights[..., order], prefix), entropy(weights, prefix), rtol=1e-9, atol=1e-12
    )


@given(maps(images=3))
def test_rollout_rows_are_distributions(case):
    layers = case[0]
    out = rollout(layers)
    assert (out >= 0).all()
    np.testing.assert_allclose(out.sum(axis=-1), 1, rtol=1e-12)
    # The skip connections alone keep this much of every token.
    assert (np.diagonal(out, axis1=-2, axis2=-1) >= 0.5 ** len(layers) - 1e-12).all()


@given(maps(images=3))
def test_rollout_of_layers_is_the_product_of_rollouts(case):
    a, b, c = case[0]
    np.testing.assert_allclose(
        rollout([a, b, c]), rollout([c]) @ rollout([a, b]), rtol=1e-9, atol=1e-14
    )


@given(sides, sides, steps, steps, sides)
def test_uniform_distance_is_the_mean_of_the_grid_distances(rows, columns, height, width, extra):
    distances = grid_distances((rows, columns), (height, width))
    whole = distances.mean()
    out = uniform_distance((rows, columns), (height, width))
    np.testing.assert_allclose(out, whole, rtol=1e-12)
    patches = rows * columns
    with_prefix = uniform_distance((rows, columns), (height, width), extra)
    np.testing.assert_allclose(with_prefix, whole * patches / (patches + extra), rtol=1e-12)


@given(sides, sides, steps, steps)
def test_grid_distances_are_a_metric(rows, columns, height, width):
    d = grid_distances((rows, columns), (height, width))
    np.testing.assert_array_equal(d, d.T)
    assert (np.diagonal(d) == 0).all()
    assert (d + np.eye(len(d)) > 0).all()
    assert (d[:, None] <= d[:, :, None] + d[None] + 1e-9).all()
