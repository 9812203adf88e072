"""Choice of the cheaper form, and of the size of its blocks, from shapes and memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from repsim._errors import InputError
from repsim.streaming.exact._sources import Source

__all__ = ["Plan", "make_plan", "reading_rows"]

BLOCK = 1024
"""Rows of a block of a Gram. Larger blocks were not faster, and their memory grows with the
square."""

WIDTH = 2048
"""Columns of a tile of features: matrix products run at full speed, and a task takes seconds."""

TASK = 1e13
"""The most multiplications of a task, so a state can be saved every few minutes."""

ENTRY = 200
"""Cost of passing an entry of a Gram through memory, in multiplications of a product."""

TASKS = 3
"""Tasks for each rank, at least; more would read the layers more often. Four times as many blocks
of a Gram, which are cheaper."""

LEAST_WIDTH, LEAST_ROWS = 256, 128
"""Tiles and blocks are not made smaller than this for more ranks to have one."""


@dataclass(frozen=True)
class Plan:
    """Form of the computation and size of its blocks; part of the fingerprint of a checkpoint.

    ``rows`` is the number of rows read at a time, and the side of a block of a Gram. ``width`` is
    the number of columns of a tile of features.
    """

    form: Literal["features", "grams"]
    rows: int
    width: int


def make_plan(
    operation: str,
    xs: Sequence[Source],
    ys: Sequence[Source] | None,
    *,
    linear: bool,
    itemsize: int,
    memory: int,
    block_size: int | None,
    ranks: int = 1,
    together: bool = False,
) -> Plan:
    """Choose features or Grams by multiplications, then blocks by bytes.

    Blocks are smaller if ``ranks`` processes share them. With ``together`` the rows of all layers
    are in memory at the same time, and not those of one layer.

    Features: Σ p_i p_j n over the pairs and the self-products. Grams: half of n² for each feature,
    and n² L_x L_y for the products.
    """
    n, layers = xs[0].n, [*xs, *(ys or [])]
    columns = sum(s.p for s in layers)
    if ys is None:
        pairs, crossed = columns**2 / 2, len(xs) ** 2 / 2
    else:
        pairs = sum(s.p for s in xs) * sum(s.p for s in ys) + sum(s.p**2 for s in layers) / 2
        crossed = len(xs) * len(ys)
    if linear and pairs < n / 2 * (columns + ENTRY * len(layers) + crossed):
        plan = _features(operation, layers, itemsize, memory, block_size, ranks)
    else:
        plan = _grams(operation, layers, itemsize, memory, block_size, ranks)
    if together and block_size is None:
        # As read and prepared, on two workers, and as much again for the next blocks.
        row = 4 * columns * (8 + itemsize)
        _require(operation, memory, row, memory // row, row)
        plan = replace(plan, rows=max(1, min(plan.rows, memory // row)))
    return plan


def _features(
    operation: str,
    layers: Sequence[Source],
    itemsize: int,
    memory: int,
    block_size: int | None,
    ranks: int,
) -> Plan:
    n, columns = layers[0].n, sum(s.p for s in layers)
    # A sum in float64, a product to be added to it, and its squares.
    width = min(columns, WIDTH, int(math.sqrt(TASK / n)), int(math.sqrt(memory / 2 / 24)))
    if ranks > 1:  # w tiles make w(w + 1)/2 tasks
        shared = math.ceil(columns / math.ceil(math.sqrt(2 * TASKS * ranks)))
        width = min(width, max(LEAST_WIDTH, shared))
    row = 2 * width * itemsize + 2 * reading_bytes(layers, itemsize)
    rows = min(n, 2 * BLOCK, int(memory / 2 / row)) if block_size is None else min(n, block_size)
    _require(operation, memory, width * width * 24 + rows * row, min(rows, width), 4 * row)
    return Plan("features", rows, width)


def _grams(
    operation: str,
    layers: Sequence[Source],
    itemsize: int,
    memory: int,
    block_size: int | None,
    ranks: int,
) -> Plan:
    n = layers[0].n
    # Grams of all layers, four of one layer while it is made; two blocks of rows of a layer, read
    # and prepared.
    square = (len(layers) + 4) * itemsize
    row = 2 * reading_bytes(layers, itemsize) + 2 * 8 * 2
    fitting = int((math.sqrt(row * row + 4.0 * square * 0.8 * memory) - row) / (2 * square))
    most = BLOCK
    if ranks > 1:
        most = min(BLOCK, max(LEAST_ROWS, math.ceil(n / math.ceil(math.sqrt(8 * TASKS * ranks)))))
    rows = min(n, most, fitting) if block_size is None else min(n, block_size)
    _require(operation, memory, square * rows * rows + row * rows, rows, 4 * row + 16 * square)
    return Plan("grams", rows, 0)


def reading_bytes(layers: Sequence[Source], itemsize: int) -> int:
    """Bytes of one row of the widest layer, as read and after centring."""
    return max(s.p for s in layers) * (8 + 2 * itemsize)


def reading_rows(layers: Sequence[Source], memory: int) -> int:
    """Rows of one layer that are scanned together, in float64."""
    return max(1, min(layers[0].n, 4096, memory // 4 // (max(s.p for s in layers) * 24)))


def _require(operation: str, memory: int, needed: int, size: int, least: int) -> None:
    if size < 1 or needed > memory:
        raise InputError(
            f"{operation}: memory is too small for "
            f"{'a block' if size < 1 else 'blocks of this size'}.\n"
            f"  memory={memory} bytes, needed {max(needed, least)}\n"
            f"  Give more memory{'' if size < 1 else ', or a smaller block_size'}."
        )
