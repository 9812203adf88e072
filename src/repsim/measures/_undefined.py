"""Values that are undefined or outside the range: NaN and a warning that says why."""

from __future__ import annotations

from typing import Any

from repsim._errors import DegenerateWarning, warn
from repsim._typing import Array
from repsim.arrays import array_namespace, known, scalar

__all__ = ["held", "in_range", "undefined"]


def held(operation: str, value: Array, dtype: Any) -> Array:
    """Return a value in the dtype, or NaN and a warning if it is outside the range of the dtype.

    >>> import numpy as np
    >>> held("mine", np.asarray(2.0), np.float32)
    np.float32(2.0)

    Parameters
    ----------
    operation : str
        The caller, the first word of the warning.
    value : array, 0-d
        Of any floating dtype.
    dtype : dtype
        That of the result.
    """
    xp = array_namespace(value)
    out = in_range(value, dtype)
    lost = xp.isinf(out)
    if known(lost) is False:
        return out
    if known(lost):
        warn(
            f"{operation}: the value is outside the range of {dtype}, so NaN is returned. Multiply "
            f"or divide x or y by a power of two.",
            DegenerateWarning,
        )
    return scalar(xp, xp.where(lost, xp.full_like(out, float("nan")), out), dtype)


def in_range(value: Array, dtype: Any) -> Array:
    """Return a value in the dtype, or infinity if it is too large for it or too small.

    >>> import numpy as np
    >>> in_range(np.asarray(2.0), np.float32), in_range(np.asarray(1e-60), np.float32)
    (np.float32(2.0), np.float32(inf))

    Parameters
    ----------
    value : array, 0-d
        Of any floating dtype.
    dtype : dtype
        That of the result.
    """
    xp = array_namespace(value)
    out = xp.astype(value, dtype, copy=False)
    least = float(xp.finfo(dtype).smallest_normal)
    vanishes = (xp.abs(out) < least) & (xp.abs(value) > 0)
    return scalar(xp, xp.where(vanishes, xp.full_like(out, float("inf")), out), dtype)


def undefined(operation: str, name: str, condition: Array | bool, why: str) -> None:
    """Warn that an array makes the value NaN, if the condition is true and can be read.

    >>> undefined("mine", "x", False, "is constant over the samples")

    Parameters
    ----------
    operation : str
        The caller, the first word of the warning.
    name : str
        The name of the array in the call.
    condition : bool or array, 0-d
        Nothing is warned of while ``jax.jit`` traces it.
    why : str
        What is wrong with the array: the words after its name.

    Warns
    -----
    DegenerateWarning
        The condition is true.
    """
    if known(condition):
        warn(
            f"{operation}: {name} {why}, so the value is undefined and NaN is returned.",
            DegenerateWarning,
        )
