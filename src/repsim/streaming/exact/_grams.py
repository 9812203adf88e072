"""All layer pairs from Grams, one block at a time and without an n×n array."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from repsim._errors import NonFiniteError
from repsim.arrays import in_threads, row_blocks
from repsim.estimators import rounding_of
from repsim.kernels import Cosine, Linear
from repsim.streaming.exact._columns import ColumnStats
from repsim.streaming.exact._gram_block import GramBlock, largest_of
from repsim.streaming.exact._kernels import LayerKernel, Rows
from repsim.streaming.exact._sources import Floats, Source, row_slices
from repsim.streaming.exact._work import Piece, Work

__all__ = ["GramBlocks", "GramSums", "Side", "gram_sums"]

PILOT_COLUMNS = 256
"""Columns of the Gram from which the means of its rows are estimated first."""

CHUNK = 1 << 13
"""Entries of all Grams multiplied at a time; more would lose digits of the sum in float32."""

STATE = ("sums", "row_sums", "diagonals", "means", "scales", "sizes")


class Side(NamedTuple):
    """One of the two blocks of rows of a block of all Grams."""

    number: int
    part: slice
    rows: Callable[[int], Rows]
    """The prepared rows of a layer, by its number."""
    means: Floats
    """(L, b), f of these rows."""


class GramSums(NamedTuple):
    """What a block of all Grams adds to the sums."""

    products: Floats  # (L, L)
    rows: dict[int, Floats]  # by number of the block of rows, (L, b)
    diagonals: Floats  # (L,), the sum of each diagonal before centring
    sizes: Floats  # (L,)

    def plus(self, other: GramSums) -> GramSums:
        """Return the sums of both."""
        rows = dict(self.rows)
        for number, values in other.rows.items():
            rows[number] = rows[number] + values if number in rows else values
        return GramSums(
            self.products + other.products,
            rows,
            self.diagonals + other.diagonals,
            np.maximum(self.sizes, other.sizes),
        )


class GramBlocks:
    r"""Σ over blocks of Gram entries, for all layer pairs.

    Both estimators are invariant to adding a function of the row or of the column alone. The Gram
    that is summed is therefore K' = K − f_i − f_j with f near the row means. Its row sums r are
    small, so centring by them cancels no digits. With K'_ii = 0 for the unbiased estimator::

        biased     ⟨A, B⟩ = Σ_ij K'L' − 2/n Σ r_i s_i + Σr Σs/n²
        unbiased   ⟨A, B⟩ = Σ_ij K'L' − 2/(n−2) Σ r_i s_i + Σr Σs/((n−1)(n−2))

    One pass over the Gram computes Σ K'L', r and s, from the blocks on and above the diagonal;
    those above count twice.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        stats: Sequence[ColumnStats],
        layers: Sequence[LayerKernel],
        lx: int,
        *,
        unbiased: bool,
        rows: int,
    ) -> None:
        self.sources, self.stats, self.layers = sources, stats, layers
        self.lx, self.unbiased = lx, unbiased
        self.n, self.rows = sources[0].n, rows
        self.blocks = list(row_slices(self.n, rows))
        self.tasks = [(i, j) for i in range(len(self.blocks)) for j in range(i, len(self.blocks))]
        self.sums = np.zeros((len(layers), len(layers)))
        self.row_sums = np.zeros((len(layers), self.n))
        self.diagonals = np.zeros(len(layers))
        self.means = np.zeros((len(layers), self.n))
        # A power of two near the entries of each Gram, and the largest entry met, divided by it.
        self.scales = np.ones(len(layers))
        self.sizes = np.zeros(len(layers))

    @functools.cached_property
    def _entries(self) -> Floats:
        """Memory for a block of all Grams.

        It is kept, because the system clears what it gives out, which takes 5 % of the time.
        """
        most = max(part.stop - part.start for part in self.blocks)
        return np.empty(len(self.layers) * most**2, self.layers[0].dtype)

    def costs(self) -> list[float]:
        """Return the relative cost of each task."""
        size = [part.stop - part.start for part in self.blocks]
        return [float(size[i] * size[j]) for i, j in self.tasks]

    def start(self, rng: np.random.Generator, work: Work) -> None:
        """Find f, near the means of the rows of every Gram."""
        count = min(PILOT_COLUMNS, self.rows)
        chosen = np.sort(rng.choice(self.n, count, replace=False))
        pieces = []
        for index, layer in enumerate(self.layers):
            if isinstance(layer.kernel, Linear):
                # Rows of XcXcᵀ sum to zero, and to −‖x_i‖² without the diagonal.
                if self.unbiased:
                    squares = self.stats[index].squares
                    self.means[index] = -squares / (self.n - 2)
                    self.means[index] += squares.sum() / (2 * (self.n - 1) * (self.n - 2))
                continue
            source = self.sources[index]
            pieces += [
                Piece(
                    ((source, chosen), (source, part)), (layer, part.start, chosen, self.unbiased)
                )
                for part in self.blocks
            ]
        if pieces:
            found = work.reduce(_pilot_means, [[piece] for piece in pieces])
            for index in range(len(self.layers)):
                self._set_means(index, found[index * len(self.blocks) :])

    def _set_means(self, index: int, found: Sequence[tuple[Floats, float]]) -> None:
        means = self.means[index]
        own = found[: len(self.blocks)]
        for part, (values, _) in zip(self.blocks, own, strict=True):
            means[part] = values
        largest = max(size for _, size in own)
        if 0 < largest < np.inf and not 2**-20 < largest < 2**20:
            self.scales[index] = 2.0 ** np.floor(np.log2(largest))
        means /= self.scales[index]
        means -= means.mean() / 2

    def state(self) -> dict[str, Floats]:
        """Return all sums that tasks add to, and the estimates that they start from."""
        return {name: getattr(self, name) for name in STATE}

    def restore(self, state: dict[str, Floats]) -> None:
        """Restore what ``state`` returned."""
        for name in STATE:
            setattr(self, name, state[name])

    def merge(self, gather: Callable[[Floats], list[Floats]]) -> None:
        """Add the sums of all ranks, which started alike and ran different tasks."""
        self.sums = functools.reduce(np.add, gather(self.sums))
        self.diagonals = functools.reduce(np.add, gather(self.diagonals))
        self.sizes = functools.reduce(np.maximum, gather(self.sizes))
        for index, layer in enumerate(self.layers):
            if not isinstance(layer.kernel, Linear):  # one layer at a time, because n is large
                self.row_sums[index] = functools.reduce(np.add, gather(self.row_sums[index]))

    def side(self, block: int, rows: Callable[[int], Rows] | None = None) -> Side:
        """Return a block of rows, by default read when they are requested."""
        part = self.blocks[block]
        if rows is None:
            rows = functools.partial(self._read, part)
        return Side(block, part, rows, self.means[:, part])

    def _read(self, part: slice, index: int) -> Rows:
        return self.layers[index].prepared(self.sources[index].raw(part))

    def run(self, task: int) -> None:
        """Add one pair of blocks of rows."""
        i, j = self.tasks[task]
        a = self.side(i)
        b = a if i == j else self.side(j)
        given = self.layers, self.lx, self.unbiased, self.scales
        self.add(gram_sums(*given, a, b, self._entries))

    def add(self, found: GramSums) -> None:
        """Add the sums of some tasks."""
        self.sums += found.products
        self.diagonals = self.diagonals + found.diagonals
        for number, values in found.rows.items():
            self.row_sums[:, self.blocks[number]] += values
        self.sizes = np.maximum(self.sizes, found.sizes)

    def traces(self) -> Floats:
        """Return tr(Kc) of every layer, (L,), in the units of ``products``, if it is biased."""
        linear = [isinstance(layer.kernel, Linear) for layer in self.layers]
        of_features = np.array([one.squares.sum() for one in self.stats])
        total = self.row_sums.sum(axis=1) + 2 * self.n * self.means.sum(axis=1)
        return np.where(linear, of_features, self.diagonals - total / self.n)  # ΣK_ii − ΣK/n

    def products(self) -> Floats:
        """Return ⟨A, B⟩ of the centred Grams, (L, L); zero for pairs that were not requested."""
        n, r = self.n, self.row_sums
        total = r.sum(axis=1)
        # einsum instead of @, because BLAS may split the sum differently and change the bits.
        crossed = np.einsum("ai,bi->ab", r, r)
        if self.unbiased:
            centring = np.outer(total, total) / ((n - 1) * (n - 2)) - 2 / (n - 2) * crossed
        else:
            centring = np.outer(total, total) / n**2 - 2 / n * crossed
        out: Floats = self.sums + centring
        # If the entries of a Gram differ only by rounding, only that rounding remains. (Linear
        # Grams of constant features are exactly zero, because features are centred.)
        selves = np.diagonal(out)
        np.fill_diagonal(out, np.where(selves <= self.rounding(), 0.0, selves))
        return out

    def rounding(self) -> Floats:
        """Return the rounding of every Gram, (L,), in the units of ``products``."""
        dtype = self.layers[0].dtype
        found: Floats = np.asarray(rounding_of(np, self.sizes, self.n, float(np.finfo(dtype).eps)))
        # Unit vectors of one direction differ by the rounding of their norms.
        cosine = np.array([isinstance(layer.kernel, Cosine) for layer in self.layers])
        size = np.maximum(self.sizes, self.diagonals / self.n) * self.scales
        same = cosine & (size <= (8 * float(np.finfo(dtype).eps)) ** 2)
        return np.where(same, np.inf, found)


def gram_sums(
    layers: Sequence[LayerKernel],
    lx: int,
    unbiased: bool,
    scales: Floats,
    a: Side,
    b: Side,
    entries: Floats | None = None,
) -> GramSums:
    """Return the sums of one block of all Grams, in this memory or in new memory.

    A block above the diagonal counts twice.
    """
    same = a.number == b.number
    size = (a.part.stop - a.part.start, b.part.stop - b.part.start)
    count = len(layers) * size[0] * size[1]
    entries = np.empty(count, layers[0].dtype) if entries is None else entries[:count]
    flat = entries.reshape(len(layers), -1)
    rows = {side.number: np.zeros(side.means.shape) for side in (a, b)}
    sizes, diagonals = np.zeros(len(layers)), np.zeros(len(layers))
    parts = list(row_blocks(flat[0].reshape(size)))
    # Non-finite values are reported below.
    with np.errstate(all="ignore"), in_threads(len(parts)) as each:
        for index, layer in enumerate(layers):
            k = flat[index].reshape(size)
            left = a.rows(index)
            right = left if same else b.rows(index)
            np.matmul(left.x, right.x.T, out=k)
            if isinstance(layer.kernel, Linear) and not unbiased:
                continue
            means = a.means[index].astype(k.dtype), b.means[index].astype(k.dtype)
            hollow = same and unbiased
            block = GramBlock(layer, k, left, right, means, float(scales[index]), same, hollow)
            # In order, so the sums have the same digits for any number of threads.
            for part, found in zip(parts, each(block.finish, parts), strict=True):
                if found is None:
                    continue
                sizes[index] = max(sizes[index], found.largest)
                diagonals[index] += found.trace
                rows[a.number][index, part] += found.rows
                if not same:
                    rows[b.number][index] += found.columns
            del left, right, block
        products = (1.0 if same else 2.0) * _products(flat, lx)
    _check(layers, np.diagonal(products), a.part, b.part)
    if all(isinstance(layer.kernel, Linear) for layer in layers):
        rows = {}
    return GramSums(products, rows, diagonals, sizes)


def _products(flat: Floats, lx: int) -> Floats:
    total = np.zeros((len(flat), len(flat)))
    for start in range(0, flat.shape[1], CHUNK):  # summed in float64
        part = flat[:, start : start + CHUNK]
        if lx == len(flat):
            total += part @ part.T
        else:
            total[:lx, lx:] += part[:lx] @ part[lx:].T
            own = np.einsum("ij,ij->i", part, part)
            np.fill_diagonal(total, np.diagonal(total) + own)
    return total


def _check(layers: Sequence[LayerKernel], selves: Floats, a: slice, b: slice) -> None:
    cosines = np.array([isinstance(layer.kernel, Cosine) for layer in layers])
    # The features are finite here, so a cosine is NaN of rows of zeros alone: it is undefined.
    for index in np.flatnonzero(~np.isfinite(selves) & ~cosines)[:1]:
        raise NonFiniteError(
            f"cka_matrix: the Gram of {layers[index].label} is not finite.\n"
            f"  kernel {layers[index].kernel!r}, rows {a.start}-{a.stop - 1} with "
            f"{b.start}-{b.stop - 1}\n"
            f"  Large features overflow a power: divide them by their size first."
        )


def _pilot_means(
    pilot_raw: Floats,
    raw: Floats,
    layer: LayerKernel,
    start: int,
    chosen: Floats,
    unbiased: bool,
) -> tuple[Floats, float]:
    """Return the means of some rows of a Gram over chosen columns, and their largest entry."""
    with np.errstate(all="ignore"):  # non-finite values show in the sums
        k = layer.block(layer.prepared(raw), layer.prepared(pilot_raw), same=False)
        if not unbiased:
            return k.mean(axis=1, dtype=np.float64), largest_of(k, layer.kernel)
        # The diagonal is not summed, and not counted: a Gram of equal entries, centred by their
        # mean, is exactly zero, where any other number leaves rounding that looks like data.
        own = start + np.arange(len(k))[:, None] == chosen
        k[own] = 0
        counted = np.maximum(len(chosen) - own.sum(axis=1), 1)
        return k.sum(axis=1, dtype=np.float64) / counted, largest_of(k, layer.kernel)
