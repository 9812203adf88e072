"""Read the variables of a result in a known order and precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray

__all__ = ["has", "mean_of", "model_of", "names_of", "optional_values", "unit_of", "values_of"]


def names_of(result: xarray.Dataset | xarray.DataArray, dim: str) -> list[str]:
    """Return the names along `dim` in the order of the result; positions if it has no names."""
    return [str(name) for name in result[dim].values]


def values_of(result: xarray.Dataset, key: str, *dims: str) -> Any:
    """Return a variable as float64, with its dimensions in this order."""
    return result[key].transpose(*dims).values.astype(np.float64)


def optional_values(result: xarray.Dataset, key: str, *dims: str) -> Any:
    """Return a variable as `values_of` does; None if there is no such variable."""
    return values_of(result, key, *dims) if has(result, key, *dims) else None


def has(result: xarray.Dataset, key: str, *dims: str) -> bool:
    """Whether there is such a variable, with these dimensions."""
    return key in result and set(result[key].dims) == set(dims)


def model_of(result: xarray.Dataset, side: str = "") -> str:
    """Return the name of the model in the result, or of that of one side, "x" or "y"."""
    if side:
        return str(result.attrs.get(f"model_{side}") or side)
    return str(result.attrs.get("model") or "the model")


def unit_of(array: xarray.DataArray, default: str) -> str:
    """Return the unit of a variable, as its attributes say."""
    return str(array.attrs.get("units", default))


def mean_of(values: Any, axis: int) -> Any:
    """Return the mean of the defined values; NaN if there are none."""
    known = np.isfinite(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
