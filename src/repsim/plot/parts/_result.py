"""Checking the result that a picture draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from repsim._errors import InputError

__all__ = ["choose", "names_along", "require", "select_layers", "unit_of"]


def require(
    result: Any, operation: str, analysis: str, variables: dict[str, tuple[str, ...]]
) -> xr.Dataset:
    """Return the named variables of `result` as float64, with their dimensions in this order.

    Parameters
    ----------
    result : xarray.Dataset
        The result of the analysis, or a selection of it.
    operation : str
        The caller's name, the first word of error messages.
    analysis : str
        The function of repsim whose result is drawn.
    variables : dict
        The variables that the picture needs, each with its dimensions.

    Returns
    -------
    xarray.Dataset
        A copy with all coordinates, other variables and attributes of `result`.

    Raises
    ------
    InputError
        `result` is no Dataset, or a variable is missing, empty, not numeric or has other
        dimensions.
    """
    if not isinstance(result, xr.Dataset):
        raise InputError(
            f"{operation}: result must be an xarray.Dataset, as repsim.{analysis} returns it.\n"
            f"  result: {type(result).__name__}\n"
            f"  Pass the whole result, not one of its variables."
        )
    out = result.copy()
    for name, dims in variables.items():
        if name not in result.data_vars:
            raise InputError(
                f"{operation}: result has no variable {name!r}.\n"
                f"  variables: {', '.join(map(str, result.data_vars)) or 'none'}\n"
                f"  Pass what repsim.{analysis} returned."
            )
        array = result[name]
        if set(array.dims) != set(dims):
            raise InputError(
                f"{operation}: {name} must have exactly the dimensions {', '.join(dims)}.\n"
                f"  {name}: {tuple(map(str, array.dims))} → {array.shape}\n"
                f"  Select with a list, as in result.sel({dims[0]}=[name]), to keep a dimension."
            )
        if array.size == 0:
            raise InputError(
                f"{operation}: {name} must not be empty.\n"
                f"  {name}: {tuple(map(str, array.dims))} → {array.shape}\n"
                f"  Did the selection match nothing?"
            )
        if array.dtype.kind not in "fiu":
            raise InputError(
                f"{operation}: {name} must hold real numbers.\n"
                f"  {name}: dtype {array.dtype}\n"
                f"  Was the result read from a file without its types?"
            )
        out[name] = array.transpose(*dims).astype(np.float64)
    return out


def names_along(result: xr.Dataset, dim: str) -> list[str]:
    """Return the names along `dim` in the order of the result; positions where there are none."""
    return [str(name) for name in result[dim].values]


def select_layers(
    result: xr.Dataset, operation: str, layers: Sequence[str] | str | None, dim: str = "layer"
) -> xr.Dataset:
    """Return the part of `result` for `layers`, in the order of the result; all for ``None``."""
    if layers is None:
        return result
    wanted = [layers] if isinstance(layers, str) else [str(name) for name in layers]
    present = names_along(result, dim)
    unknown = [name for name in wanted if name not in present]
    if unknown or not wanted:
        raise InputError(
            f"{operation}: layers must name layers of the result.\n"
            f"  layers: {', '.join(unknown) or 'none'}    {dim}: {', '.join(present)}\n"
            f"  Take names from result[{dim!r}].values."
        )
    return result.isel({dim: [i for i, name in enumerate(present) if name in wanted]})


def choose(operation: str, argument: str, value: str, allowed: Sequence[str]) -> None:
    """Raise if a value is not one of those allowed, and list them."""
    if value not in allowed:
        raise InputError(
            f"{operation}: {argument} must be one of {', '.join(map(repr, allowed))}.\n"
            f"  {argument}: {value!r}\n"
            f"  Leave it out for {allowed[0]!r}."
        )


def unit_of(array: xr.DataArray, default: str) -> str:
    """Return the unit of a variable, as its attributes say."""
    return str(array.attrs.get("units", default))
