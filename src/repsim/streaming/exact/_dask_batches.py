"""Batches of tasks that Dask computes together: products stay on the workers that hold the rows."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from repsim.streaming.exact._dask import DaskWork, in_tree
from repsim.streaming.exact._features import (
    Centre,
    FeatureTiles,
    Tile,
    assembled,
    squared_by_panel,
    width_of,
)
from repsim.streaming.exact._grams import GramBlocks, GramSums, Side, gram_sums
from repsim.streaming.exact._kernels import LayerKernel, Rows
from repsim.streaming.exact._sources import Floats, row_slices
from repsim.streaming.exact._tasks import Batch

__all__ = ["dask_batches"]

CHAIN = 8
"""The most blocks of rows whose products are added one after the other; chains run beside each
other, and each holds one sum."""

HELD = 6
"""Sums of a pair of tiles that are held at a time: of chains, and those that are combined."""

CHAINS = 16
"""Chains that there should be, so that workers have something to do."""

MOST_BLOCKS = 16
"""Blocks of rows of one side that a batch of Grams holds."""

SENT = 1 << 22
"""Bytes of row means that are sent with one batch."""


def dask_batches(form: FeatureTiles | GramBlocks, work: DaskWork, memory: int) -> list[Batch]:
    """Return the tasks of a form in batches that Dask computes one after the other.

    Parameters
    ----------
    form : FeatureTiles or GramBlocks
        The sums that results are added to.
    work : DaskWork
        Makes and computes delayed calls.
    memory : int
        Bytes that the rows and sums of a batch may take on two workers.
    """
    if isinstance(form, GramBlocks):
        return _of_grams(form, work, memory)
    batches: list[list[int]] = [[]]
    held = 0.0
    for task, (left, right) in enumerate(form.tasks):
        size = 8.0 * width_of(left) * width_of(right) * HELD
        if batches[-1] and held + size > memory / 2:
            batches.append([])
            held = 0.0
        batches[-1].append(task)
        held += size
    return [(len(tasks), functools.partial(_run_tiles, form, work, tasks)) for tasks in batches]


class Pair(NamedTuple):
    """Two tiles and the dtype in which their products are computed."""

    left: Tile
    right: Tile
    dtype: np.dtype[Any]


class SentCentre(NamedTuple):
    """How a layer is centred, as it is sent to workers."""

    shift: Floats
    rest: Floats
    scale: float


def _run_tiles(form: FeatureTiles, work: DaskWork, tasks: Sequence[int]) -> None:
    """Add the cross products of pairs of tiles; the rows are read once for all of them."""
    pairs = [Pair(*form.tasks[task], form.dtype_of(task)) for task in tasks]
    layers = sorted({panel.layer for pair in pairs for panel in (*pair.left, *pair.right)})
    centres = {
        layer: SentCentre(one.shift, one.rest, one.scale)
        for layer, one in enumerate(form.stats)
        if layer in layers
    }
    parts = list(row_slices(form.n, form.rows))
    length = max(1, min(CHAIN, len(parts) // CHAINS))
    sums = []
    for start in range(0, len(parts), length):
        total = None
        for part in parts[start : start + length]:
            rows = [work.rows((form.sources[layer], part)) for layer in layers]
            total = work.call(
                _tile_products, total, work.literal(pairs), work.literal(centres), layers, *rows
            )
        sums.append(total)
    total = in_tree(work, _lists_together, sums)
    (found,) = work.values([work.call(_squares, total, work.literal(pairs))])
    for task, by_panel in zip(tasks, found, strict=True):
        form.add(task, by_panel)


def _tile_products(
    total: list[Floats] | None,
    pairs: Sequence[Pair],
    centres: dict[int, Centre],
    layers: Sequence[int],
    *rows: Floats,
) -> list[Floats]:
    """Return the cross products of pairs of tiles over some rows, added to those before."""
    raw = dict(zip(layers, rows, strict=True))
    made: dict[tuple[Tile, Any], Floats] = {}
    out = []
    for number, (left, right, dtype) in enumerate(pairs):
        for tile in (left, right):
            if (tile, dtype) not in made:
                made[tile, dtype] = assembled(tile, raw.__getitem__, centres, dtype)
        product = made[left, dtype].T @ made[right, dtype]
        # In float64; not in place, because Dask may compute from the earlier sum again.
        before = 0.0 if total is None else total[number]
        out.append(np.add(before, product, dtype=np.float64))
    return out


def _lists_together(one: list[Floats], other: list[Floats]) -> list[Floats]:
    return [a + b for a, b in zip(one, other, strict=True)]


def _squares(total: list[Floats], pairs: Sequence[Pair]) -> list[Floats]:
    return [
        squared_by_panel(products.copy(), pair.left, pair.right)
        for products, pair in zip(total, pairs, strict=True)
    ]


def _of_grams(form: GramBlocks, work: DaskWork, memory: int) -> list[Batch]:
    itemsize, rows = form.layers[0].dtype.itemsize, form.rows
    panel = 2 * rows * sum(layer.p for layer in form.layers) * itemsize
    sent = 8 * rows * len(form.layers)
    many = max(1, min(MOST_BLOCKS, memory // 4 // panel, SENT // sent))
    squares: dict[tuple[int, int], list[int]] = {}
    for task, (i, j) in enumerate(form.tasks):
        squares.setdefault((i // many, j // many), []).append(task)
    return [
        (len(tasks), functools.partial(_run_grams, form, work, tasks)) for tasks in squares.values()
    ]


def _run_grams(form: GramBlocks, work: DaskWork, tasks: Sequence[int]) -> None:
    """Add a square of blocks of all Grams; each block of rows is read once for the square."""
    pairs = [form.tasks[task] for task in tasks]
    layers, scales = work.literal(form.layers), work.literal(form.scales)
    panels = {
        block: work.call(
            _panel, layers, *[work.rows((source, form.blocks[block])) for source in form.sources]
        )
        for block in sorted({block for pair in pairs for block in pair})
    }
    means = {block: form.side(block).means for block in panels}
    sides = {
        block: (block, (form.blocks[block].start, form.blocks[block].stop), panels[block],
                work.literal(means[block]))
        for block in panels
    }  # fmt: skip
    rows = []
    for _, group in itertools.groupby(pairs, key=lambda pair: pair[0]):
        found = [
            work.call(_gram_sums, layers, form.lx, form.unbiased, scales, *sides[i], *sides[j])
            for i, j in group
        ]
        rows.append(in_tree(work, GramSums.plus, found))
    (total,) = work.values([in_tree(work, GramSums.plus, rows)])
    form.add(total)


def _panel(layers: Sequence[LayerKernel], *rows: Floats) -> list[Rows]:
    """Return the prepared rows of all layers."""
    return [layer.prepared(raw) for layer, raw in zip(layers, rows, strict=True)]


def _gram_sums(
    layers: Sequence[LayerKernel], lx: int, unbiased: bool, scales: Floats, *sides: Any
) -> GramSums:
    a, b = (
        Side(number, slice(*part), panel.__getitem__, means)
        for number, part, panel, means in (sides[:4], sides[4:])
    )
    return gram_sums(layers, lx, unbiased, scales, a, b)
