"""Means, sizes and norms of the columns and rows of a layer, from two passes over it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from repsim._errors import InputError, NonFiniteError
from repsim.arrays import require_exact
from repsim.streaming.exact._sources import Floats, Source, row_slices
from repsim.streaming.exact._work import Piece, Work

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


def scaled_about(
    block: Floats, shift: Floats, rest: Floats, scale: float, dtype: np.dtype[Any]
) -> Floats:
    """Return ((block − shift) − rest) / scale as a new array of ``dtype``."""
    out = np.subtract(block, shift, dtype=dtype)
    if rest.any():
        out -= rest.astype(dtype, copy=False)
    inverse = 1 / scale
    if inverse <= float(np.finfo(dtype).max):
        out *= dtype.type(inverse)
    else:  # numbers so small that only the quotient is in range; slower
        out /= dtype.type(scale)
    return out


@dataclass(frozen=True)
class RowPart:
    """Some rows of a layer, as an error names them."""

    operation: str
    label: str
    start: int
    n: int
    p: int


def column_stats(
    sources: Sequence[Source], dtype: np.dtype[Any], rows: int, work: Work
) -> list[ColumnStats]:
    """Read layers twice, ``rows`` rows at a time: means, size, norms, and whether all is finite."""
    firsts = [raw[0].astype(np.float64) for raw in work.read([(s, slice(0, 1)) for s in sources])]
    totals = work.reduce(
        _sums,
        [
            [
                Piece(((s, part),), (first, RowPart(s.operation, s.label, part.start, s.n, s.p)))
                for part in row_slices(s.n, rows)
            ]
            for s, first in zip(sources, firsts, strict=True)
        ],
        _sums_together,
    )
    for s, (total, _) in zip(sources, totals, strict=True):
        if not np.isfinite(total).all():
            whole = RowPart(s.operation, s.label, 0, s.n, s.p)
            _refuse(whole, "the sums of all rows: they overflow float64")
    centres = [
        _centre(first, total / source.n, largest, dtype)
        for source, first, (total, largest) in zip(sources, firsts, totals, strict=True)
    ]
    for s, (shift, _, scale) in zip(sources, centres, strict=True):
        _require_in_range(s, shift, scale, dtype)
    parts = [(index, part) for index, s in enumerate(sources) for part in row_slices(s.n, rows)]
    squares = [np.empty(source.n) for source in sources]
    found = work.reduce(
        _squares, [[Piece(((sources[index], part),), centres[index])] for index, part in parts]
    )
    for (index, part), values in zip(parts, found, strict=True):
        squares[index][part] = values
    return [
        ColumnStats(*centre, own, largest == 0, _digest(*centre, own))
        for centre, own, (_, largest) in zip(centres, squares, totals, strict=True)
    ]


def _sums(raw: Floats, first: Floats, part: RowPart) -> tuple[Floats, float]:
    """Return the sums of the columns about a first row, and their largest distance from it."""
    require_exact(part.operation, raw, part.label, np.dtype(np.float64))
    with np.errstate(all="ignore"):  # reported by name below
        shifted = np.subtract(raw, first, dtype=np.float64)
        total = shifted.sum(axis=0)
        size = max(float(shifted.max()), -float(shifted.min()))
    if not (np.isfinite(size) and np.isfinite(total).all()):
        _not_finite(raw, part)
    return total, size


def _sums_together(one: tuple[Floats, float], other: tuple[Floats, float]) -> tuple[Floats, float]:
    return one[0] + other[0], max(one[1], other[1])


def _centre(
    first: Floats, mean_shifted: Floats, largest: float, dtype: np.dtype[Any]
) -> tuple[Floats, Floats, float]:
    with np.errstate(over="ignore", invalid="ignore"):  # reported by name
        shift = (first + mean_shifted).astype(dtype)
        rest = ((first - shift) + mean_shifted).astype(dtype)
    return shift, rest, 2.0 ** math.floor(math.log2(largest)) if largest > 0 else 1.0


def _require_in_range(s: Source, shift: Floats, scale: float, dtype: np.dtype[Any]) -> None:
    """Raise if float64 values lie out of the range of the float32 that the caller asked for."""
    with np.errstate(over="ignore", under="ignore"):
        within = 0 < dtype.type(scale) < np.inf and bool(np.isfinite(shift).all())
    if not within:
        raise InputError(
            f"{s.operation}: {s.label} must lie in the range of {dtype}.\n"
            f"  its values spread over about {scale:.3g}; the largest number of {dtype} is "
            f"{np.finfo(dtype).max:.3g}, the smallest {np.finfo(dtype).smallest_subnormal:.3g}\n"
            f"  Leave out dtype='{dtype}', or divide {s.label} by a power of two."
        )


def _squares(raw: Floats, shift: Floats, rest: Floats, scale: float) -> Floats:
    # In float64, because the squares cancel if few samples are far from the others.
    block = scaled_about(raw, shift, rest, scale, np.dtype(np.float64))
    out: Floats = np.einsum("ij,ij->i", block, block)
    return out


def _digest(shift: Floats, rest: Floats, scale: float, squares: Floats) -> str:
    digest = hashlib.sha256()
    for x in (shift, rest, np.float64(scale), squares):
        digest.update(np.ascontiguousarray(x).tobytes())
    return digest.hexdigest()[:16]


def _not_finite(raw: Floats, part: RowPart) -> None:
    finite = np.isfinite(raw)
    bad = part.start + np.flatnonzero(~finite.all(axis=1))
    absent = int((~finite).all(axis=0).sum())  # features that were not measured
    if len(raw) > 1 and 0 < absent < raw.shape[1] and len(raw) * absent == (~finite).sum():
        stop = part.start + len(raw)
        _refuse(
            part, f"{absent} of the features, in all rows {part.start} to {stop - 1}", "features"
        )
    some = ", ".join(map(str, bad[:8].tolist())) + (", ..." if len(bad) > 8 else "")
    _refuse(part, f"rows {some}" if len(bad) else f"rows from {part.start}: sums overflow float64")


def _refuse(part: RowPart, where: str, what: str = "rows") -> None:
    whom = "every layer" if what == "rows" else "this layer"
    raise NonFiniteError(
        f"{part.operation}: {part.label} must be finite.\n"
        f"  NaN or infinity in {where} (of {part.n}, {part.p} features)\n"
        f"  Find where they arise (half precision overflows at 65504) or drop those {what} from "
        f"{whom}."
    )
