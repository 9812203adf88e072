"""Array-likes that are read by rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from repsim._errors import InputError, warn
from repsim.arrays import how_to_name, row_dtype, to_numpy

__all__ = [
    "Floats",
    "Source",
    "as_rows",
    "pick",
    "row_slices",
    "sources_of",
]

MASK_ROWS = 8192
"""Rows of a mask that are read at a time."""

Floats = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Source:
    """One layer: something with ``shape``, ``dtype`` and slices of rows."""

    operation: str
    label: str
    array: Any
    n: int
    p: int
    dtype: np.dtype[Any]
    """The dtype to compute in: at least float32; float64 for float64 and integers."""

    def raw(self, rows: slice | int) -> Floats:
        """Return rows as (b, p) on the CPU, in a dtype of NumPy and the machine's byte order."""
        return as_rows(
            self.array[slice(rows, rows + 1) if isinstance(rows, int) else rows], self.dtype
        )


def as_rows(block: Any, dtype: np.dtype[Any]) -> Floats:
    """Return rows of any framework as (b, p) on the CPU; ``dtype`` is for types NumPy lacks."""
    if hasattr(block, "detach") and block.is_floating_point() and block.dtype.itemsize < 4:
        block = block.float()  # NumPy has no bfloat16
    out = to_numpy(block)
    if out.dtype.kind == "V":  # a type that another package has registered, as bfloat16
        out = out.astype(dtype)
    elif not out.dtype.isnative:
        out = out.astype(out.dtype.newbyteorder("="))
    return out.reshape(out.shape[0], -1)


def sources_of(operation: str, side: str, arrays: Mapping[str, Any]) -> list[Source]:
    """Check the layers of one side, without reading any of their values."""
    if not isinstance(arrays, Mapping) or not arrays:
        got = "an empty mapping" if isinstance(arrays, Mapping) else type(arrays).__name__
        raise InputError(
            f"{operation}: {side} must map layer names to arrays, at least one.\n"
            f"  got {got}\n  {how_to_name(arrays)}"
        )
    sources = [_source(operation, f"{side}[{name!r}]", x) for name, x in arrays.items()]
    padded = next((source for source in sources if _has_padding(source)), None)
    if padded is not None:
        warn(
            f"{operation}: padding is compared as if it were data, from {padded.label} on.\n"
            f"  Open the store with repsim.open_activations(path, transform='mean'), 'first' or "
            f"'last', which use real tokens alone."
        )
    return sources


def _source(operation: str, label: str, x: Any) -> Source:
    dtype = row_dtype(operation, x, label)
    return Source(operation, label, x, int(x.shape[0]), math.prod(map(int, x.shape[1:])), dtype)


def _has_padding(source: Source) -> bool:
    """Whether an array has a mask that marks some of its positions as padding."""
    dims = getattr(source.array, "dims", ())
    for name, mask in getattr(source.array, "coords", {}).items():
        if str(name).startswith("mask") and mask.dims == dims[:2]:
            return any(not bool(mask[rows].all()) for rows in row_slices(source.n, MASK_ROWS))
    return False


def row_slices(n: int, size: int) -> Iterator[slice]:
    """Cut n rows into consecutive slices of this size, the last one shorter."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def pick(source: Source, chosen: np.ndarray[Any, np.dtype[np.intp]], rows: int) -> Floats:
    """Return rows of ascending numbers, read in slices because single rows of a store are slow."""
    found = []
    for part in row_slices(source.n, rows):
        first, last = np.searchsorted(chosen, (part.start, part.stop))
        if last > first:
            found.append(source.raw(part)[chosen[first:last] - part.start])
    return np.concatenate(found)
