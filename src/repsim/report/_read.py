"""Reading a result: its variables in order, and findings that all analyses share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from repsim.report._blocks import Finding, number

__all__ = ["ends", "extreme", "has", "mean_of", "model_of", "names_of", "values_of"]


def names_of(result: xr.Dataset, dim: str) -> list[str]:
    """Return the names along `dim`, or positions if there are none."""
    return [str(name) for name in result[dim].values]


def values_of(result: xr.Dataset, key: str, *dims: str) -> Any:
    """Return a variable as float64, with its dimensions in this order."""
    return result[key].transpose(*dims).values.astype(np.float64)


def has(result: xr.Dataset, key: str, *dims: str) -> bool:
    """Whether there is such a variable, with these dimensions."""
    return key in result and set(result[key].dims) == set(dims)


def model_of(result: xr.Dataset) -> str:
    """Return the name of the model in the result."""
    return str(result.attrs.get("model") or "the model")


def ends(
    what: str,
    names: Sequence[str],
    values: Any,
    digits: int = 3,
    unit: str = "",
    *,
    of: str = "layer",
) -> list[Finding]:
    """The first and the last defined value by layer."""
    known = np.flatnonzero(np.isfinite(values))
    if not known.size:
        return []
    places = [int(known[0])] if known.size == 1 else [int(known[0]), int(known[-1])]
    return [
        Finding(
            f"{what}, {'first' if k == 0 else 'last'} {'' if known.size > 1 else 'and only '}{of}",
            number(float(values[i]), digits) + unit,
            names[i],
        )
        for k, i in enumerate(places)
    ]


def extreme(
    what: str, names: Sequence[str], values: Any, digits: int = 3, unit: str = "", *, most: bool
) -> list[Finding]:
    """Return the position of the largest or smallest value, if any is defined."""
    if not np.isfinite(values).any():
        return []
    i = int(np.nanargmax(values) if most else np.nanargmin(values))
    return [Finding(what, number(float(values[i]), digits) + unit, names[i])]


def mean_of(values: Any, axis: int) -> Any:
    """Mean of the defined values; NaN if there are none."""
    known = np.isfinite(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
