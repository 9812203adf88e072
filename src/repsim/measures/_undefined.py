"""Values that are undefined or too large: NaN and a warning that says why."""

from __future__ import annotations

from typing import Any

from repsim._errors import DegenerateWarning, warn
from repsim._typing import Array
from repsim.arrays import array_namespace, known, scalar

__all__ = ["held", "undefined"]


def held(operation: str, value: Array, dtype: Any) -> Array:
    """Return a value in the dtype, or NaN and a warning if it is larger than the dtype can hold.

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
    out = scalar(xp, value, dtype)
    if not known(xp.isinf(out)):
        return out
    warn(
        f"{operation}: the value is larger than {dtype} can hold, so NaN is returned. Divide x or "
        f"y by a power of two.",
        DegenerateWarning,
    )
    return scalar(xp, xp.full_like(out, xp.nan), dtype)


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
