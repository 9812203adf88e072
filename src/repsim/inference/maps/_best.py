"""The greatest similarity of a map of layers, and what it is by chance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from repsim.arrays import Indices
from repsim.inference._chance import ends_at_one, score_above
from repsim.inference._draws import moments_of_defined
from repsim.inference.maps._permuted import Moved, RearrangedMap
from repsim.measures import Measure
from repsim.measures.pairs import PairItems, Rows, Values

__all__ = ["Best", "ChanceOfBest", "best_of", "chance_of_best"]


class Best(NamedTuple):
    """The pair of layers that is most alike; of equal ones the first."""

    value: float
    x: int
    y: int


class ChanceOfBest(NamedTuple):
    """The greatest similarity of permuted maps, beside that of the data.

    Attributes
    ----------
    mean : float
        Mean over the permuted maps that have a value.
    p_value : float
        (b+1)/(m+1), b the permuted maps whose best pair is at least as alike.
    threshold : float
        The value that chance exceeds with probability at most alpha.
    score : float
        How far the value lies above the threshold, from 0 to 1; NaN if the measure does not end
        at 1.
    """

    mean: float
    p_value: float
    threshold: float
    score: float


def best_of(measure: Measure, values: Values) -> Best | None:
    """Return the pair of layers that is most alike; None if no pair is defined."""
    if np.isnan(values).all():
        return None
    at = np.nanargmax(values) if measure.similarity else np.nanargmin(values)
    x, y = np.unravel_index(int(at), values.shape)
    return Best(float(values[x, y]), int(x), int(y))


def chance_of_best(
    items: PairItems,
    maps: Mapping[tuple[str, str], Values],
    layers: Mapping[str, Sequence[Rows]],
    orders: Iterable[Indices],
    rank: int,
) -> dict[tuple[str, str], ChanceOfBest]:
    """Return what the best pair of layers of every two models is by chance.

    The samples of the second model are permuted, in one order for all of its layers, and the best
    pair is chosen again. The choice is therefore part of what is calibrated.

    Parameters
    ----------
    items : PairItems
        The measure and its items.
    maps : mapping of (str, str) to array
        The map of layers of every two models. Pairs of layers that are NaN do not count, in the
        data and in each order alike; pairs that are NaN in the data may have a value in an order.
    layers : mapping of str to sequence of Rows
        The layers of each model.
    orders : iterable of arrays
        Orders of the samples.
    rank : int
        That of the threshold among the permuted values and that of the data, from 1.
    """
    sign = 1.0 if items.measure.similarity else -1.0
    used: dict[tuple[str, str], tuple[RearrangedMap, Values]] = {}
    for (a, b), values in maps.items():
        # Layers without any value would warn again for every order.
        rows = np.flatnonzero(~np.isnan(values).all(axis=1))
        columns = np.flatnonzero(~np.isnan(values).all(axis=0))
        if rows.size:
            xs, ys = [layers[a][int(i)] for i in rows], [layers[b][int(j)] for j in columns]
            used[a, b] = RearrangedMap(items, xs, ys), values[np.ix_(rows, columns)]
    null: dict[tuple[str, str], list[float]] = {pair: [] for pair in used}
    for order in orders:
        moved: Moved = {}  # a layer is moved once, for all models that it is compared with
        for pair, (rearranged, _) in used.items():
            permuted = sign * rearranged.values(order, moved)
            known = ~np.isnan(permuted)
            greatest = float(np.max(permuted, where=known, initial=-np.inf))
            null[pair].append(greatest if known.any() else math.nan)
    found = dict.fromkeys(maps, ChanceOfBest(math.nan, math.nan, math.nan, math.nan))
    for pair, (rearranged, values) in used.items():
        all_slack = rearranged.slack(values)
        # Pairs that are zero in every order do not decide which pair is the best.
        slack = float(np.max(all_slack, where=np.isfinite(all_slack), initial=0.0))
        value = float(np.nanmax(sign * values))
        found[pair] = _chance(items.measure, value, np.asarray(null[pair]), slack, rank)
    return found


def _chance(measure: Measure, value: float, null: Values, slack: float, rank: int) -> ChanceOfBest:
    """Return the chance of one value; value and null are signed so that larger is more alike."""
    sign = 1.0 if measure.similarity else -1.0
    # An order without a value is no evidence, so it counts as similar.
    exceedances = int((~(null < value - slack)).sum())
    p_value = (1 + exceedances) / (len(null) + 1)
    threshold, score = score_above(value, null, exceedances, rank)
    score = score if ends_at_one(measure) else math.nan
    return ChanceOfBest(
        sign * float(moments_of_defined(null, ddof=0)[0]), p_value, sign * threshold, score
    )
