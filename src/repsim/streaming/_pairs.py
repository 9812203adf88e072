"""All layer pairs of one batch in one matrix product of U-centred, flattened Grams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from repsim._array import accumulator_dtype, promote
from repsim._typing import Array, Namespace
from repsim.estimators import ESTIMATORS, centred

__all__ = ["distinct", "flat_centred", "pair_products", "self_products"]

GROUP_BYTES = 1 << 26
"""Grams centred together: enough for full speed, few compared with all Grams."""

CHUNK = 1 << 16
"""Gram entries multiplied at a time, so only one chunk of them is in float64."""


def distinct(grams: Sequence[Array]) -> tuple[list[Array], tuple[int, ...]]:
    """Return the distinct arrays among ``grams``, and the index of each Gram in them."""
    places: dict[int, int] = {}
    unique: list[Array] = []
    for gram in grams:
        if id(gram) not in places:
            places[id(gram)] = len(unique)
            unique.append(gram)
    return unique, tuple(places[id(gram)] for gram in grams)


def flat_centred(xp: Namespace, grams: Sequence[Array]) -> Array:
    """U-centre the Grams of L layers (n, n) and return them as rows of (L, n²)."""
    n = grams[0].shape[0]
    grams = [promote(xp, k) for k in grams]
    dtype = xp.result_type(*grams)
    size = max(1, GROUP_BYTES // (8 * n * n))
    rows = []
    for start in range(0, len(grams), size):
        group = [xp.astype(k, dtype, copy=False) for k in grams[start : start + size]]
        a = centred(xp, xp.stack(group), ESTIMATORS["unbiased"])
        rows.append(xp.reshape(a, (len(group), n * n)))
    out: Array = rows[0] if len(rows) == 1 else xp.concat(rows)
    return out


def pair_products(xp: Namespace, a: Array, b: Array) -> Array:
    """Return all inner products of the rows of ``a`` (Lx, m) and ``b`` (Ly, m), as (Lx, Ly).

    They are summed in float64 if the device has it. The entries of the Grams were rounded to
    float32 once, and no further digit is lost here.
    """
    wide = accumulator_dtype(xp, a)
    total: Array | None = None
    for chunk in _chunks(a):
        left = xp.astype(a[:, chunk], wide, copy=False)
        right = left if b is a else xp.astype(b[:, chunk], wide, copy=False)
        product = left @ xp.matrix_transpose(right)
        total = product if total is None else total + product
    assert total is not None, "a Gram has entries"
    return total


def self_products(xp: Namespace, a: Array) -> Array:
    """Return the inner product of every row of ``a`` (L, m) with itself, summed in the same way."""
    wide = accumulator_dtype(xp, a)
    total: Array | None = None
    for chunk in _chunks(a):
        part = xp.astype(a[:, chunk], wide, copy=False)
        product = xp.sum(part * part, axis=1)
        total = product if total is None else total + product
    assert total is not None, "a Gram has entries"
    return total


def _chunks(a: Array) -> Iterator[slice]:
    entries = a.shape[1]
    for start in range(0, entries, CHUNK):
        yield slice(start, min(start + CHUNK, entries))
