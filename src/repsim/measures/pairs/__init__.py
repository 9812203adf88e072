"""Pairs of many arrays: the item of each array is made once, and every pair is compared."""

from repsim.measures._registry import held
from repsim.measures.pairs._items import (
    PairItems,
    Rows,
    Values,
    attrs_of_measure,
    compared_items,
    label_of_pair,
    to_host,
    values_of_pairs,
    warn_of_highest,
    without_infinite,
)

__all__ = [
    "PairItems",
    "Rows",
    "Values",
    "attrs_of_measure",
    "compared_items",
    "held",
    "label_of_pair",
    "to_host",
    "values_of_pairs",
    "warn_of_highest",
    "without_infinite",
]
