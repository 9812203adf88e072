"""All layer pairs of the linear kernel from features, in tiles of columns."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from repsim.estimators import above_rounding, unbiased_product
from repsim.streaming.exact._columns import ColumnStats, scaled_about
from repsim.streaming.exact._sources import Floats, Source, row_slices
from repsim.streaming.exact._work import Work

__all__ = [
    "Centre",
    "FeatureTiles",
    "Tile",
    "assembled",
    "loses_digits",
    "squared_by_panel",
    "width_of",
]

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


class Centre(Protocol):
    """How the columns of a layer are centred and scaled; ColumnStats is one."""

    @property
    def shift(self) -> Floats: ...
    @property
    def rest(self) -> Floats: ...
    @property
    def scale(self) -> float: ...


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

    def costs(self) -> list[float]:
        """Return the relative cost of each task."""
        return [float(width_of(left) * width_of(right)) for left, right in self.tasks]

    def start(self, rng: np.random.Generator, work: Work) -> None:
        """There is nothing to estimate first, because the means of the columns are known."""

    def state(self) -> dict[str, Floats]:
        """Return all sums that tasks add to."""
        return {"sums": self.sums}

    def restore(self, state: dict[str, Floats]) -> None:
        """Restore what ``state`` returned."""
        self.sums = state["sums"]

    def merge(self, gather: Callable[[Floats], list[Floats]]) -> None:
        """Add the sums of all ranks, which ran different tasks."""
        self.sums = functools.reduce(np.add, gather(self.sums))

    def dtype_of(self, task: int) -> np.dtype[np.floating]:
        """Return the dtype in which the products of a pair of tiles are computed."""
        left, right = self.tasks[task]
        return np.result_type(*(self.dtypes[panel.layer] for panel in (*left, *right)))

    def run(self, task: int) -> None:
        """Add the cross products of one pair of tiles."""
        left, right = self.tasks[task]
        dtype = self.dtype_of(task)
        total = np.zeros((width_of(left), width_of(right)))
        for part in row_slices(self.n, self.rows):
            a = self._read(left, part, dtype)
            b = a if right is left else self._read(right, part, dtype)
            total += a.T @ b
        self.add(task, squared_by_panel(total, left, right))

    def add(self, task: int, by_panel: Floats) -> None:
        """Add the squared cross products of the panels of a pair of tiles."""
        left, right = self.tasks[task]
        for i, one in enumerate(left):
            for j, other in enumerate(right):
                self.sums[one.layer, other.layer] += by_panel[i, j]
                if right is not left:
                    self.sums[other.layer, one.layer] += by_panel[i, j]

    def _read(self, tile: Tile, part: slice, dtype: np.dtype[np.floating]) -> Floats:
        return assembled(tile, lambda layer: self.sources[layer].raw(part), self.stats, dtype)

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


def assembled(
    tile: Tile,
    raw: Callable[[int], Floats],
    centres: Mapping[int, Centre] | Sequence[Centre],
    dtype: np.dtype[np.floating],
) -> Floats:
    """Return rows of a tile, (b, width), centred and scaled; ``raw`` returns those of a layer."""
    out: Floats | None = None
    for start, panel in zip(_starts(tile), tile, strict=True):
        centre, columns = centres[panel.layer], slice(panel.start, panel.stop)
        rows = raw(panel.layer)[:, columns]
        if out is None:
            out = np.empty((len(rows), width_of(tile)), dtype)
        out[:, start : start + panel.width] = scaled_about(
            rows, centre.shift[columns], centre.rest[columns], centre.scale, dtype
        )
    assert out is not None  # a tile has a panel
    return out


def squared_by_panel(total: Floats, left: Tile, right: Tile) -> Floats:
    """Return ‖XᵀY‖² of each pair of panels from the cross products of a pair of tiles."""
    np.square(total, out=total)
    by_panel = np.add.reduceat(total, _starts(left), axis=0)
    out: Floats = np.add.reduceat(by_panel, _starts(right), axis=1)
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
        if width_of(tuple(tiles[-1])) + panel.width > width:
            tiles.append([])
        tiles[-1].append(panel)
    return [tuple(tile) for tile in tiles if tile]


def _panels(sources: Sequence[Source], layers: Sequence[int], width: int) -> Iterator[Panel]:
    for layer in layers:
        p = sources[layer].p
        for start in range(0, p, width):
            yield Panel(layer, start, min(start + width, p))


def width_of(tile: Tile) -> int:
    """Return the number of columns of a tile."""
    return sum(panel.width for panel in tile)


def _starts(tile: Tile) -> list[int]:
    return [0, *np.cumsum([panel.width for panel in tile])[:-1].tolist()]
