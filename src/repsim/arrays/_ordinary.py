"""Checks of every array that enters: dense, of known size, with values, of numbers.

They do not compute with the array, so they serve both arrays in memory and array-likes that are
read by rows.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Literal

import numpy as np
from array_api_compat import device, is_array_api_obj

from repsim._errors import ArrayTypeError

__all__ = [
    "describe",
    "how_to_name",
    "integer_bits",
    "name_of_dtype",
    "number_kind",
    "require_ordinary",
    "require_values",
]

NumberKind = Literal["half", "single", "double", "integer"]


def describe(name: str, x: Any) -> str:
    """Describe an argument in one line, for an error message."""
    kind = f"{type(x).__module__.partition('.')[0]}.{type(x).__name__}"
    if getattr(x, "is_nested", False):  # it has no shape
        return f"{name}: nested {kind}"
    shape, dtype = getattr(x, "shape", None), getattr(x, "dtype", None)
    if shape is None or dtype is None:
        return f"{name}: {kind}"
    where = f" on {device(x)}" if is_array_api_obj(x) else ""
    return f"{name}: {tuple(shape)} {kind} of {str(dtype).removeprefix('torch.')}{where}"


def how_to_name(given: object) -> str:
    """Say how to make a mapping of names to arrays of what was given in its place."""
    if isinstance(given, str | os.PathLike):
        return (
            "Open what repsim.extract wrote by repsim.open_activations(path), and other files by "
            "{'layer 1': numpy.load(path)}."
        )
    return "Name them, for example {'layer 1': x1, 'layer 2': x2}."


def require_ordinary(operation: str, x: object, name: str) -> None:
    """Raise if an array hides values, is sparse, or has an unknown shape."""
    if (what := _unusual(x)) is not None:
        raise ArrayTypeError(
            f"{operation}: {name} must be an ordinary dense array.\n"
            f"  {describe(name, x)}, which {what}"
        )


def _unusual(x: Any) -> str | None:
    # Where it is not loaded, no array is masked; loading it would cost more than most calls.
    if "numpy.ma" in sys.modules and isinstance(x, np.ma.MaskedArray):
        return "hides some values\n  Drop the masked rows from all arrays first."
    if isinstance(x, np.matrix):
        return "multiplies with *\n  Convert it first: numpy.asarray(x)."
    if getattr(x, "is_nested", False):
        return "has samples of different shapes\n  Pad them, or pool each to one vector."
    if hasattr(x, "todense"):  # SciPy, PyData, jax
        dense = "toarray" if hasattr(x, "toarray") else "todense"  # a matrix of SciPy has both
        return f"is sparse\n  Convert it first: x.{dense}()."
    if str(getattr(x, "layout", "torch.strided")) != "torch.strided":
        return "is sparse\n  Convert it first: x.to_dense()."
    if any(size is None or size != size for size in getattr(x, "shape", ())):  # NaN in Dask
        return "has an unknown size\n  Compute it first: x.compute_chunk_sizes() in Dask."
    return None


def require_values(operation: str, x: Any, name: str) -> None:
    """Raise if an array is a placeholder: a shape and a dtype, but no memory."""
    if str(getattr(x, "device", "")) == "meta":
        raise ArrayTypeError(
            f"{operation}: {name} has a shape and no values.\n  {describe(name, x)}\n"
            f"  Run the model on a real device."
        )


def number_kind(operation: str, x: Any, name: str) -> NumberKind:
    """Return the kind of real numbers in an array of any framework, in any byte order.

    Raises
    ------
    ArrayTypeError
        Complex numbers, floats of more than 64 bits, and everything that is not a number.
    """
    kind = name_of_dtype(x)
    if kind == "bool" or kind.startswith(("int", "uint")):
        return "integer"
    if kind in ("float32", "float64"):
        return "single" if kind == "float32" else "double"
    if kind in ("float16", "bfloat16") or kind.startswith(("float8", "float6_", "float4")):
        return "half"
    if kind.startswith("complex"):
        raise ArrayTypeError(
            f"{operation}: {name} must be real.\n  {describe(name, x)}\n"
            f"  Stack the parts as features, for example concat([{name}.real, {name}.imag], -1)."
        )
    raise ArrayTypeError(
        f"{operation}: {name} must hold real numbers of at most 64 bits.\n  {describe(name, x)}\n"
        f"  Convert it first, for example {name}.astype('float32')."
        + (f" Cells of arrays: list({name}.flat)." if kind == "object" else "")
    )


def integer_bits(x: Any) -> int:
    """Return how many bits the integers of an array have; 0 for other numbers and booleans."""
    kind = name_of_dtype(x)
    return int(kind.partition("int")[2]) if kind.startswith(("int", "uint")) else 0


def name_of_dtype(x: Any) -> str:
    """Return the name of the dtype of an array without the framework and the byte order."""
    return str(getattr(x.dtype, "name", None) or x.dtype).rpartition(".")[2]
