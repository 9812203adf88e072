"""Means, sizes and norms of the columns and rows of a layer, from two passes over it."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from repsim._errors import NonFiniteError
from repsim.streaming.exact._sources import Floats, Source, row_slices

__all__ = ["ColumnStats", "column_stats", "scaled_about"]


@dataclass(frozen=True)
class ColumnStats:
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
    inverse = 1 / scale
    if inverse <= float(np.finfo(dtype).max):
        out *= dtype.type(inverse)
    else:  # numbers so small that only the quotient is in range; slower
        out /= dtype.type(scale)
    return out


def column_stats(source: Source, dtype: np.dtype[Any], rows: int) -> ColumnStats:
    """Read a layer twice, ``rows`` rows at a time: means, size, norms, and whether it is finite."""
    first = source.raw(0)[0].astype(np.float64)
    total = np.zeros(source.p)
    largest = 0.0
    for part in row_slices(source.n, rows):
        raw = source.raw(part)
        with np.errstate(all="ignore"):  # reported by name below
            shifted = np.subtract(raw, first, dtype=np.float64)
            total += shifted.sum(axis=0)
            size = max(float(shifted.max()), -float(shifted.min()))
        if not (np.isfinite(size) and np.isfinite(total).all()):
            _not_finite(source, raw, part.start)
        largest = max(largest, size)
    mean_shifted = total / source.n
    shift = (first + mean_shifted).astype(dtype)
    rest = ((first - shift) + mean_shifted).astype(dtype)
    scale = 2.0 ** math.floor(math.log2(largest)) if largest > 0 else 1.0
    squares = np.empty(source.n)
    wide = np.dtype(np.float64)  # their squares cancel if few samples are far from the others
    for part in row_slices(source.n, rows):
        block = scaled_about(source.raw(part), shift, rest, scale, wide)
        squares[part] = np.einsum("ij,ij->i", block, block)
    digest = hashlib.sha256()
    for x in (shift, rest, np.float64(scale), squares):
        digest.update(np.ascontiguousarray(x).tobytes())
    return ColumnStats(shift, rest, scale, squares, largest == 0, digest.hexdigest()[:16])


def _not_finite(source: Source, raw: Floats, start: int) -> None:
    bad = start + np.flatnonzero(~np.isfinite(raw).all(axis=1))
    some = ", ".join(map(str, bad[:8].tolist())) + (", ..." if len(bad) > 8 else "")
    where = f"rows {some}" if len(bad) else f"rows from {start}: sums overflow float64"
    raise NonFiniteError(
        f"{source.operation}: {source.label} must be finite.\n"
        f"  NaN or infinity in {where} (of {source.n}, {source.p} features)\n"
        f"  Find where they arise (half precision overflows at 65504) or drop those rows from "
        f"every layer."
    )
