"""All layer pairs of the linear kernel from features, in tiles of columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from repsim.estimators import above_rounding, unbiased_product
from repsim.streaming.exact._columns import ColumnStats, scaled_about
from repsim.streaming.exact._sources import Floats, Source, row_slices

__all__ = ["FeatureTiles", "loses_digits"]

SPREAD = 0.9
"""Greatest share of ‖XᵀX‖² that the unbiased estimator may subtract in float32."""


class Panel(NamedTuple):
    """Some columns of one layer."""

    layer: int
    start: int
    stop: int

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.stop - self.start


Tile = tuple[Panel, ...]


class FeatureTiles:
    """‖XᵀY‖² of all layer pairs, summed over tiles of columns.

    ::

        biased     ⟨A, B⟩ = ‖XᵀY‖²
        unbiased   ⟨A, B⟩ = ‖XᵀY‖² − n/(n−2) Σ a_i b_i + Σa Σb/((n−1)(n−2)),   a_i = ‖x_i‖²

    of centred features. Columns of many layers are multiplied together; products of blocks of rows
    are summed in float64.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        stats: Sequence[ColumnStats],
        lx: int,
        *,
        unbiased: bool,
        dtypes: Sequence[np.dtype[np.floating]],
        rows: int,
        width: int,
    ) -> None:
        self.sources, self.stats, self.dtypes = sources, stats, dtypes
        self.n, self.rows, self.unbiased = sources[0].n, rows, unbiased
        x_tiles = _tiles(sources, range(lx), width)
        self.tasks: list[tuple[Tile, Tile]] = []
        if lx == len(sources):
            self.tasks = [(a, b) for i, a in enumerate(x_tiles) for b in x_tiles[i:]]
        else:
            y_tiles = _tiles(sources, range(lx, len(sources)), width)
            self.tasks = [(a, b) for a in x_tiles for b in y_tiles]
            for layer in range(len(sources)):  # and each layer with itself
                own = _tiles(sources, [layer], width)
                self.tasks += [(a, b) for i, a in enumerate(own) for b in own[i:]]
        self.sums = np.zeros((len(sources), len(sources)))

    def start(self, rng: np.random.Generator) -> None:
        """There is nothing to estimate first, because the means of the columns are known."""

    def state(self) -> dict[str, Floats]:
        """Return all sums that tasks add to."""
        return {"sums": self.sums}

    def restore(self, state: dict[str, Floats]) -> None:
        """Restore what ``state`` returned."""
        self.sums = state["sums"]

    def run(self, task: int) -> None:
        """Add the cross products of one pair of tiles."""
        left, right = self.tasks[task]
        dtype = np.result_type(*(self.dtypes[panel.layer] for panel in (*left, *right)))
        total = np.zeros((_width(left), _width(right)))
        for part in row_slices(self.n, self.rows):
            a = self._read(left, part, dtype)
            b = a if right is left else self._read(right, part, dtype)
            total += a.T @ b
        np.square(total, out=total)
        by_panel = np.add.reduceat(total, _starts(left), axis=0)
        by_panel = np.add.reduceat(by_panel, _starts(right), axis=1)
        for i, one in enumerate(left):
            for j, other in enumerate(right):
                self.sums[one.layer, other.layer] += by_panel[i, j]
                if right is not left:
                    self.sums[other.layer, one.layer] += by_panel[i, j]

    def _read(self, tile: Tile, part: slice, dtype: np.dtype[np.floating]) -> Floats:
        out = np.empty((part.stop - part.start, _width(tile)), dtype)
        for start, panel in zip(_starts(tile), tile, strict=True):
            stats, columns = self.stats[panel.layer], slice(panel.start, panel.stop)
            raw = self.sources[panel.layer].raw(part)[:, columns]
            out[:, start : start + panel.width] = scaled_about(
                raw, stats.shift[columns], stats.rest[columns], stats.scale, dtype
            )
        return out

    def traces(self) -> Floats:
        """Return tr(Kc) of every layer, (L,), in the units of ``products``."""
        return np.array([one.squares.sum() for one in self.stats])

    def products(self) -> Floats:
        """Return ⟨A, B⟩ of the centred Grams, (L, L); zero for pairs that were not requested."""
        if not self.unbiased:
            return self.sums
        squares = np.stack([one.squares for one in self.stats])
        traces = squares.sum(axis=1)
        crossed = np.einsum("ai,bi->ab", squares, squares)
        out: Floats = unbiased_product(self.n, self.sums, crossed, traces[:, None], traces)
        selves = above_rounding(np, np.diagonal(out), traces**2, np.float64)
        np.fill_diagonal(out, selves)
        return out


def loses_digits(stats: ColumnStats, p: int) -> bool:
    """Whether Σ a_i² may be most of ‖XᵀX‖², which is at least (Σ a_i)²/p.

    This happens if few samples are far from all others. Products in float32 then lose too many
    digits.
    """
    total = float(stats.squares.sum())
    return float(np.square(stats.squares).sum()) * p > SPREAD * total * total


def _tiles(sources: Sequence[Source], layers: Sequence[int], width: int) -> list[Tile]:
    """Pack the columns of these layers into tiles of at most ``width``; wide layers are cut."""
    tiles: list[list[Panel]] = [[]]
    for panel in _panels(sources, layers, width):
        if _width(tuple(tiles[-1])) + panel.width > width:
            tiles.append([])
        tiles[-1].append(panel)
    return [tuple(tile) for tile in tiles if tile]


def _panels(sources: Sequence[Source], layers: Sequence[int], width: int) -> Iterator[Panel]:
    for layer in layers:
        p = sources[layer].p
        for start in range(0, p, width):
            yield Panel(layer, start, min(start + width, p))


def _width(tile: Tile) -> int:
    return sum(panel.width for panel in tile)


def _starts(tile: Tile) -> list[int]:
    return [0, *np.cumsum([panel.width for panel in tile])[:-1].tolist()]
