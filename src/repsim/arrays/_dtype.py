"""The precision policy: float32 or better, float64 for float64 and integers, float64 sums."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from array_api_compat import is_numpy_namespace, is_torch_array

from repsim._typing import Array, Namespace
from repsim.arrays._namespace import device_type
from repsim.arrays._ordinary import name_of_dtype, number_kind

__all__ = ["accumulator_dtype", "compute_dtype", "promote", "rounding_unit", "scalar"]

UNITS = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23}
"""ε of the floats of fewer than 64 bits whose names do not say it."""


def accumulator_dtype(xp: Namespace, x: Array) -> Any:
    """Return the dtype for sums: float64 if the device has it, else float32.

    jax has float64 only if ``jax_enable_x64`` is set. Apple's GPUs never have it.
    """
    if xp is np:
        return np.float64
    if is_torch_array(x):
        has_float64 = device_type(x) != "mps"
    else:
        has_float64 = "float64" in xp.__array_namespace_info__().dtypes(kind="real floating")
    return xp.float64 if has_float64 else xp.float32


def compute_dtype(xp: Namespace, x: Array, operation: str = "repsim", name: str = "x") -> Any:
    """Return the dtype to compute in for an input of this dtype.

    Floats of 16 bits and fewer become float32, because their Grams would overflow or lose the
    differences that a similarity measures. Integers and booleans become float64, which holds them
    exactly. Numbers in the other byte order are turned into the machine's own.
    """
    dtype = x.dtype
    if dtype in (xp.float32, xp.float64):
        return dtype
    kind = number_kind(operation, x, name)
    if kind == "integer":
        return accumulator_dtype(xp, x)
    return xp.float64 if kind == "double" else xp.float32


def promote(xp: Namespace, x: Array, operation: str = "repsim", name: str = "x") -> Array:
    """Cast to the dtype to compute in; copy only if the dtype differs."""
    dtype = compute_dtype(xp, x, operation, name)
    out: Array = x if x.dtype == dtype else xp.astype(x, dtype)
    return out


def rounding_unit(x: Array) -> float:
    """Return ε of the numbers of an array as it came in; of integers that of float64."""
    name = name_of_dtype(x)
    if narrow := re.search(r"e\d+m(\d+)", name):  # such as float8_e4m3fn
        return 2.0 ** -int(narrow[1])
    return UNITS.get(name, 2.0**-52)


def scalar(xp: Namespace, value: Array, dtype: Any) -> Array:
    """Return a result in the dtype: a 0-d array, or for NumPy its scalar.

    NumPy's scalars work where Python's numbers do: a float64 is a float, and JSON takes it.
    """
    typed = xp.astype(value, dtype, copy=False)
    out: Array = typed[()] if is_numpy_namespace(xp) else typed[...]
    return out
