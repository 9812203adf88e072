"""Maps of layers by layers: making one, and checking that a result is one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim._errors import InputError
from repsim.results._registry import kind_of

if TYPE_CHECKING:
    import xarray

__all__ = [
    "DIMS",
    "LEAST_HIGH",
    "layer_map",
    "layer_names",
    "main_map",
    "map_of_layers",
    "measure_label",
    "model_name",
    "scale_of",
]

DIMS = ("layer_x", "layer_y")

UNNAMED = "value"
"""The name of a map that does not say what it measures."""

ACRONYMS = ("cca", "cka", "cknna", "hsic", "pwcca", "rsa", "svcca")
"""Measures whose names are written in capitals."""

Z = "z"
"""The name of a map of z-scores."""

UNBOUNDED = ("standard_error", UNNAMED)
"""Maps that are not of a measure, and have no greatest value."""

LARGE_Z = 10.0
"""The least upper end of the scale of z-scores.

Chance rarely takes a z-score beyond 3. On this scale, such values stay near the colour of 0.
"""

LEAST_HIGH = 0.2
"""The least upper end of the scale of token maps, and of the axis of CKA of heads.

On this scale, noise of unbiased CKA, such as ±0.03, stays near the colour of 0.
"""


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


def models_of(xs: Any, ys: Any = None) -> dict[str, str]:
    """Return the names of the models whose stored activations are compared, for ``attrs``.

    They are those of `repsim.extract`. Other mappings of arrays have none.
    """
    named = {"model_x": xs, "model_y": xs if ys is None else ys}
    attrs = {side: getattr(arrays, "attrs", {}) for side, arrays in named.items()}
    return {side: str(each["model"]) for side, each in attrs.items() if "model" in each}


def main_map(result: xarray.Dataset) -> str:
    """Return the name of the variable that holds the measure of a map, "cka" if none says so."""
    named = [result.attrs.get("measure")]
    named += [key for key, array in result.data_vars.items() if array.attrs.get("measure") == key]
    return next((str(name) for name in named if name in result.data_vars), "cka")


def layer_map(result: Any, operation: str, variable: str | None = None) -> xarray.DataArray:
    """Return the values of `result` as a map with dims ("layer_x", "layer_y").

    Parameters
    ----------
    result : xarray.Dataset or xarray.DataArray
        Two-dimensional; a Dataset holds the map as `variable`.
    operation : str
        The caller's name, the first word of error messages.
    variable : str, optional
        Which variable of a Dataset to take; ignored for a DataArray. By default that of its
        measure.

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
        variable = main_map(result) if variable is None else variable
        if variable not in result.data_vars:
            kind = kind_of(result)
            raise InputError(
                f"{operation}: result has no variable {variable!r}.\n"
                f"  variables: {', '.join(map(str, result.data_vars)) or 'none'}\n"
                + (
                    f"  Pass the map itself, as in {operation}(result[name])."
                    if kind is None
                    else f"  repsim.{kind.function} returned it: repsim.plot has its picture."
                )
            )
        array, attrs = result[variable], result.attrs
    if not isinstance(array, xarray.DataArray):
        raise InputError(
            f"{operation}: result must be an xarray.Dataset or DataArray with named layers.\n"
            f"  result: {type(result).__name__}\n"
            f"  Label a bare matrix first: xarray.DataArray(matrix, dims={DIMS}, "
            "coords={'layer_x': names_x, 'layer_y': names_y}, name='cka')."
        )
    if set(array.dims) != set(DIMS) or array.ndim != 2:
        rest = [dim for dim in array.dims if dim not in DIMS]
        repair = "Keep both dimensions: select with a list, as in sel(layer_x=['blocks.3'])."
        if rest and set(DIMS) < set(array.dims):
            repair = f"Choose one entry of the rest first, as in result.isel({rest[0]}=0)."
        elif not set(DIMS) & set(array.dims):
            repair = "Rename the dimensions of a map of layers; draw an RDM with plt.imshow(rdm)."
        elif isinstance(result, xarray.Dataset) and "match" in result.data_vars:
            repair = "This is the result of repsim.layer_match. Pass the map that was passed there."
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
    name = array.name if array.name is not None else variable or UNNAMED
    return array.rename(name).assign_attrs({**attrs, **array.attrs})


def scale_of(array: xarray.DataArray) -> tuple[float, float, bool]:
    """Return the ends of the colour scale of a map, and whether larger is more alike.

    A scale begins at 0. It ends at the greatest value that the measure can have, or at the value
    for equal representations, so that maps can be compared with each other. If neither is known, it
    ends at the largest value of the map. That of z-scores ends at 10 or more, so that those of
    noise do not fill it.

    Parameters
    ----------
    array : xarray.DataArray
        A map, with what its measure says about itself in its attributes.
    """
    attrs = array.attrs
    similar = attrs.get("kind") != "dissimilarity"
    high = attrs.get("greatest")
    if array.name == Z:  # of any measure: large is more alike than by chance
        finite = array.values[np.isfinite(array.values)]
        return 0.0, float(finite.max(initial=LARGE_Z)), True
    if high is None and similar and array.name not in UNBOUNDED:
        bare = "measure" not in attrs and str(attrs.get("units", "1")) == "1"
        high = attrs.get("value_if_equal", 1.0 if bare else None)
    if high is None:
        finite = array.values[np.isfinite(array.values)]
        high = float(finite.max()) if finite.size else 1.0
    return 0.0, float(high) if high > 0 else 1.0, similar


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


def measure_label(array: xarray.DataArray, *, direction: bool = False) -> str:
    """Return which measure this is, with its main options: "CKA (linear, unbiased)".

    A unit is part of it: "shape distance (in rad)".

    Parameters
    ----------
    array : xarray.DataArray
        A map of layers by layers, with options, unit and kind in its attributes.
    direction : bool
        Whether to say of a dissimilarity that smaller is more alike.

    Returns
    -------
    str
        For a title, an axis or a colour bar.
    """
    attrs = array.attrs
    name = str(attrs.get("long_name", array.name))
    first, *rest = name.replace("_", " ").split(" ")
    name = " ".join([first.upper() if first in ACRONYMS else first, *rest])
    stated = ("kernel", "estimator", "rdm", "comparison")
    options = [str(attrs[key]) for key in stated if attrs.get(key)]
    # A kernel is written as the call that makes it, Linear(); drop empty parentheses.
    options = [option.lower() if option.endswith("()") else option for option in options]
    options = [option.removesuffix("()") for option in options]
    if "k" in attrs:
        options.append(f"k={attrs['k']}")
    units = str(attrs.get("units", "1"))
    if units != "1":
        options.append(f"in units {units}" if units.startswith("of ") else f"in {units}")
    if direction and attrs.get("kind") == "dissimilarity":
        options.append("smaller is more alike")
    return f"{name} ({', '.join(options)})" if options else name
