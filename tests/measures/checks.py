"""Checks that hold for every measure; the tests of each measure call them."""

import warnings

import numpy as np
import pytest

import repsim


def lives_with_its_inputs(backend, function, x, y, expected, rtol, **options):
    """The value, and a 0-d result of the inputs' framework, dtype and device; inputs untouched."""
    before = x.copy(), y.copy()
    out = backend.call(function, x, y, **options)
    assert backend.owns(out)
    assert tuple(out.shape) == ()
    assert backend.dtype(out) == str(x.dtype)
    if not backend.compiled:
        assert backend.device(out) == backend.device(backend.array(x))
    np.testing.assert_allclose(float(out), expected, rtol=rtol)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(y, before[1])


def undefined(call, *names, about):
    """NaN, and warnings that name exactly these arguments, from the caller's own line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        out = call()
    assert [w.category for w in caught] == [repsim.DegenerateWarning] * len(names)
    for w, name in zip(caught, names, strict=True):
        operation, _, rest = str(w.message).partition(": ")
        assert hasattr(repsim, operation.partition("(")[0])
        assert rest.startswith(f"{name} ")
        assert about in rest
        assert "NaN" in rest
        assert "/src/repsim/" not in w.filename
    assert np.isnan(float(out))
    assert tuple(out.shape) == ()


def refuses(error, *parts):
    """An InputError whose message has all the parts."""

    class _Refuses:
        def __enter__(self):
            self.context = pytest.raises(error)
            self.info = self.context.__enter__()

        def __exit__(self, *exception):
            handled = self.context.__exit__(*exception)
            for part in parts:
                assert part in str(self.info.value)
            return handled

    return _Refuses()


def half(function, x, y, expected, tolerance, **options):
    """float16 and bfloat16 give float32, of the rounded values."""
    torch = pytest.importorskip("torch")
    for dtype in (torch.float16, torch.bfloat16):
        a, b = (torch.tensor(z).to(dtype) for z in (x, y))
        out = function(a, b, **options)
        assert out.dtype == torch.float32
        wanted = expected(*(z.to(torch.float64).numpy() for z in (a, b)))
        assert float(out) == pytest.approx(wanted, abs=tolerance)


def right_gradient(function, x, y, **options):
    """torch, by finite differences along a random direction; the gradients of x and y."""
    torch = pytest.importorskip("torch")
    a, b = (torch.tensor(z, requires_grad=True) for z in (x, y))
    assert torch.autograd.gradcheck(lambda s, t: function(s, t, **options), (a, b), fast_mode=True)
    function(a, b, **options).backward()
    assert float(a.grad.abs().max()) > 1e-4
    return a.grad.numpy(), b.grad.numpy()


def same_gradient(function, x, y, *, compiled=True, **options):
    """As :func:`right_gradient`, and jax the same as torch."""
    jax = pytest.importorskip("jax")
    expected = right_gradient(function, x, y, **options)
    with jax.enable_x64(True):
        gradient = jax.grad(lambda s, t: function(s, t, **options), argnums=(0, 1))
        gradient = jax.jit(gradient) if compiled else gradient
        out = gradient(jax.numpy.asarray(x), jax.numpy.asarray(y))
    for mine, wanted in zip(out, expected, strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-6, atol=1e-9)
