"""Array-likes that are read by rows, and the means and sizes of their rows."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from repsim._array import row_dtype, to_numpy
from repsim._errors import InputError, NonFiniteError

__all__ = [
    "Floats",
    "Look",
    "Source",
    "look",
    "pick",
    "row_slices",
    "scaled_about",
    "sources_of",
]

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
        block = self.array[slice(rows, rows + 1) if isinstance(rows, int) else rows]
        if hasattr(block, "detach") and block.is_floating_point() and block.dtype.itemsize < 4:
            block = block.float()  # NumPy has no bfloat16
        out = to_numpy(block)
        if out.dtype.kind == "V":  # a type that another package has registered, as bfloat16
            out = out.astype(self.dtype)
        elif not out.dtype.isnative:
            out = out.astype(out.dtype.newbyteorder("="))
        return out.reshape(out.shape[0], -1)


def sources_of(operation: str, side: str, arrays: Mapping[str, Any]) -> list[Source]:
    """Check the layers of one side, without reading any of their values."""
    if not isinstance(arrays, Mapping) or not arrays:
        got = "an empty mapping" if isinstance(arrays, Mapping) else type(arrays).__name__
        raise InputError(
            f"{operation}: {side} must map layer names to arrays, at least one.\n"
            f"  got {got}\n"
            f"  For a single layer name it: {{'x': x}}."
        )
    return [_source(operation, f"{side}[{name!r}]", x) for name, x in arrays.items()]


def _source(operation: str, label: str, x: Any) -> Source:
    dtype = row_dtype(operation, x, label)
    return Source(operation, label, x, int(x.shape[0]), math.prod(map(int, x.shape[1:])), dtype)


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


@dataclass(frozen=True)
class Look:
    """Means and sizes of a layer, from two passes over its rows; without BLAS, so bits repeat.

    A column is centred as (x − shift) − rest. ``shift`` is the mean rounded to the dtype of the
    block, so the difference keeps every digit. ``rest`` is the mean minus ``shift``.
    """

    shift: Floats  # (p,), block dtype
    rest: Floats  # (p,), block dtype
    scale: float  # power of two; centred features divided by it are of size one
    squares: Floats  # (n,) float64, ‖centred and scaled row‖²
    constant: bool
    digest: str  # of all of the above; any change of a value of the layer changes it

    def centred(self, block: Floats, dtype: np.dtype[Any]) -> Floats:
        """Return rows (b, p), centred and scaled to size one, in ``dtype``."""
        return scaled_about(block, self.shift, self.rest, self.scale, dtype)


def scaled_about(
    block: Floats, shift: Floats, rest: Floats, scale: float, dtype: np.dtype[Any]
) -> Floats:
    """Return ((block − shift) − rest) / scale as a new array of ``dtype``."""
    out = np.subtract(block, shift, dtype=dtype)
    out -= rest.astype(dtype, copy=False)
    out *= dtype.type(1 / scale)
    return out


def look(source: Source, dtype: np.dtype[Any], rows: int) -> Look:
    """Read a layer twice, ``rows`` rows at a time: means, size, norms, and whether it is finite."""
    first = source.raw(0)[0].astype(np.float64)
    total = np.zeros(source.p)
    largest = 0.0
    for part in row_slices(source.n, rows):
        raw = source.raw(part)
        with np.errstate(all="ignore"):  # reported by name below
            apart = np.subtract(raw, first, dtype=np.float64)
            total += apart.sum(axis=0)
            size = max(float(apart.max()), -float(apart.min()))
        if not np.isfinite(size):
            _not_finite(source, raw, part.start)
        largest = max(largest, size)
    mean_apart = total / source.n
    shift = (first + mean_apart).astype(dtype)
    rest = ((first - shift) + mean_apart).astype(dtype)
    scale = 2.0 ** math.floor(math.log2(largest)) if largest > 0 else 1.0
    squares = np.empty(source.n)
    wide = np.dtype(np.float64)  # their squares cancel if few samples are far from the others
    for part in row_slices(source.n, rows):
        block = scaled_about(source.raw(part), shift, rest, scale, wide)
        squares[part] = np.einsum("ij,ij->i", block, block)
    digest = hashlib.sha256()
    for x in (shift, rest, np.float64(scale), squares):
        digest.update(np.ascontiguousarray(x).tobytes())
    return Look(shift, rest, scale, squares, largest == 0, digest.hexdigest()[:16])


def _not_finite(source: Source, raw: Floats, start: int) -> None:
    bad = start + np.flatnonzero(~np.isfinite(raw).all(axis=1))
    some = ", ".join(map(str, bad[:8].tolist())) + (", ..." if len(bad) > 8 else "")
    where = f"rows {some}" if len(bad) else f"rows from {start}: differences overflow float64"
    raise NonFiniteError(
        f"{source.operation}: {source.label} must be finite.\n"
        f"  NaN or infinity in {where} (of {source.n}, {source.p} features)\n"
        f"  Find where they arise (half precision overflows at 65504) or drop those rows from "
        f"every layer."
    )
