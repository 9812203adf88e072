"""Pairs of arrays that several ranks compare, or the workers of Dask."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from repsim._distributed import RankGroup
from repsim._errors import RepsimWarning, kept_warnings, warn
from repsim._typing import Array
from repsim.arrays import as_samples, check_finite, dask_package, dask_values
from repsim.measures._registry import MEASURES, Item, Measure
from repsim.measures._resolve import resolve_measure
from repsim.measures.pairs._items import (
    PairItems,
    Rows,
    Values,
    compared_items,
    label_of_pair,
    to_host,
    without_infinite,
)

__all__ = ["pairs_in_dask", "pairs_of_ranks"]

Pair = tuple[int, int]
Kept = list[tuple[str, type[RepsimWarning]]]


class Compared(NamedTuple):
    """What one rank, or one task of Dask, found about a pair."""

    value: float
    floor: float | None
    kept: Kept


def pairs_of_ranks(
    items: PairItems,
    xs: Sequence[Rows],
    ys: Sequence[Rows],
    sizes: tuple[Sequence[int], Sequence[int]],
    ranks: RankGroup,
) -> Values:
    """Return the measure of every pair on every rank; each rank compares its share of them.

    Parameters
    ----------
    items : PairItems
        The measure, and what the warning of chance is given to.
    xs, ys : sequence of Rows
        Both sides.
    sizes : tuple of two sequences of int
        The greatest rank of each array, the smaller of n and p; a pair costs their product.
    ranks : RankGroup
        Those that share the pairs.
    """
    ordered = _in_squares(_needed(items, xs, ys), ranks.size)
    costs = [float(sizes[0][i] * sizes[1][j]) for i, j in ordered]
    own = [ordered[each] for each in ranks.stretch(costs)]
    found, floors = {}, {}
    with kept_warnings() as kept:
        for i, j in own:
            found[i, j], floor = items.compared(xs[i], ys[j])
            if floor is not None:
                floors[i, j] = floor
    values = dict(zip(found, map(float, _host(found)), strict=True))
    known = dict(zip(floors, map(float, _host(floors)), strict=True))
    everyone = ranks.gather((values, known, list(kept)))
    _warn_once([messages for _, _, messages in everyone])
    return _filled(
        items,
        xs,
        ys,
        {pair: value for each, _, _ in everyone for pair, value in each.items()},
        {pair: floor for _, each, _ in everyone for pair, floor in each.items()},
    )


def _host(found: Mapping[Pair, Array]) -> Sequence[float]:
    return to_host(list(found.values())).tolist() if found else []


def pairs_in_dask(
    items: PairItems,
    xs: Sequence[Rows],
    ys: Sequence[Rows],
    arrays: Mapping[str, Any],
    fewest: tuple[int, str],
) -> Values:
    """Return the measure of every pair; items are made and compared by the workers of Dask.

    Parameters
    ----------
    items : PairItems
        The measure, and what the warning of chance is given to.
    xs, ys : sequence of Rows
        Both sides; they are not read.
    arrays : mapping of str to dask.array.Array
        The arrays by their labels.
    fewest : tuple of int and str
        The fewest samples, and what needs them.
    """
    dask = dask_package()
    measure, name = items.measure, items.measure.name
    sent = dask.delayed(name if MEASURES.get(name) is measure else measure, traverse=False)
    settings = dask.delayed(dict(items.settings))  # an option may be a Dask array too
    prepare, compare = dask.delayed(_item), dask.delayed(_compared)
    made: dict[tuple[str, str], Any] = {}

    def item(rows: Rows, dtype: Any) -> Any:
        key = rows.label, str(dtype)
        if key not in made:
            x = arrays[rows.label]
            made[key] = prepare(items.operation, sent, settings, rows.label, fewest, dtype, x)
        return made[key]

    needed = _needed(items, xs, ys)
    asked = []
    for i, j in needed:
        dtype = items.dtype_of(xs[i], ys[j])
        x, y = item(xs[i], dtype), item(ys[j], dtype)
        asked.append(compare(sent, settings, x, y, dtype, x is y))
    kept = [dask.delayed(_kept_of)(each) for each in made.values()]
    computed = dask_values(items.operation, [*kept, *asked])
    pairs = dict(zip(needed, computed[len(kept) :], strict=True))
    _warn_once([*computed[: len(kept)], *(each.kept for each in pairs.values())])
    floors = {pair: each.floor for pair, each in pairs.items() if each.floor is not None}
    return _filled(items, xs, ys, {pair: each.value for pair, each in pairs.items()}, floors)


def _item(
    operation: str,
    measure: str | Measure,
    settings: Mapping[str, Any],
    label: str,
    fewest: tuple[int, str],
    dtype: Any,
    x: Any,
) -> tuple[Item, Kept]:
    least, why = fewest
    checked = as_samples(operation, np, np.asarray(x), label, min_samples=least, why=why)
    check_finite(operation, np, checked, label)
    values = np.asarray(checked, dtype)
    with kept_warnings() as kept:
        item = resolve_measure(operation, measure).prepare(
            operation, values, name=label, **settings
        )
    return item, list(kept)


def _kept_of(made: tuple[Item, Kept]) -> Kept:
    return made[1]


def _compared(
    measure: str | Measure,
    settings: Mapping[str, Any],
    x: tuple[Item, Kept],
    y: tuple[Item, Kept],
    dtype: Any,
    same: bool,
) -> Compared:
    one, other = x[0], x[0] if same else y[0]
    with kept_warnings() as kept:
        found = compared_items(resolve_measure("pairwise", measure), settings, one, other, dtype)
    value, floor = found
    known = None if floor is None else float(to_host([floor])[0])
    return Compared(float(to_host([value])[0]), known, list(kept))


def _needed(items: PairItems, xs: Sequence[Rows], ys: Sequence[Rows]) -> list[Pair]:
    """Return the pairs to be compared: one half if the other follows from it."""
    half = items.mirrored(xs, ys)
    return [(i, j) for i in range(len(xs)) for j in range(len(ys)) if not (half and j < i)]


def _in_squares(pairs: Sequence[Pair], ranks: int) -> list[Pair]:
    """Order pairs so that a share of them needs the items of few arrays."""
    side = max(1, math.ceil(math.sqrt(len(pairs) / ranks)))
    return sorted(pairs, key=lambda pair: (pair[0] // side, pair[1] // side, pair))


def _filled(
    items: PairItems,
    xs: Sequence[Rows],
    ys: Sequence[Rows],
    values: Mapping[Pair, float],
    floors: Mapping[Pair, float],
) -> Values:
    out = np.empty((len(xs), len(ys)))
    half = items.mirrored(xs, ys)
    for (i, j), value in values.items():
        out[i, j] = value
        if half:
            out[j, i] = value
    items.set_floors(
        {
            label_of_pair(xs[i], ys[j]): np.asarray(floors[i, j])
            for i, j in _needed(items, xs, ys)
            if (i, j) in floors
        }
    )
    return without_infinite(items.operation, out)


def _warn_once(kept: Sequence[Kept]) -> None:
    """Issue the warnings of all ranks or tasks, each once."""
    for message, category in dict.fromkeys(each for messages in kept for each in messages):
        warn(message, category)
