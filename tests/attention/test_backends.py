"""In every framework the numbers and gradients are the same, on the device of the weights."""

import numpy as np
import pytest

from reference import attention_maps as reference
from repsim import attention

GRID, STEP, PREFIX = (2, 3), (16, 8), 1
FUNCTIONS = {
    "plain": lambda w: attention.mean_distance(w, GRID, STEP, PREFIX),
    "renormalised": lambda w: attention.mean_distance(w, GRID, STEP, PREFIX, renormalize=True),
    "entropy": lambda w: attention.entropy(w, PREFIX),
    "prefix_mass": lambda w: attention.prefix_mass(w, PREFIX),
}
LOOPS = {
    "plain": lambda h: reference.mean_distance(h, GRID, STEP, PREFIX),
    "renormalised": lambda h: reference.mean_distance(h, GRID, STEP, PREFIX, True),
    "entropy": lambda h: reference.entropy(h, PREFIX),
    "prefix_mass": lambda h: reference.prefix_mass(h, PREFIX),
}


def expected(name, weights):
    return [[LOOPS[name](head) for head in image] for image in weights]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_values(backend, make_weights, name, dtype):
    weights = make_weights(2, 3, 7, 7, dtype=dtype)
    before = weights.copy()
    out = backend.call(FUNCTIONS[name], weights)
    assert backend.owns(out)
    assert tuple(out.shape) == (2, 3)
    assert backend.dtype(out) == dtype
    if not backend.compiled:
        assert backend.device(out) == backend.device(backend.array(weights))
    rtol = {"float32": 1e-5, "float64": 1e-12}[dtype]
    np.testing.assert_allclose(backend.numpy(out), expected(name, weights), rtol=rtol)
    np.testing.assert_array_equal(weights, before)


@pytest.mark.parametrize("heads", ["mean", "max", "min"])
def test_rollout(backend, make_weights, heads):
    layers = [make_weights(2, 3, 5, 5, seed=s, dtype="float32") for s in range(3)]
    out = backend.call(lambda *ws: attention.rollout(ws, heads=heads), *layers)
    assert backend.owns(out)
    assert backend.dtype(out) == "float32"
    np.testing.assert_allclose(backend.numpy(out), attention.rollout(layers, heads=heads), 1e-5)
    if heads == "mean":
        loops = [reference.rollout([layer[i] for layer in layers]) for i in range(2)]
        np.testing.assert_allclose(backend.numpy(out), loops, rtol=1e-5)


def test_rollout_of_mixed_precision(backend, make_weights):
    layers = [make_weights(3, 5, 5, dtype=dtype) for dtype in ("float32", "float64", "float32")]
    out = backend.call(lambda *ws: attention.rollout(ws), *layers)
    assert backend.dtype(out) == "float64"
    np.testing.assert_allclose(backend.numpy(out), attention.rollout(layers), rtol=1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_half_precision_is_promoted(backend, make_weights, name):
    if backend.name == "strict":
        pytest.skip("the standard has no float16")
    weights = make_weights(2, 3, 7, 7, dtype="float16")
    out = backend.call(FUNCTIONS[name], weights)
    assert backend.dtype(out) == "float32"
    np.testing.assert_allclose(backend.numpy(out), expected(name, weights), rtol=1e-5)


def test_bfloat16_rows_are_not_refused(make_weights):
    torch = pytest.importorskip("torch")
    # Uniform over 197 tokens: every weight is rounded the same way, the worst that can happen.
    for weights in (np.full((2, 197, 197), 1 / 197), make_weights(2, 197, 197)):
        half = torch.tensor(weights).to(torch.bfloat16)
        out = attention.mean_distance(half, 14, 16, 1)
        assert out.dtype == torch.float32
        whole = attention.mean_distance(weights, 14, 16, 1)
        np.testing.assert_allclose(out.numpy(), whole, rtol=4e-3)
        attention.mean_distance(half.float(), 14, 16, 1)


def test_masks_and_integers(backend):
    shift = np.eye(6)[[1, 2, 0, 4, 5, 3]][None]
    for dtype in ("int64", "bool"):
        out = backend.call(attention.mean_distance, shift.astype(dtype), grid=GRID)
        assert backend.dtype(out) == "float64"
        np.testing.assert_allclose(backend.numpy(out), [4 / 3], rtol=1e-12)


def gradients(name, weights):
    """Central differences of the sum over all heads."""
    out, step = np.empty_like(weights), 1e-6
    for index in np.ndindex(weights.shape):
        up, down = weights.copy(), weights.copy()
        up[index] += step
        down[index] -= step
        out[index] = (FUNCTIONS[name](up).sum() - FUNCTIONS[name](down).sum()) / (2 * step)
    return out


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients(make_weights, name):
    jax, torch = pytest.importorskip("jax"), pytest.importorskip("torch")
    weights = make_weights(1, 2, 7, 7)
    numeric = gradients(name, weights)
    leaf = torch.tensor(weights, requires_grad=True)
    FUNCTIONS[name](leaf).sum().backward()
    np.testing.assert_allclose(leaf.grad.numpy(), numeric, atol=1e-6)
    with jax.enable_x64(True):
        traced = jax.jit(jax.grad(lambda w: FUNCTIONS[name](w).sum()))(jax.numpy.asarray(weights))
        np.testing.assert_allclose(np.asarray(traced), numeric, atol=1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_are_finite_where_weights_are_zero(name):
    torch = pytest.importorskip("torch")
    weights = np.zeros((2, 7, 7))
    weights[0, :, 0] = 1  # everything at CLS but one patch, and a head that is masked throughout
    weights[0, 3] = np.eye(7)[2]
    leaf = torch.tensor(weights, requires_grad=True)
    value = FUNCTIONS[name](leaf[:1])
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(leaf.grad).all()


def test_rollout_gradient():
    torch = pytest.importorskip("torch")
    leaf = torch.full((2, 3, 3), 1 / 3, dtype=torch.float64, requires_grad=True)
    attention.rollout([leaf, leaf])[0, 1].backward()
    assert leaf.grad.abs().sum() > 0


def test_nan_under_jit_comes_out_as_nan(make_weights):
    jax = pytest.importorskip("jax")
    weights = make_weights(2, 7, 7, dtype="float32")
    weights[1, 3, 4] = np.nan
    for name, function in FUNCTIONS.items():
        if name == "prefix_mass":  # the weight is between patches
            continue
        out = np.asarray(jax.jit(function)(jax.numpy.asarray(weights)))
        assert np.isnan(out).tolist() == [False, True], name


def test_jax_without_float64(make_weights):
    jax = pytest.importorskip("jax")
    weights = make_weights(2, 3, 7, 7, dtype="float32")
    for name, function in FUNCTIONS.items():
        out = jax.jit(function)(jax.numpy.asarray(weights))
        assert out.dtype == np.float32
        np.testing.assert_allclose(np.asarray(out), expected(name, weights), rtol=1e-5)


@pytest.mark.slow
def test_vmap(make_weights):
    jax = pytest.importorskip("jax")
    weights = make_weights(4, 3, 7, 7, dtype="float32")
    for name, function in FUNCTIONS.items():
        out = jax.vmap(function)(jax.numpy.asarray(weights))
        np.testing.assert_allclose(np.asarray(out), expected(name, weights), rtol=1e-5)


def test_views_are_not_written_to(make_weights):
    weights = make_weights(2, 3, 7, 7)
    values = {name: function(weights) for name, function in FUNCTIONS.items()}
    frozen = np.asfortranarray(weights)
    frozen.flags.writeable = False
    for name, function in FUNCTIONS.items():
        np.testing.assert_allclose(function(frozen), values[name], rtol=1e-13)
    attention.rollout([frozen, frozen])
