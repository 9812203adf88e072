"""Labelled arrays (xarray): check that they have the same samples, then take their values."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from repsim._errors import InputError

__all__ = ["check_same_samples", "unlabelled", "unlabelled_sides"]


def unlabelled(operation: str, arrays: Mapping[str, Any]) -> list[Any]:
    """Return the array inside every labelled array; return other arguments unchanged.

    Parameters
    ----------
    operation : str
        The caller's name, for errors.
    arrays : mapping of str to object
        By their names in error messages.

    Raises
    ------
    InputError
        Two of them label their samples, and the labels or their order differ.
    """
    kinds = _labelled_types()
    if not kinds:
        return list(arrays.values())
    check_same_samples(operation, arrays)
    return [x.data if isinstance(x, kinds) else x for x in arrays.values()]


def unlabelled_sides(operation: str, **sides: Any) -> list[Any]:
    """Return mappings of names to arrays with every labelled array replaced by the array inside.

    Other arguments, and mappings without labelled arrays, are returned unchanged.
    """
    kinds = _labelled_types()
    named = {
        f"{side}[{name!r}]": x
        for side, arrays in sides.items()
        if kinds and isinstance(arrays, Mapping)
        for name, x in arrays.items()
        if isinstance(x, kinds)
    }
    if not named:
        return list(sides.values())
    found = dict(zip(named, unlabelled(operation, named), strict=True))
    return [
        {name: found.get(f"{side}[{name!r}]", x) for name, x in arrays.items()}
        if isinstance(arrays, Mapping)
        else arrays
        for side, arrays in sides.items()
    ]


def check_same_samples(operation: str, arrays: Mapping[str, Any]) -> None:
    """Raise if the coordinates of the first axes of labelled arrays differ.

    Arrays without labels, or without a coordinate along axis 0, are not checked.
    """
    if not (kinds := _labelled_types()):
        return
    first: tuple[str, Any] | None = None
    for name, x in arrays.items():
        if not isinstance(x, kinds[:1]) or not x.ndim or x.dims[0] not in x.coords:
            continue
        ids = x.coords[x.dims[0]].values
        if first is None:
            first = name, ids
        elif len(ids) == len(first[1]) and not np.array_equal(ids, first[1]):
            _differ(operation, first, (name, ids))


def _differ(operation: str, a: tuple[str, Any], b: tuple[str, Any]) -> None:
    differ = np.flatnonzero(a[1] != b[1])
    row = int(differ[0])
    same = sorted(map(repr, a[1].tolist())) == sorted(map(repr, b[1].tolist()))
    repair = (
        "They are the same samples in another order: reorder one side by its labels."
        if same
        else "Keep the samples that both sides have, in the same order."
    )
    raise InputError(
        f"{operation}: arrays must describe the same samples in the same order.\n"
        f"  {len(differ)} of {len(a[1])} labels differ, the first in row {row}: "
        f"{a[1][row]!r} in {a[0]}, {b[1][row]!r} in {b[0]}\n"
        f"  {repair}"
    )


def _labelled_types() -> tuple[Any, ...]:
    """Return xarray's arrays, with coordinates and without; nothing if xarray is not loaded."""
    # Only a caller who has loaded xarray can have made such an array.
    xarray: Any = sys.modules.get("xarray")
    return (xarray.DataArray, xarray.Variable) if hasattr(xarray, "DataArray") else ()
