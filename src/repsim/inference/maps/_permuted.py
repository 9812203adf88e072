"""Chance and standard errors of a map of pairs, with one draw of samples for all of its layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from array_api_compat import device

from repsim.arrays import Groups, Indices, accumulator_dtype, resolve_groups
from repsim.inference._draws import half, moments, moments_of_defined, random_order, resolve_seed
from repsim.inference._null_moments import item_moments
from repsim.inference._rearranged import (
    Fixed,
    has_moments,
    root_of_itself,
    slack_of,
    uses_features,
)
from repsim.inference._subsample import check_halves, factor_of_halves, of_rows, scale_of_halves
from repsim.measures import KernelItem
from repsim.measures.pairs import PairItems, Rows, Values, to_host

__all__ = ["Moved", "RearrangedMap", "chance_of_map", "errors_of_map", "orders_of"]


Moved: TypeAlias = dict[tuple[Rows, Any, bool], Any]
"""Items in one order of the samples."""


UNKNOWN = object()


class RearrangedMap:
    """The values of all pairs with the samples of y in another order, the same for all layers.

    The item of a layer of y is rearranged once for an order, not once for each layer of x.

    Parameters
    ----------
    items : PairItems
        The measure, and the items in the order of the samples.
    xs, ys : sequence of Rows
        Arrays of the same samples.
    """

    def __init__(self, items: PairItems, xs: Sequence[Rows], ys: Sequence[Rows]) -> None:
        self._items, self._xs, self._ys = items, xs, ys
        self._fixed: dict[tuple[Rows, Any, bool], Fixed] = {}
        self._with_all: Any = UNKNOWN

    def values(self, order: Indices, moved: Moved | None = None) -> Values:
        """Return the measure of every pair, (len(xs), len(ys)), for one order of y's samples.

        ``moved`` keeps the items of y in this order for other maps that compare them too.
        """
        moved = {} if moved is None else moved
        if (all_x := self._all_x()) is not None:
            return np.stack([self._column(all_x, y, order, moved) for y in self._ys], axis=1)
        return self._pairs(self._ys, order, moved)

    def _column(self, all_x: Any, y: Rows, order: Indices, moved: Moved) -> Values:
        """Return the values of one layer of y with all layers of x."""
        dtype = self._items.dtype_of(self._xs[0], y)
        key = y, dtype, False
        if key not in moved:
            moved[key] = self._moved(y, self._items.item(y, dtype), dtype, order, False)
        found = all_x(moved[key])
        return self._pairs([y], order, moved)[:, 0] if found is None else np.asarray(found)

    def _all_x(self) -> Any:
        """Return the function that compares an item with all layers of x, if there is one."""
        if self._with_all is UNKNOWN:
            self._with_all = None
            make, items = self._items.measure.compare_with_all, self._items
            dtypes = {items.dtype_of(x, y) for x in self._xs for y in self._ys}
            if make is not None and len(dtypes) == 1:
                dtype = items.dtype_of(self._xs[0], self._ys[0])
                self._with_all = make([items.item(x, dtype) for x in self._xs], **items.settings)
        return self._with_all

    def _pairs(self, ys: Sequence[Rows], order: Indices, moved: Moved) -> Values:
        """Return the values of all pairs, compared one by one."""
        items, out = self._items, []
        for x in self._xs:
            for y in ys:
                dtype = items.dtype_of(x, y)
                item_x, item_y, features = items.item(x, dtype), items.item(y, dtype), False
                if isinstance(item_x, KernelItem):
                    features = uses_features(item_x, item_y)
                    item_x = self._of_x((x, dtype, features), item_x)
                key = y, dtype, features
                if key not in moved:
                    moved[key] = self._moved(y, item_y, dtype, order, features)
                out.append(items.measure.compare(item_x, moved[key], **items.settings))
        return np.reshape(to_host(out), (len(self._xs), len(ys)))

    def slack(self, values: Values) -> Values:
        """Return how far the order of the sums alone can change each value.

        As for a single pair, it is relative to the value and to what it is by chance, to the range,
        or to the values of the arrays with themselves. It is infinite where every order has the
        value zero and rounding alone is left (unbiased HSIC).
        """
        items = self._items
        low, high = items.measure.range
        magnitude: Any = np.abs(np.asarray(values))
        first = items.item(self._xs[0], items.dtype_of(self._xs[0], self._ys[0]))
        if np.isfinite(high - low):
            size = np.full_like(magnitude, high - low)
        elif np.isfinite(high):
            size = high + magnitude
        elif isinstance(first, KernelItem):
            units = [[self._size(each) for each in side] for side in (self._xs, self._ys)]
            size = np.outer(units[0], units[1])
            size = np.where(size > 0, size, np.inf)
        else:
            size = magnitude
        wide, near = 0.0, None
        if has_moments(items.measure, first):
            sums = accumulator_dtype(items.xp, first.form(uses_features(first, first))[0])
            wide = float(items.xp.finfo(sums).eps)
            near = magnitude + (1.0 if np.isfinite(high) else size) * self._by_chance()
        eps = [
            [float(items.xp.finfo(items.dtype_of(x, y)).eps) for y in self._ys] for x in self._xs
        ]
        slack: Values = slack_of(np.asarray(eps), size, wide, near)
        return slack

    def _by_chance(self) -> Values:
        """Return mean and deviation of every CKA over all orders, added; 1 for a constant."""
        items, out = self._items, []
        for x in self._xs:
            for y in self._ys:
                dtype = items.dtype_of(x, y)
                item_x, item_y = items.item(x, dtype), items.item(y, dtype)
                features = uses_features(item_x, item_y)
                if item_x.vanishes(features) or item_y.vanishes(features):
                    out.append(1.0)
                    continue
                moments = item_moments(item_x, item_y, features=features)
                out.append(abs(float(moments.mean)) + float(moments.variance) ** 0.5)
        return np.reshape(out, (len(self._xs), len(self._ys)))

    def _size(self, rows: Rows) -> float:
        """Return √f(x, x) of a kernel measure, exactly zero where rounding alone is left."""
        items = self._items
        item = items.item(rows, items.dtype_of(rows, rows))
        features = item.from_features(item, self_products=False)
        if item.vanishes(features):
            return 0.0
        return float(root_of_itself(items.measure, item, features, items.settings))

    def _of_x(self, key: tuple[Rows, Any, bool], item: KernelItem) -> Fixed:
        if key not in self._fixed:
            self._fixed[key] = Fixed(item, key[2])
        return self._fixed[key]

    def _moved(self, y: Rows, item: Any, dtype: Any, order: Indices, features: bool) -> Any:
        if isinstance(item, KernelItem):
            like = item.form(features)[0]
            return Fixed(item, features, item.xp.asarray(order, device=device(like)))
        moved = self._items.measure.reordered(item, order)
        if moved is not None:
            return moved
        return self._items.prepare(y, self._items.taken(y, order), dtype)


def orders_of(operation: str, n: int, permutations: int, groups: Any, seed: Any) -> list[Indices]:
    """Return random orders of n samples; with groups, whole groups move.

    Parameters
    ----------
    operation : str
        The caller, for errors.
    n, permutations : int
        The samples, and how many orders.
    groups, seed
        As in :func:`repsim.permutation_test`, which draws the same orders from the same seed.
    """
    whole = resolve_groups(operation, groups, n)
    places = None if whole is None else whole.same_size(operation)
    rng = resolve_seed(operation, seed)
    return [random_order(rng, n, places) for _ in range(permutations)]


def chance_of_map(
    items: PairItems,
    xs: Sequence[Rows],
    ys: Sequence[Rows],
    values: Values,
    orders: Sequence[Indices],
) -> tuple[dict[str, Values], Values]:
    """Return the mean by chance, z and p-values of every pair, alone and among all (max-T).

    Parameters
    ----------
    items : PairItems
        The measure and its items.
    xs, ys : sequence of Rows
        The arrays.
    values : array, shape (len(xs), len(ys))
        The measure of each pair; pairs that are NaN stay NaN.
    orders : sequence of arrays
        The orders of y's samples, from :func:`orders_of`.

    Returns
    -------
    dict
        ``chance``, ``z``, ``p_value``, ``p_adjusted``, each (len(xs), len(ys)). z counts the
        standard deviations by which a pair is more alike than by chance, also for a dissimilarity.
        Mean and deviation are over the permuted maps and the map itself, so that all of them are
        treated alike and the test is exact. They leave out orders for which a pair has no value.
        Such an order counts against this pair.
    array, shape (len(orders),)
        The greatest z of each permuted map.
    """
    defined = ~np.isnan(values)
    rows, columns = np.flatnonzero(defined.any(axis=1)), np.flatnonzero(defined.any(axis=0))
    out = {name: np.full(values.shape, np.nan) for name in ("chance", "z", "p_value", "p_adjusted")}
    if not rows.size:
        return out, np.full(len(orders), np.nan)
    place = np.ix_(rows, columns)
    used = RearrangedMap(items, [xs[int(i)] for i in rows], [ys[int(j)] for j in columns])
    sign = 1.0 if items.measure.similarity else -1.0
    observed = sign * values[place]
    null = np.stack([sign * used.values(order) for order in orders])
    slack = used.slack(values[place])
    both = np.concatenate([observed[None], null])
    mean, sd = moments_of_defined(both, ddof=0)
    with np.errstate(divide="ignore", invalid="ignore"):  # all permuted maps may be equal: NaN
        z, permuted = (observed - mean) / sd, (null - mean) / sd
        near = slack / sd
    # Values that differ by rounding alone have no deviation: their z would be that of rounding.
    varies = np.isfinite(z) & (np.fmax.reduce(both) - np.fmin.reduce(both) > slack)
    counts = np.isfinite(permuted) & varies
    greatest = np.max(permuted, axis=(1, 2), where=counts, initial=-np.inf)
    more = len(null) + 1
    # An order without a value is no evidence, so it counts as similar.
    p_value = (1 + (~(null < observed - slack)).sum(axis=0)) / more
    reached = (greatest[:, None, None] >= z - near) | np.isnan(null)
    p_adjusted = (1 + reached.sum(axis=0)) / more
    found = {
        "chance": sign * moments_of_defined(null, ddof=0)[0],
        "z": np.where(varies, z, np.nan),
        "p_value": p_value,
        # Without any variation every permuted value is that of the data.
        "p_adjusted": np.where(varies, p_adjusted, 1.0),
    }
    for name, array in found.items():
        out[name][place] = np.where(defined[place], array, np.nan)
    return out, np.where(np.isfinite(greatest), greatest, np.nan)


def errors_of_map(
    items: PairItems,
    xs: Sequence[Rows],
    ys: Sequence[Rows],
    values: Values,
    n: int,
    *,
    draws: int,
    groups: Any,
    seed: Any,
) -> Values:
    """Return the standard error of every pair from random halves, which all layers share.

    Parameters
    ----------
    items, xs, ys, values
        As in :func:`chance_of_map`.
    n, draws : int
        The samples, and how many halves of them.
    groups, seed
        As in :func:`repsim.inference.subsample`, which draws the same halves from the same seed.
    """
    operation = items.operation
    whole = resolve_groups(operation, groups, n)
    check_halves(operation, n, whole, *items.measure.fewest(**items.settings))
    rng = resolve_seed(operation, seed)
    defined = ~np.isnan(values)
    pairs = [(x, y) for i, x in enumerate(xs) for j, y in enumerate(ys) if defined[i, j]]
    out = np.full(values.shape, np.nan)
    if pairs:
        halves = [half(rng, n, whole) for _ in range(draws)]
        drawn = np.stack([_of_rows(items, pairs, rows, whole) for rows in halves])
        drawn *= scale_of_halves(items.measure, n, halves)[:, None]
        out[defined] = factor_of_halves(n, whole) * moments(drawn, ddof=1)[1]
    return out


def _of_rows(
    items: PairItems, pairs: Sequence[tuple[Rows, Rows]], rows: Indices, groups: Groups | None
) -> Values:
    """Return the measure of each pair on some of the samples."""
    measure, settings = items.measure, of_rows(items.settings, groups, rows)
    some = PairItems(items.operation, items.xp, measure, settings)
    made: dict[tuple[Rows, Any], Any] = {}

    def item(each: Rows, dtype: Any) -> Any:
        key = each, dtype
        if key not in made:
            made[key] = some.prepare(each, some.taken(each, rows), dtype)
        return made[key]

    out = []
    for x, y in pairs:
        dtype = some.dtype_of(x, y)
        out.append(measure.compare(item(x, dtype), item(y, dtype), **settings))
    return to_host(out)
