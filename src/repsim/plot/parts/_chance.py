"""Which cells of a map are not above chance."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from repsim._errors import InputError
from repsim._options import as_number
from repsim.plot.parts._layer_map import layer_map, layer_names

__all__ = ["Mask", "by_chance"]

Mask = np.ndarray[Any, np.dtype[np.bool_]]


def by_chance(result: Any, array: xr.DataArray, above: Any, operation: str) -> Mask:
    """Return which cells of a map are not above chance, (layers of x, layers of y).

    Parameters
    ----------
    result : xarray.Dataset or xarray.DataArray
        The caller's argument; with a threshold, a Dataset with the variable ``z``.
    array : xarray.DataArray
        The map that is drawn, with dims ("layer_x", "layer_y").
    above : float, xarray.DataArray or None
        The smallest z-score above chance, or booleans; ``None``: all cells are above chance.
    operation : str
        The caller's name, the first word of error messages.

    Raises
    ------
    InputError
        There are no z-scores, or the mask is not boolean or of other layers.
    """
    if above is None:
        return np.zeros(array.shape, dtype=np.bool_)
    if isinstance(above, xr.DataArray):
        return ~_mask(array, above, operation)
    hint = "Or a DataArray of booleans; for a bare mask: result.cka.copy(data=mask)."
    above = as_number(operation, "above_chance", above, hint=hint)
    if not isinstance(result, xr.Dataset) or "z" not in result.data_vars:
        raise InputError(
            f"{operation}: above_chance={above:g} is a z-score, and result has none.\n"
            f"  result: {type(result).__name__} without the variable 'z'\n"
            f"  Ask for it, as in repsim.compare(..., z_scores=True), and pass the whole Dataset.\n"
            f"  For another measure than CKA: permutations=199. For several models: "
            f"above_chance=result.p_value <= 0.05."
        )
    z = layer_map(result, operation, "z").values
    below: Mask = ~np.greater_equal(z, above)  # NaN is not above
    return below


def _mask(array: xr.DataArray, above: xr.DataArray, operation: str) -> Mask:
    if above.dtype.kind != "b":
        raise InputError(
            f"{operation}: above_chance must be booleans, or one z-score.\n"
            f"  above_chance: dtype {above.dtype}\n"
            f"  Compare it first, as in result.p_adjusted <= 0.05."
        )
    mask = layer_map(above.astype(np.float64), operation)
    for dim in ("layer_x", "layer_y"):
        wanted, got = layer_names(array, dim), layer_names(mask, dim)
        if wanted != got:
            differ = [name for name in wanted if name not in got] or got
            raise InputError(
                f"{operation}: above_chance must have the layers of result, in the same order.\n"
                f"  {dim}: {len(got)} in above_chance, {len(wanted)} in result; "
                f"{', '.join(differ[:4])}\n"
                f"  Select the same layers, as in above_chance.sel({dim}=result.{dim})."
            )
    return mask.values > 0
