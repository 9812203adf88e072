"""Squares, square roots and scaling by powers of two, which neither overflow nor divide by zero."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
from array_api_compat import is_torch_array

from repsim._typing import Array, Namespace
from repsim.arrays._readable import writable_numbers

__all__ = ["own_root", "root", "square", "unit_scale"]


def square(x: Array) -> Array:
    """Return ``x`` · ``x``, infinite without a warning of NumPy where that is out of range."""
    # torch does not warn, and its compiler does not know NumPy's setting.
    with nullcontext() if is_torch_array(x) else np.errstate(over="ignore"):
        out: Array = x * x
    return out


def unit_scale(xp: Namespace, x: Array, *, axis: int | None = None) -> tuple[Array, Array]:
    """Split ``x`` into ``(x / s, s)`` with ``max|x / s|`` in [1, 2), ``s`` a power of two.

    With ``axis`` there is one ``s`` for each slice along it: 0 for columns, 1 for rows. The scale
    of zeros is 1.

    Dividing by a power of two changes no digit. The floor has a zero gradient, so automatic
    differentiation treats ``s`` as a constant. This is right for a scale-invariant measure. It also
    avoids the derivative of a maximum: a compiler that computes ``x`` twice may round it in two
    ways, and then no entry equals the maximum and the derivative is NaN.
    """
    keep = axis is not None
    # Not max|x|, which makes another array of the size of x.
    largest = xp.maximum(xp.max(x, axis=axis, keepdims=keep), -xp.min(x, axis=axis, keepdims=keep))
    usable = (largest > 0) & xp.isfinite(largest)
    exponent = xp.floor(xp.log2(xp.where(usable, largest, xp.ones_like(largest))))
    scale = xp.pow(xp.full_like(exponent, 2.0), exponent)
    return x / scale, scale


def root(xp: Namespace, squared: Array) -> Array:
    """Square root whose derivative at zero is zero, so equal samples give no NaN gradients."""
    zero = squared <= 0
    safe = xp.where(zero, xp.ones_like(squared), squared)
    out: Array = xp.where(zero, xp.zeros_like(squared), xp.sqrt(safe))
    return out


def own_root(xp: Namespace, squared: Array) -> Array:
    """As :func:`root`, in place of an array in main memory that nothing else uses."""
    values = writable_numbers(squared)
    if values is None:
        return root(xp, squared)
    np.sqrt(values, out=values)
    return squared
