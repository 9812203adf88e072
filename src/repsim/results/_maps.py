"""Maps of layers by layers: making one, and checking that a result is one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim._errors import InputError

if TYPE_CHECKING:
    import xarray

__all__ = ["DIMS", "layer_map", "layer_names", "map_of_layers", "measure_label", "model_name"]

DIMS = ("layer_x", "layer_y")


def map_of_layers(
    values: Any,
    layers_x: Iterable[str],
    layers_y: Iterable[str],
    name: str,
    attrs: Mapping[str, Any],
) -> xarray.DataArray:
    """Return values (layers of x, layers of y) with the names of the layers."""
    import xarray

    return xarray.DataArray(
        values,
        dims=DIMS,
        coords={"layer_x": list(layers_x), "layer_y": list(layers_y)},
        name=name,
        attrs=dict(attrs),
    )


def layer_map(result: Any, operation: str, variable: str = "cka") -> xarray.DataArray:
    """Return the similarities of `result` as a map with dims ("layer_x", "layer_y").

    Parameters
    ----------
    result : xarray.Dataset or xarray.DataArray
        Two-dimensional; a Dataset holds the map as `variable`.
    operation : str
        The caller's name, the first word of error messages.
    variable : str
        Which variable of a Dataset to take; ignored for a DataArray.

    Returns
    -------
    xarray.DataArray
        float64, named; the attributes of the Dataset completed by those of the variable.

    Raises
    ------
    InputError
        The map is missing, empty, not numeric, or has other dimensions.
    """
    import xarray

    array, attrs = result, {}
    if isinstance(result, xarray.Dataset):
        if variable not in result.data_vars:
            raise InputError(
                f"{operation}: result has no variable {variable!r}.\n"
                f"  variables: {', '.join(map(str, result.data_vars)) or 'none'}\n"
                f"  Pass the map itself, as in {operation}(result[name])."
            )
        array, attrs = result[variable], result.attrs
    if not isinstance(array, xarray.DataArray):
        raise InputError(
            f"{operation}: result must be an xarray.Dataset or DataArray with named layers.\n"
            f"  result: {type(result).__name__}\n"
            f"  Label a bare matrix first: xarray.DataArray(matrix, dims={DIMS}, "
            "coords={'layer_x': names_x, 'layer_y': names_y})."
        )
    if set(array.dims) != set(DIMS) or array.ndim != 2:
        rest = [dim for dim in array.dims if dim not in DIMS]
        repair = (
            f"Choose one entry of the rest first, as in result.isel({rest[0]}=0)."
            if rest and set(DIMS) < set(array.dims)
            else "Keep both dimensions: select with a list, as in sel(layer_x=['blocks.3'])."
        )
        raise InputError(
            f"{operation}: result must have exactly the dimensions layer_x and layer_y.\n"
            f"  result: {tuple(map(str, array.dims))} → {array.shape}\n"
            f"  {repair}"
        )
    if array.size == 0:
        raise InputError(
            f"{operation}: result must have at least one layer on each side.\n"
            f"  result: {tuple(map(str, array.dims))} → {array.shape}\n"
            "  Did the selection of layers match nothing?"
        )
    if array.dtype.kind not in "fiu":
        raise InputError(
            f"{operation}: result must hold real numbers.\n"
            f"  result: dtype {array.dtype}\n"
            "  Was another variable meant?"
        )
    array = array.transpose(*DIMS).astype(np.float64)
    name = array.name if array.name is not None else variable
    return array.rename(name).assign_attrs({**attrs, **array.attrs})


def layer_names(array: xarray.DataArray, dim: str) -> list[str]:
    """Return the names along `dim`, in execution order, or positions if there are no names.

    Parameters
    ----------
    array : xarray.DataArray
        A map of layers by layers.
    dim : {"layer_x", "layer_y"}
        Which side.

    Returns
    -------
    list of str
        As many as the map has rows or columns.
    """
    return [str(name) for name in array[dim].values]


def model_name(array: xarray.DataArray, side: str) -> str:
    """Return the name of the model on one side, or the side itself if it has no name.

    Parameters
    ----------
    array : xarray.DataArray
        A map of layers by layers, with the names in its attributes.
    side : {"x", "y"}
        Which side.

    Returns
    -------
    str
        As in ``attrs["model_x"]``.
    """
    return str(array.attrs.get(f"model_{side}") or side)


def measure_label(array: xarray.DataArray) -> str:
    """Return which similarity this is, with kernel and estimator: "CKA (linear, unbiased)".

    Parameters
    ----------
    array : xarray.DataArray
        A map of layers by layers, with kernel and estimator in its attributes.

    Returns
    -------
    str
        For a title, an axis or a colour bar.
    """
    name = str(array.attrs.get("long_name", array.name))
    name = "CKA" if name == "cka" else name.replace("_", " ")
    options = [str(array.attrs[key]) for key in ("kernel", "estimator") if array.attrs.get(key)]
    # A kernel is written as the call that makes it, Linear(); drop empty parentheses.
    options = [option.lower() if option.endswith("()") else option for option in options]
    return f"{name} ({', '.join(o.removesuffix('()') for o in options)})" if options else name
