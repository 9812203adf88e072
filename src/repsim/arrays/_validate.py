"""Checks at the public edge: they return samples by features, finite and comparable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from repsim._errors import ArrayTypeError, InputError, NonFiniteError
from repsim._typing import Array, Namespace
from repsim.arrays._dtype import compute_dtype, promote
from repsim.arrays._labelled import unlabelled
from repsim.arrays._layout import flatten_features
from repsim.arrays._namespace import array_namespace, how_to_convert, namespace
from repsim.arrays._ordinary import (
    describe,
    integer_bits,
    number_kind,
    require_ordinary,
    require_values,
)
from repsim.arrays._readable import host_numbers, known

__all__ = [
    "as_samples",
    "as_square",
    "check_finite",
    "common_namespace",
    "paired",
    "require_exact",
    "require_same_n",
    "require_square",
    "row_dtype",
    "unpromoted_samples",
]


def as_samples(
    operation: str, xp: Namespace, x: Array, name: str = "x", *, min_samples: int, why: str
) -> Array:
    """Return ``x`` as (n, p) in the dtype to compute in, or raise an error."""
    out = unpromoted_samples(operation, x, name)
    if x.shape[0] < min_samples:
        raise InputError(
            f"{operation}: {why} needs at least {min_samples} samples.\n"
            f"  {describe(name, x)} → n={x.shape[0]}\n"
            f"  Is axis 0 the sample axis? Otherwise bring more samples."
        )
    return promote(xp, out, operation, name)


def unpromoted_samples(operation: str, x: Array, name: str) -> Array:
    """Return ``x`` as (n, p) in its own dtype, after checking that its dtype is supported.

    For activations that a kernel promotes one block at a time.
    """
    xp = array_namespace(x)
    dtype = compute_dtype(xp, x, operation, name)
    _require_features(operation, x, name)
    require_exact(operation, x, name, dtype)
    return flatten_features(xp, x)


def require_exact(operation: str, x: Array, name: str, dtype: Any) -> None:
    """Raise if an array holds integers that this floating dtype would round, if they can be read.

    Their differences are what a measure compares, and rounding may leave none of them.
    """
    if x.dtype == dtype or not (bits := integer_bits(x)):
        return
    xp = array_namespace(x)
    digits = 53 if dtype == xp.float64 else 24
    if bits <= digits:
        return
    view = host_numbers(x)
    space, values = (xp, xp.astype(x, dtype)) if view is None else (np, view)
    low, high = space.min(values), space.max(values)
    limit = 2**digits
    if known((low > -limit) & (high < limit)) is not False:
        return
    raise InputError(
        f"{operation}: {name} must hold integers below 2**{digits}.\n"
        f"  {describe(name, x)}: entries from {int(low)} to {int(high)}, and "
        f"float{64 if digits == 53 else 32} rounds larger ones\n"
        f"  Subtract what all entries share, for example {name} - {name}.min(), or convert {name} "
        f"to floats if the last digits do not matter."
    )


def row_dtype(operation: str, x: Any, name: str) -> np.dtype[Any]:
    """Check an array-like that is read by rows; return the dtype to compute in, on the CPU.

    The conditions are those of an array in memory. No values are read.
    """
    require_ordinary(operation, x, name)
    if not all(hasattr(x, attribute) for attribute in ("shape", "dtype", "__getitem__")):
        raise ArrayTypeError(
            f"{operation}: {name} must be an array that can be sliced by rows (NumPy, a memory "
            f"map, Zarr, h5py, torch).\n  {describe(name, x)}\n"
            f"  {how_to_convert(name, x)}"
        )
    require_values(operation, x, name)
    wide = number_kind(operation, x, name) in ("double", "integer")
    _require_features(operation, x, name)
    return np.dtype(np.float64 if wide else np.float32)


def _require_features(operation: str, x: Any, name: str) -> None:
    if len(x.shape) < 2:
        raise InputError(
            f"{operation}: {name} must be samples by features, (n, p) or (n, ...).\n"
            f"  {describe(name, x)}\n"
            f"  For n samples of one feature pass {name}[:, None]; for one sample there is nothing "
            f"to compare."
        )
    if 0 in x.shape:
        raise InputError(
            f"{operation}: {name} is empty.\n  {describe(name, x)}\n"
            f"  Check the slice or the mask that selected its rows and columns."
        )


def require_square(operation: str, k: Array, name: str) -> None:
    """Raise if ``k`` is not an (n, n) matrix; for Grams whose values are checked later."""
    if k.ndim != 2 or k.shape[0] != k.shape[1]:
        raise InputError(
            f"{operation}: {name} must be a Gram matrix, (n, n).\n  {describe(name, k)}\n"
            f"  For activations (n, p) use the function that takes them."
        )
    number_kind(operation, k, name)


SUMMED = 2.0**24
"""Largest number of entries that can be summed without overflow."""


def check_finite(operation: str, xp: Namespace, x: Array, name: str) -> None:
    """Raise on NaN, infinity and numbers too large to be summed, if the values can be read.

    They cannot be read inside a compiler.
    """
    limit = float(xp.finfo(x.dtype).max) / SUMMED
    view = host_numbers(x)  # in main memory NumPy takes half of torch's time
    if view is not None and _squares_are_finite(view):
        return  # no entry is above the root of the largest number, which is below the limit
    space, values = (xp, x) if view is None else (np, view)
    low, high = space.min(values), space.max(values)
    # NaN is neither above nor below the limits.
    if known((low >= -limit) & (high <= limit)) is not False:
        return
    if known(space.isfinite(low) & space.isfinite(high)):
        raise NonFiniteError(
            f"{operation}: the sums of {name} must be finite.\n"
            f"  {describe(name, x)}: entries from {float(low):.3g} to {float(high):.3g}, expected "
            f"at most {limit:.3g}\n"
            f"  Divide {name} by a power of two, for example {name} / 2**100."
        )
    wrong = ~xp.isfinite(x)
    bad = int(xp.sum(xp.astype(wrong, xp.int32)))
    row = int(xp.argmax(xp.astype(xp.any(wrong, axis=1), xp.int32)))
    columns = int(xp.sum(xp.astype(xp.any(wrong, axis=0), xp.int32)))
    found = "1 entry is" if bad == 1 else f"{bad} entries are"
    where, repair = f"the first in row {row}", "drop those rows from all arrays."
    if x.shape[0] > 1 and bad == columns * x.shape[0] and columns < x.shape[1]:
        # A feature without any value, such as a neuron that was not recorded.
        where = f"all values of {columns} of {x.shape[1]} features"
        repair = f"leave those features out of {name}."
    raise NonFiniteError(
        f"{operation}: {name} must be finite.\n"
        # Not its dtype, which is another one if the caller's is half precision.
        f"  {name} {tuple(x.shape)}: {found} NaN or infinite, {where}\n"
        f"  Find where they arise (half precision overflows at 65504) or {repair}"
    )


def _squares_are_finite(x: np.ndarray[Any, np.dtype[Any]]) -> bool:
    """Whether the sum of all squares is finite: one reading, where least and greatest take two."""
    if not x.flags.forc:
        return False
    flat = x.ravel(order="K")
    with np.errstate(all="ignore"):
        return bool(np.isfinite(np.dot(flat, flat)))


def paired(
    operation: str, x: Array, y: Array, *, min_samples: int, why: str
) -> tuple[Namespace, Array, Array]:
    """Check two activations and return them as (n, p) and (n, q) in one namespace and dtype.

    Labelled arrays must name the same samples; their values are used.
    """
    x, y = unlabelled(operation, {"x": x, "y": y})
    xp = namespace(operation, x=x, y=y)
    require_same_n(operation, "x and y", ("x", x), ("y", y))
    a = as_samples(operation, xp, x, "x", min_samples=min_samples, why=why)
    b = as_samples(operation, xp, y, "y", min_samples=min_samples, why=why)
    check_finite(operation, xp, a, "x")
    check_finite(operation, xp, b, "y")
    dtype = xp.result_type(a.dtype, b.dtype)
    return xp, xp.astype(a, dtype, copy=False), xp.astype(b, dtype, copy=False)


def require_same_n(
    operation: str, which: str, first: tuple[str, Array], second: tuple[str, Array]
) -> None:
    """Raise if two arrays of numbers, each with its name, have different numbers of samples."""
    (name_x, x), (name_y, y) = first, second
    if x.ndim < 1 or y.ndim < 1 or x.shape[0] == y.shape[0]:
        return
    for name, array in (first, second):
        number_kind(operation, array, name)  # an array of cells holds the arrays that are meant
        _require_features(operation, array, name)
    repair = "Did the last batch drop a sample? Pair rows before comparing."
    if x.ndim == y.ndim == 2 and x.shape[1] == y.shape[1]:
        repair += f"\n  If the {x.shape[1]} columns of both are the samples, transpose both."
    for (name, array), (_, other) in ((first, second), (second, first)):
        if array.ndim == 2 and array.shape[1] == other.shape[0]:
            repair = f"If the samples are the columns of {name}, pass its transpose."
        elif array.ndim > 2 and other.shape[0] in array.shape[1:]:
            axis = array.shape.index(other.shape[0], 1)
            repair = f"If the samples are axis {axis} of {name}, move it to the front (moveaxis)."
    raise InputError(
        f"{operation}: {which} must describe the same samples.\n"
        f"  {name_x}: {tuple(x.shape)} → n={x.shape[0]}    "
        f"{name_y}: {tuple(y.shape)} → n={y.shape[0]}\n"
        f"  {repair}"
    )


def common_namespace(operation: str, arrays: Mapping[str, Array]) -> Namespace:
    """Return the namespace of arrays of the same samples, or raise an error that names two."""
    (first, like), *others = arrays.items()
    xp = namespace(operation, **{first: like})
    for name, x in others:
        namespace(operation, **{first: like, name: x})
        require_same_n(operation, "all arrays", (first, like), (name, x))
    return xp


def as_square(operation: str, xp: Namespace, k: Array, name: str, *, min_samples: int) -> Array:
    """Return a Gram matrix (n, n) in the dtype to compute in, or raise an error."""
    require_square(operation, k, name)
    out = as_samples(operation, xp, k, name, min_samples=min_samples, why="this estimator")
    check_finite(operation, xp, out, name)
    # The centring maps give HSIC only for symmetric matrices.
    gap = xp.max(xp.abs(out - out.T))  # type: ignore[attr-defined]
    if known(gap > 1e-3 * xp.max(xp.abs(out))):
        raise InputError(
            f"{operation}: {name} must be symmetric.\n"
            f"  {describe(name, k)}, largest |{name} - {name}ᵀ| = {float(gap):.3g}\n"
            f"  A Gram matrix holds the kernel of every sample with every sample."
        )
    return out
