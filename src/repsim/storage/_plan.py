"""The plan of a store: its layers and coordinates, and how many rows a chunk has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from repsim._errors import InputError
from repsim.storage._chunks import SAMPLE

__all__ = ["MOST_ROWS", "Columns", "columns_of", "plan_of"]

MOST_ROWS = 1024
"""Rows of a chunk; blocks of rows that are read are multiples of it."""

Columns: TypeAlias = Mapping[str, tuple[tuple[int, ...], Any]]
"""The shape of a row and the dtype of each array; the dtype of text is "str"."""


def plan_of(
    operation: str,
    layers: Columns,
    ids: str,
    coords: Columns,
    masked: Mapping[str, str],
    memory: int,
    most_rows: int,
) -> dict[str, Any]:
    """Return the plan of a new store, in a form for JSON.

    Parameters
    ----------
    operation : str
        Name of the caller, for errors.
    layers : mapping of str to (shape, dtype)
        The layers in execution order.
    ids : {"int64", "str"}
        The ids of samples.
    coords : mapping of str to (shape, dtype)
        Further arrays with a row for each sample.
    masked : mapping of str to str
        The coordinate that says which positions of a layer are real, by layer.
    memory : int
        Bytes that collected rows may take.
    most_rows : int
        The most rows of a chunk.

    Raises
    ------
    InputError
        A layer has a name that the store uses, or one row takes more than the memory.
    """
    for name in layers:
        if name in (SAMPLE, *coords):
            used = "".join(f", and {each!r} is a coordinate" for each in coords)
            raise InputError(
                f"{operation}: a layer cannot be stored under the name {name!r}.\n"
                f"  In a store {SAMPLE!r} are the ids of the samples{used}\n"
                f"  Leave it out of layers=, or rename the module."
            )
    both = [*layers.values(), *coords.values()]
    row = sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in both)
    # Once while it is collected and once while Zarr encodes it.
    fitting = memory // (2 * max(row, 1))
    if fitting < 1:
        raise InputError(
            f"{operation}: memory is too small for one row of all layers.\n"
            f"  memory={memory} bytes, one row takes {2 * row}\n"
            f"  Give more memory, fewer layers, or a transform that reduces them."
        )
    chunk = min(most_rows, 1 << (fitting.bit_length() - 1))
    plan: dict[str, Any] = {"layers": _plain(layers), "ids": ids, "chunk": chunk}
    return {**plan, "coords": _plain(coords), "masked": dict(masked)} if coords else plan


def columns_of(plan: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the shape of a row and the dtype of every array of a store, its ids included."""
    return {**plan["layers"], **plan.get("coords", {}), SAMPLE: [[], plan["ids"]]}


def _plain(columns: Columns) -> dict[str, list[Any]]:
    return {
        name: [list(shape), "str" if dtype == "str" else str(np.dtype(dtype))]
        for name, (shape, dtype) in columns.items()
    }
