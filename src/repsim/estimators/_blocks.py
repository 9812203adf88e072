"""Linear HSIC of two representations that are compared once, in blocks without an n×n matrix."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from repsim._typing import Array, Namespace
from repsim.arrays import accumulator_dtype, host_numbers, known
from repsim.estimators._centred import CentredRows, Workspace, row_parts, sum_of_products
from repsim.estimators._centring import off_diagonal
from repsim.estimators._correction import above_rounding, unbiased_product
from repsim.estimators._estimator import Estimator
from repsim.estimators._products import Products

__all__ = ["BlockSizes", "block_products", "blocks_of_features"]

PANELS = 1.1
"""Time of a multiplication of panels relative to one of blocks of rows.

Measured with NumPy for n = 4000: both forms take equally long at p = q = 1800, 0.45 of n.
"""

KEPT = 0.1
"""Least share of ‖XᵀX‖² after the unbiased correction; below it, float64 is used."""

ROWS = 2048
"""Rows of a block for products of features on a CPU: the sums of products are read less often.

Measured with NumPy on one core for 10 000 × 768: 1.12 times the bare products, and 1.19 with 1024.
"""


NUMBERS = 1 << 20
"""Numbers in a block of few features, which then has more rows.

Measured with NumPy on two cores for 10 000 × 256: 1.03 times the bare products, and 1.07 with 2048
rows.
"""


class BlockSizes(NamedTuple):
    """How much is computed at a time; the value does not depend on it.

    Parameters
    ----------
    rows : int, optional
        Rows of a block, by default as many as suit the device.
    panel : int
        Columns of features in one product; mirrored products are computed once.
    group : int
        Columns whose products with all columns are in memory at a time.
    """

    rows: int | None = None
    panel: int = 1024
    group: int = 2048


SIZES = BlockSizes()


Sides = tuple[CentredRows, CentredRows]


class _Panel(NamedTuple):
    side: int
    columns: slice


def blocks_of_features(n: int, p: int, q: int, *, self_products: bool) -> bool:
    """Whether cross products of features are cheaper than blocks of Grams, both without mirrors.

    n (p + q)²/2 multiplications, or n p q without self-products, against n² (p + q)/2.
    """
    cross = (p + q) ** 2 / 2 if self_products else p * q
    return PANELS * cross < n / 2 * (p + q)


def block_products(
    xp: Namespace,
    x: Array,
    y: Array,
    estimator: Estimator,
    *,
    self_products: bool,
    features: bool | None = None,
    sizes: BlockSizes = SIZES,
) -> tuple[Products, float]:
    """Return the scaled inner products of two representations, and the scale of ``xy``.

    With X, Y centred, a_i = ‖x_i‖², b_i = ‖y_i‖², K = XXᵀ and L = YYᵀ::

        biased    ⟨A, B⟩ = ‖XᵀY‖²_F = Σ_ij K_ij L_ij
        unbiased  ⟨A, B⟩ = ‖XᵀY‖²_F − n/(n−2) Σ a_i b_i + Σa Σb/((n−1)(n−2))
                         = Σ_i≠j A_ij B_ij,   A_ij = K_ij + u_i + u_j,
                           u_i = a_i/(n−2) − Σa/(2(n−1)(n−2))

    because the rows of K sum to zero, and to −a_i without the diagonal.

    Parameters
    ----------
    xp : namespace
        NumPy or torch.
    x, y : array, shapes (n, p) and (n, q)
        Features, not centred, of one dtype.
    estimator : Estimator
        Biased or unbiased.
    self_products : bool
        Compute ``xx`` and ``yy`` too; otherwise they are copies of ``xy`` without meaning.
    features : bool, optional
        Compute cross products of features, or blocks of Grams; by default the cheaper form.
    sizes : BlockSizes
        How much is computed at a time.

    Returns
    -------
    products : Products
        ⟨A, B⟩, ⟨A, A⟩ and ⟨B, B⟩, divided by powers of two. Those of tensors in main memory are
        numbers of NumPy.
    scale : float
        The divisor of ``products.xy``.
    """
    if xp is not np and (on_host := _on_host(x, y)) is not None:
        xp, (x, y) = np, on_host
    n, p, q = x.shape[0], x.shape[1], y.shape[1]
    unbiased = estimator.name == "unbiased"
    if features is None:
        features = blocks_of_features(n, p, q, self_products=self_products)
    sides, space = _sides(xp, x, y, x.dtype, features, sizes)
    if not features:
        products = _from_grams(sides, unbiased, self_products, space)
    else:
        products, enough = _from_features(sides, unbiased, self_products, sizes)
        wide = accumulator_dtype(xp, x)
        if not enough and x.dtype != wide:
            # If few samples are far from all others, the terms cancel.
            sides, _ = _sides(xp, x, y, wide, features, sizes)
            products, _ = _from_features(sides, unbiased, self_products, sizes)
    products = products._replace(traces=(sides[0].trace(), sides[1].trace()))
    scale = sides[0].scale * sides[1].scale
    return products, scale * scale  # infinite beyond float64, where ** raises


def _sides(
    xp: Namespace, x: Array, y: Array, dtype: Any, features: bool, sizes: BlockSizes
) -> tuple[Sides, list[Any]]:
    """Return both sides by blocks of the same rows, and memory for a block of each Gram."""
    widest = max(x, y, key=lambda z: z.shape[1])
    most = max(ROWS, NUMBERS // widest.shape[1]) if features and xp is np else None
    parts = row_parts(widest, sizes.rows or most)
    if xp is not np:
        return (CentredRows(xp, x, dtype, parts, []), CentredRows(xp, y, dtype, parts, [])), []
    height = max(part.stop - part.start for part in parts)
    # A block of a Gram needs its rows and its columns.
    buffers = 1 if features or len(parts) == 1 else 2
    widths = x.shape[1], y.shape[1]
    grams = 0 if features else 2
    space = Workspace(height * (buffers * sum(widths) + grams * height), dtype)
    left, right = (
        CentredRows(xp, z, dtype, parts, [space.take(height * z.shape[1]) for _ in range(buffers)])
        for z in (x, y)
    )
    return (left, right), [space.take(height * height) for _ in range(grams)]


def _on_host(x: Array, y: Array) -> tuple[Any, Any] | None:
    """Return views of tensors in main memory, where NumPy is faster.

    NumPy multiplies a matrix by its own transpose with half of the operations (syrk of BLAS).
    """
    a, b = host_numbers(x), host_numbers(y)
    return None if a is None or b is None else (a, b)


def _from_features(
    sides: Sides, unbiased: bool, self_products: bool, sizes: BlockSizes
) -> tuple[Products, bool]:
    """Return the products, and whether each is large enough relative to its terms."""
    xp, n = sides[0].xp, sides[0].n
    totals, squares = _crossed(sides, self_products, unbiased, sizes)
    if not self_products:
        totals = {(0, 1): totals[0, 1]} | {(s, s): totals[0, 1] for s in (0, 1)}
    if not unbiased:
        return Products(totals[0, 1], totals[0, 0], totals[1, 1]), True
    left, enough = {}, True
    for i, j in totals:
        total, crossed = totals[i, j], xp.sum(squares[i] * squares[j])
        out = unbiased_product(n, total, crossed, xp.sum(squares[i]), xp.sum(squares[j]))
        if i == j and self_products:
            enough = enough and known(out > KEPT * total) is True
            # Not (Σa)², which would be too large a bound for 10⁵ features of one size in float32.
            out = above_rounding(xp, out, total + crossed, sides[i].dtype)
        left[i, j] = out
    return Products(left[0, 1], left[0, 0], left[1, 1]), enough


def _crossed(
    sides: Sides, self_products: bool, with_squares: bool, sizes: BlockSizes
) -> tuple[dict[tuple[int, int], Array], list[Array]]:
    """Return ‖XᵀY‖²_F, and ‖XᵀX‖²_F and ‖YᵀY‖²_F if requested; and all ‖x_i‖² and ‖y_i‖²."""
    xp = sides[0].xp
    panels = [
        _Panel(side, slice(start, min(start + sizes.panel, rows.p)))
        for side, rows in enumerate(sides)
        for start in range(0, rows.p, sizes.panel)
    ]
    out: dict[tuple[int, int], Array] = {}
    squares: dict[int, list[Array]] = {}
    for group in _groups(panels, sizes.group):
        pairs = [
            (i, j)
            for i in group
            for j in range(i, len(panels))
            if self_products or panels[i].side != panels[j].side
        ]
        needed = sorted({k for pair in pairs for k in pair})
        new = [k for k in needed if with_squares and k not in squares]
        squares |= {k: [] for k in new}
        found: dict[tuple[int, int], Array] = {}
        for part in sides[0].parts:
            blocks = {k: sides[panels[k].side](part, panels[k].columns) for k in needed}
            for k in new:
                squares[k].append(xp.linalg.vecdot(blocks[k], blocks[k]))
            for i, j in pairs:
                product = xp.matrix_transpose(blocks[i]) @ blocks[j]
                if (i, j) in found:
                    found[i, j] += product
                else:
                    found[i, j] = product
        for (i, j), total in found.items():
            key = panels[i].side, panels[j].side
            mirrored = key[0] == key[1] and i != j
            square = sum_of_products(xp, total, total) * (2 if mirrored else 1)
            out[key] = out[key] + square if key in out else square
    if not with_squares:
        return out, []
    return out, [_of_side(sides, panels, squares, side) for side in (0, 1)]


def _of_side(
    sides: Sides, panels: list[_Panel], squares: dict[int, list[Array]], side: int
) -> Array:
    """Return ‖x_i‖² of every row, (n,), from those of its panels and blocks."""
    xp = sides[side].xp
    dtype = accumulator_dtype(xp, squares[0][0])
    wide = [
        xp.astype(xp.concat(found), dtype, copy=False)
        for k, found in squares.items()
        if panels[k].side == side
    ]
    out: Array = functools.reduce(operator.add, wide)
    return out


def _groups(panels: list[_Panel], most: int) -> Iterator[range]:
    """Cut the list of panels into runs of at most ``most`` columns."""
    start = width = 0
    for index, panel in enumerate(panels):
        own = panel.columns.stop - panel.columns.start
        if width + own > most:
            yield range(start, index)
            start, width = index, 0
        width += own
    yield range(start, len(panels))


def _from_grams(sides: Sides, unbiased: bool, self_products: bool, space: list[Any]) -> Products:
    xp, n, parts = sides[0].xp, sides[0].n, sides[0].parts
    offsets = [_offsets(side) if unbiased else None for side in sides]
    sums: list[Any] = [0.0, 0.0, 0.0]
    for i, rows in enumerate(parts):
        left = [side(rows) for side in sides]
        for j in range(i, len(parts)):
            grams = []
            for index, (side, block, offset) in enumerate(zip(sides, left, offsets, strict=True)):
                right = block if i == j else side(parts[j], buffer=1)
                gram = _gram(xp, block, right, space[index] if space else None)
                del right
                if offset is not None:
                    gram += offset[rows, None]
                    gram += offset[None, parts[j]]
                    gram = _without_diagonal(xp, gram) if i == j else gram
                grams.append(gram)
            k, l = grams  # noqa: E741
            wanted = ((k, l), (k, k), (l, l)) if self_products else ((k, l),)
            for index, (a, b) in enumerate(wanted):
                # Blocks above the diagonal also represent those below.
                sums[index] = sums[index] + sum_of_products(xp, a, b) * (1 if i == j else 2)
    if not self_products:
        return Products(sums[0], sums[0], sums[0])
    for index, offset in enumerate(offsets):
        if offset is not None:
            sums[1 + index] = _above_offsets(xp, sums[1 + index], offset, n)
    return Products(*sums)


def _gram(xp: Namespace, a: Any, b: Any, space: Any) -> Any:
    """Return a bᵀ, for NumPy in this memory."""
    if space is None:
        return a @ xp.matrix_transpose(b)
    shape = a.shape[0], b.shape[0]
    out = space[: shape[0] * shape[1]].reshape(shape)
    np.matmul(a, b.T, out=out)
    return out


def _without_diagonal(xp: Namespace, gram: Any) -> Any:
    if xp is not np:
        return off_diagonal(xp, gram)
    np.fill_diagonal(gram, 0)
    return gram


def _offsets(side: CentredRows) -> Array:
    """u_i, which U-centring adds to row i and column i of a Gram of centred features."""
    xp, n = side.xp, side.n
    a = side.squares()
    u = a / (n - 2) - xp.sum(a) / (2.0 * (n - 1) * (n - 2))
    out: Array = xp.astype(u, side.dtype, copy=False)
    return out


def _above_offsets(xp: Namespace, total: Array, offset: Array, n: int) -> Array:
    """Return ⟨A, A⟩, or zero if it is the rounding of Grams that equal u_i + u_j everywhere."""
    u = xp.astype(offset, total.dtype, copy=False)
    removed = 2 * n * xp.sum(u * u) + 2 * xp.sum(u) ** 2
    rounding = (16 * float(xp.finfo(offset.dtype).eps)) ** 2 * removed
    out: Array = xp.where(total <= rounding, xp.zeros_like(total), total)
    return out
