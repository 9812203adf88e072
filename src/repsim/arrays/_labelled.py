"""Labelled arrays (xarray): check that they have the same samples, then take their values."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from repsim._errors import InputError

__all__ = [
    "check_same_samples",
    "labelled_like",
    "labelled_types",
    "same_labels",
    "unlabelled",
    "unlabelled_sides",
]


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
    kinds = labelled_types()
    if not kinds:
        return list(arrays.values())
    check_same_samples(operation, arrays)
    return [x.data if isinstance(x, kinds) else x for x in arrays.values()]


def unlabelled_sides(operation: str, **sides: Any) -> list[Any]:
    """Return mappings of names to arrays with every labelled array replaced by the array inside.

    Other arguments, and mappings without labelled arrays, are returned unchanged.
    """
    kinds = labelled_types()
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


def labelled_like(x: Any, matrix: Any) -> Any:
    """Return a matrix of samples by samples with the sample labels of ``x``, if it has any.

    The second dimension gets the name of the first with ``_2``, and no coordinates.
    """
    xarray: Any = sys.modules.get("xarray")
    if not isinstance(x, labelled_types()):
        return matrix
    axis = x.dims[0]
    dims = (axis, f"{axis}_2")
    if not isinstance(x, xarray.DataArray):
        return xarray.Variable(dims, matrix)
    others = [name for name, coordinate in x.coords.items() if coordinate.dims != (axis,)]
    return xarray.DataArray(matrix, dims=dims, coords=x.drop_vars(others).coords)


def check_same_samples(operation: str, arrays: Mapping[str, Any]) -> None:
    """Raise if the first axes of labelled arrays have other names or other labels.

    Every coordinate along the first axis is compared with that of the same name in the arrays
    before. Arrays without labels, and names that xarray made up (``dim_0``), are not checked.
    """
    if not (kinds := labelled_types()):
        return
    dimension: tuple[str, str] | None = None
    seen: dict[Any, tuple[str, Any]] = {}
    for name, x in arrays.items():
        if not isinstance(x, kinds) or not x.ndim:
            continue
        axis = x.dims[0]
        if not re.fullmatch(r"dim_\d+", str(axis)):
            if dimension is None:
                dimension = name, axis
            elif axis != dimension[1]:
                _differ_in_dimension(operation, dimension, (name, axis))
        for label, coordinate in getattr(x, "coords", {}).items():
            if coordinate.dims != (axis,):
                continue
            ids = coordinate.values
            of, known = seen.setdefault(label, (name, ids))
            if not same_labels(ids, known):
                _differ(operation, str(label), (of, known), (name, ids))


def same_labels(a: Any, b: Any) -> bool:
    """Whether two lists of labels are equal and in the same order."""
    return len(a) == len(b) and bool(_equal(a, b).all())


def _equal(a: Any, b: Any) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return which labels are equal; NaN and NaT are equal to themselves."""
    same = np.asarray(a == b) | (np.asarray(a != a) & np.asarray(b != b))
    return np.broadcast_to(same, np.shape(a))  # labels of other types compare to one False


def _differ_in_dimension(operation: str, a: tuple[str, str], b: tuple[str, str]) -> None:
    raise InputError(
        f"{operation}: the first axes of labelled arrays must be the same dimension.\n"
        f"  expected {a[1]!r} in {b[0]}, as in {a[0]}\n"
        f"  got {b[1]!r}\n"
        f"  Transpose one side so that samples come first, or rename the dimension."
    )


def _differ(operation: str, label: str, a: tuple[str, Any], b: tuple[str, Any]) -> None:
    n = len(a[1]), len(b[1])
    if n[0] != n[1]:
        found = f"n={n[0]} in {a[0]}, n={n[1]} in {b[0]}, labelled by {label!r}"
    else:
        differ = np.flatnonzero(~_equal(a[1], b[1]))
        row = int(differ[0])
        found = (
            f"{len(differ)} of {n[0]} labels of {label!r} differ, the first in row {row}: "
            f"{_plain(a[1][row])!r} in {a[0]}, {_plain(b[1][row])!r} in {b[0]}"
        )
    same = sorted(map(repr, a[1].tolist())) == sorted(map(repr, b[1].tolist()))
    both = ", ".join(dict.fromkeys(name.partition("[")[0] for name in (a[0], b[0])))
    repair = (
        "They are the same samples in another order: repsim.align({}) reorders them."
        if same
        else "repsim.align({}) keeps the samples that both sides have, in the same order."
    ).format(f"{both}, by={label!r}")
    raise InputError(
        f"{operation}: arrays must describe the same samples in the same order.\n"
        f"  {found}\n  {repair}"
    )


def _plain(label: Any) -> Any:
    """Return a label as Python writes it, 'a' and not np.str_('a')."""
    return label.item() if isinstance(label, np.generic) else label


def labelled_types() -> tuple[Any, ...]:
    """Return xarray's types of arrays, with coordinates and without; none if it is not loaded."""
    # Only a caller who has loaded xarray can have made such an array.
    xarray: Any = sys.modules.get("xarray")
    return (xarray.DataArray, xarray.Variable) if hasattr(xarray, "DataArray") else ()
