"""The items of many arrays, each made once, and the values of all their pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from repsim._errors import DegenerateWarning, warn
from repsim._typing import Array, Namespace
from repsim._version import __version__
from repsim.arrays import (
    accumulator_dtype,
    array_namespace,
    as_samples,
    check_finite,
    row_dtype,
    to_numpy,
)
from repsim.estimators import HIGH_FLOOR, warn_of_chance
from repsim.measures._registry import Item, Measure
from repsim.measures._undefined import in_range
from repsim.results import attribute

__all__ = [
    "PairItems",
    "Rows",
    "Values",
    "attrs_of_measure",
    "compared_items",
    "label_of_pair",
    "to_host",
    "values_of_pairs",
    "warn_of_highest",
    "without_infinite",
]

Key = TypeVar("Key")
Values = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, eq=False)
class Rows:
    """One array of a comparison, with the samples as rows; it is read when its item is made.

    Parameters
    ----------
    label : str
        Its name in errors and warnings.
    dtype : dtype
        That of its values, which are computed with.
    read : callable
        Returns the values (n, p), checked.
    """

    label: str
    dtype: Any
    read: Callable[[], Array]

    @classmethod
    def of(
        cls, operation: str, xp: Namespace, x: Array, label: str, fewest: tuple[int, str]
    ) -> Rows:
        """Check an array (n, ...) in memory, and return it."""
        least, why = fewest
        checked = as_samples(operation, xp, x, label, min_samples=least, why=why)
        check_finite(operation, xp, checked, label)
        return cls(label, checked.dtype, lambda: checked)

    @classmethod
    def stored(
        cls,
        operation: str,
        x: Any,
        label: str,
        fewest: tuple[int, str],
        read: Callable[[], Array] | None = None,
    ) -> Rows:
        """Return an array-like (n, ...) that is read when it is needed, as NumPy's.

        Parameters
        ----------
        operation, label : str
            For errors.
        x : array-like
            It has a shape and a dtype.
        fewest : tuple of int and str
            The fewest samples, and what needs them.
        read : callable, optional
            Returns all of its values; by default ``numpy.asarray(x)``.
        """
        dtype, (least, why) = row_dtype(operation, x, label), fewest

        def values() -> Array:
            array = np.asarray(x) if read is None else read()
            checked = as_samples(operation, np, array, label, min_samples=least, why=why)
            check_finite(operation, np, checked, label)
            return checked

        return cls(label, dtype, values)


class PairItems:
    """A measure of pairs of arrays; the item of an array is made on first use and kept.

    An array is prepared in the dtype of its pair, as in the function itself, so a float32 array
    that meets float32 and float64 arrays is prepared twice.

    Parameters
    ----------
    operation : str
        The caller, for errors and warnings.
    xp : namespace
        That of all arrays.
    measure, settings
        The measure and all of its options.
    """

    def __init__(
        self, operation: str, xp: Namespace, measure: Measure, settings: Mapping[str, Any]
    ) -> None:
        self.operation, self.xp = operation, xp
        self.measure, self.settings = measure, settings
        self._made: dict[tuple[Rows, Any], Item] = {}
        self._floors: dict[str, Array] = {}

    def dtype_of(self, x: Rows, y: Rows) -> Any:
        """Return the dtype in which a pair is compared."""
        return self.xp.result_type(x.dtype, y.dtype)

    def item(self, rows: Rows, dtype: Any) -> Item:
        """Return the item of one array in the dtype of a pair."""
        key = rows, dtype
        if key not in self._made:
            self._made[key] = self.prepare(rows, rows.read(), dtype)
        return self._made[key]

    def prepare(self, rows: Rows, values: Array, dtype: Any) -> Item:
        """Make the item of some or all rows of an array, which is not kept."""
        values = self.xp.astype(values, dtype, copy=False)
        return self.measure.prepare(self.operation, values, name=rows.label, **self.settings)

    def taken(self, rows: Rows, places: Any) -> Array:
        """Return the values of some samples of an array, or of all in another order."""
        return self.measure.taken(rows.read(), places, self.settings)

    def pair(self, x: Rows, y: Rows) -> tuple[Item, Item, Any]:
        """Return the items of two arrays, and the dtype in which they are compared."""
        dtype = self.dtype_of(x, y)
        return self.item(x, dtype), self.item(y, dtype), dtype

    def values(self, xs: Sequence[Rows], ys: Sequence[Rows]) -> Values:
        """Return the measure of every pair, (len(xs), len(ys)).

        If both sides are the same arrays and the measure is symmetric, one half is computed.
        """
        values = values_of_pairs(
            self.measure,
            self.settings,
            xs,
            ys,
            self.pair,
            label_of_pair,
            self._floors,
            half=self.mirrored(xs, ys),
        )
        return without_infinite(self.operation, values)

    def mirrored(self, xs: Sequence[Rows], ys: Sequence[Rows]) -> bool:
        """Whether one half of the pairs follows from the other."""
        return self.measure.symmetric and list(xs) == list(ys)

    def compared(self, x: Rows, y: Rows) -> tuple[Array, Array | None]:
        """Return the measure of one pair, and its value by chance if that is known."""
        return compared_items(self.measure, self.settings, *self.pair(x, y))

    def set_floors(self, floors: Mapping[str, Array]) -> None:
        """Take the values by chance of pairs that were compared elsewhere, by their labels."""
        self._floors = dict(floors)

    def warn_of_chance(self) -> None:
        """Warn once of the pair that independent data would make most alike."""
        warn_of_highest(self.operation, self.measure, self._floors)


def compared_items(
    measure: Measure, settings: Mapping[str, Any], x: Item, y: Item, dtype: Any
) -> tuple[Array, Array | None]:
    """Return the measure of two items, and its value by chance if that is known."""
    with np.errstate(over="ignore"):  # what overflows is reported where all values are read
        value = in_range(measure.compare(x, y, **settings), dtype)
    floor = None
    if measure.floor is not None and x is not y:
        floor = measure.floor(x, y, **settings)
    return value, floor


def label_of_pair(x: Rows, y: Rows) -> str:
    """Return the name of a pair in a warning."""
    return f"{x.label} with {y.label}"


def values_of_pairs(
    measure: Measure,
    settings: Mapping[str, Any],
    xs: Sequence[Key],
    ys: Sequence[Key],
    pair: Callable[[Key, Key], tuple[Item, Item, Any]],
    label: Callable[[Key, Key], str],
    floors: dict[str, Array],
    *,
    half: bool,
) -> Values:
    """Return the measure of every pair, (len(xs), len(ys)).

    Parameters
    ----------
    measure, settings
        The measure and all of its options.
    xs, ys : sequence
        Keys of both sides.
    pair : callable
        Returns two items and the dtype of the value.
    label : callable
        The name of a pair in a warning.
    floors : dict
        Gets the value by chance of each pair for which the measure knows it.
    half : bool
        Whether the mirrored entry of a pair has its value.
    """
    found: dict[tuple[int, int], Array] = {}
    for i, x in enumerate(xs):
        for j, y in enumerate(ys):
            if half and j < i:  # known already, and the same up to rounding
                found[i, j] = found[j, i]
                continue
            found[i, j], floor = compared_items(measure, settings, *pair(x, y))
            if floor is not None:
                floors[label(x, y)] = floor
    return np.reshape(to_host(list(found.values())), (len(xs), len(ys)))


def without_infinite(operation: str, values: Values) -> Values:
    """Return NaN, with one warning, for values that their dtype could not hold."""
    lost = np.isinf(values)
    if lost.any():
        warn(
            f"{operation}: {int(lost.sum())} of {values.size} values are outside the range of "
            f"their dtype, so NaN is returned for them. Multiply or divide the arrays by a power "
            f"of two.",
            DegenerateWarning,
        )
    return np.where(lost, np.nan, values)


def warn_of_highest(operation: str, measure: Measure, floors: Mapping[str, Array]) -> None:
    """Warn once of the pair that independent data would make most alike."""
    if measure.floor_words is None or not floors:
        return
    read = np.nan_to_num(to_host(list(floors.values())))
    worst = int(np.argmax(read))
    if read[worst] > HIGH_FLOOR:
        where = f" for {list(floors)[worst]}"
        warn_of_chance(operation, measure.floor_words, float(read[worst]), where)


def to_host(values: Sequence[Array]) -> Values:
    """Read all values at once, which waits once for an accelerator and not once per pair."""
    xp = array_namespace(values[0])
    wide = accumulator_dtype(xp, values[0])
    stacked = xp.stack([xp.astype(value, wide, copy=False) for value in values])
    return np.asarray(to_numpy(stacked), dtype=np.float64)


def attrs_of_measure(
    measure: Measure, settings: Mapping[str, Any], n: int | None = None
) -> dict[str, str | int | float]:
    """Return what a map of this measure says about it: name, kind, unit, range and options.

    Parameters
    ----------
    measure : Measure
        Its entry.
    settings : mapping
        All of its options.
    n : int, optional
        The samples, if the map is a result by itself.
    """
    low, high = measure.range
    # The range is that of the default options, and only the biased estimators have bounds of zero.
    known = settings.get("estimator") != "unbiased"
    ends = {"least": low, "greatest": high} if known else {}
    best = measure.self_is_best
    if measure.self_is_best_with is not None:
        best = best and measure.self_is_best_with(**settings)
    equal = {"value_if_equal": 1.0 if measure.similarity else 0.0} if best else {}
    return {
        "long_name": measure.name.replace("_", " "),
        "units": measure.units,
        "measure": measure.name,
        "kind": "similarity" if measure.similarity else "dissimilarity",
        **{name: float(end) for name, end in ends.items() if math.isfinite(end)},
        **equal,
        **{name: attribute(value) for name, value in settings.items()},
        **({} if n is None else {"n_samples": n, "repsim_version": __version__}),
    }
