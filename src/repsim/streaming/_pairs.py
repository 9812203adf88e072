"""All layer pairs of one batch in one matrix product of U-centred, flattened Grams."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from array_api_compat import device

from repsim._typing import Array, Namespace
from repsim.arrays import accumulator_dtype, array_namespace, promote, rounding_unit, same_home
from repsim.estimators import ESTIMATORS, centred, rounding_of
from repsim.streaming._blocks import Sums

__all__ = ["LayerProducts", "pair_products", "self_products"]

GROUP_BYTES = 1 << 26
"""Grams centred together: enough for full speed, few compared with all Grams."""

CHUNK = 1 << 16
"""Gram entries multiplied at a time, so only one chunk of them is in float64."""


class BatchProducts(NamedTuple):
    """The sums of one batch, and the rounding of each layer by side, (L,)."""

    sums: Sums
    rounding: Mapping[str, Array]


class LayerProducts:
    """The inner products of all layer pairs of a batch.

    A Gram under several names is used once. The index of each name is kept between batches, because
    uploading it for every batch would wait for the accelerator.
    """

    def __init__(self) -> None:
        self._indices: dict[tuple[int, ...], Array] = {}

    def of(self, xs: Sequence[Array], ys: Sequence[Array] | None) -> BatchProducts:
        """Return the sums of one batch from Grams (n, n); without ``ys`` of x with itself."""
        unique_x, index_x = _distinct(xs)
        xp = array_namespace(unique_x[0])
        a, rounding_x = _flat_centred(xp, unique_x)
        rounding = {"x": self._expand(xp, rounding_x, index_x)}
        if ys is None:
            xy = self._expand(xp, pair_products(xp, a, a), index_x, index_x)
            xx = _or_zero(xp, xp.linalg.diagonal(xy), a)
            return BatchProducts(Sums(xy, xx, xx, 1), rounding)
        unique_y, index_y = _distinct(ys)
        b, rounding_y = _flat_centred(xp, unique_y)
        sums = Sums(
            self._expand(xp, pair_products(xp, a, b), index_x, index_y),
            self._expand(xp, self_products(xp, a), index_x),
            self._expand(xp, self_products(xp, b), index_y),
            1,
        )
        return BatchProducts(sums, rounding | {"y": self._expand(xp, rounding_y, index_y)})

    def _expand(self, xp: Namespace, values: Array, *indices: tuple[int, ...]) -> Array:
        """Give every layer the entry of the distinct array that it shares."""
        for axis, index in enumerate(indices):
            if index == tuple(range(values.shape[axis])):
                continue
            kept = self._indices.get(index)
            if kept is None or not same_home(kept, values):
                kept = xp.asarray(list(index), device=device(values))
                self._indices[index] = kept
            values = xp.take(values, kept, axis=axis)
        return values


def _distinct(grams: Sequence[Array]) -> tuple[list[Array], tuple[int, ...]]:
    """Return the distinct arrays among ``grams``, and the index of each Gram in them."""
    places: dict[int, int] = {}
    unique: list[Array] = []
    for gram in grams:
        if id(gram) not in places:
            places[id(gram)] = len(unique)
            unique.append(gram)
    return unique, tuple(places[id(gram)] for gram in grams)


def _flat_centred(xp: Namespace, grams: Sequence[Array]) -> tuple[Array, Array]:
    """U-centre the Grams of L layers (n, n); return them as rows of (L, n²), and their rounding."""
    n = grams[0].shape[0]
    units = [rounding_unit(k) for k in grams]
    grams = [promote(xp, k) for k in grams]
    dtype = xp.result_type(*grams)
    size = max(1, GROUP_BYTES // (8 * n * n))
    rows, largest = [], []
    for start in range(0, len(grams), size):
        group = [xp.astype(k, dtype, copy=False) for k in grams[start : start + size]]
        found = centred(xp, xp.stack(group), ESTIMATORS["unbiased"])
        rows.append(xp.reshape(found.gram, (len(group), n * n)))
        largest.append(found.largest)
    sizes = _joined(xp, largest)
    rounding, start = [], 0
    for own, same in itertools.groupby(units):  # most often one
        stop = start + len(list(same))
        rounding.append(rounding_of(xp, sizes[start:stop], n, own))
        start = stop
    return _joined(xp, rows), _joined(xp, rounding)


def _joined(xp: Namespace, parts: Sequence[Array]) -> Array:
    out: Array = parts[0] if len(parts) == 1 else xp.concat(parts)
    return out


def pair_products(xp: Namespace, a: Array, b: Array) -> Array:
    """Return all inner products of the rows of ``a`` (Lx, m) and ``b`` (Ly, m), as (Lx, Ly).

    They are summed in float64 if the device has it. The entries of the Grams were rounded to
    float32 once, and no further digit is lost here.
    """
    wide = accumulator_dtype(xp, a)

    def product(chunk: slice) -> Any:
        left = xp.astype(a[:, chunk], wide, copy=False)
        right = left if b is a else xp.astype(b[:, chunk], wide, copy=False)
        return left @ xp.matrix_transpose(right)

    return _sum_of_chunks(a, product)


def self_products(xp: Namespace, a: Array) -> Array:
    """Return the inner product of every row of ``a`` (L, m) with itself, summed in the same way.

    That of a Gram whose entries are too small to have all digits is zero.
    """
    wide = accumulator_dtype(xp, a)

    def product(chunk: slice) -> Any:
        part = xp.astype(a[:, chunk], wide, copy=False)
        return xp.sum(part * part, axis=1)

    return _or_zero(xp, _sum_of_chunks(a, product), a)


def _or_zero(xp: Namespace, selves: Array, grams: Array) -> Array:
    """Set the self-product of a Gram to zero if its entries are too small to have all digits.

    Numbers below the smallest normal one have fewer digits, and CKA would be that of rounding.
    """
    entry, square = (float(xp.finfo(each.dtype).smallest_normal) for each in (grams, selves))
    least = grams.shape[1] * max(entry**2, square)
    out: Array = xp.where(selves < least, xp.zeros_like(selves), selves)
    return out


def _sum_of_chunks(a: Array, product: Callable[[slice], Any]) -> Array:
    """Return the sum of the products of the entries of Grams (L, m), some entries at a time."""
    total: Array | None = None
    for start in range(0, a.shape[1], CHUNK):
        part = product(slice(start, min(start + CHUNK, a.shape[1])))
        total = part if total is None else total + part
    assert total is not None, "a Gram has entries"
    return total
