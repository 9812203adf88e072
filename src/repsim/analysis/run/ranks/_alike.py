"""What the sums of several ranks share: values that must be equal, and the order of names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from repsim._errors import InputError

__all__ = ["one_for_all", "union_in_order"]

Value = TypeVar("Value")


def one_for_all(operation: str, what: str, values: Sequence[Value], repair: str) -> Value:
    """Return the value that all ranks have, or raise an InputError that lists the values.

    Parameters
    ----------
    operation, what, repair : str
        For the error: the analysis, what the values are, and what the caller can do.
    values : sequence
        The values of the ranks that have one, in the order of ranks.
    """
    different: list[Value] = []
    for value in values:
        if value not in different:
            different.append(value)
    if len(different) > 1:
        listed = "; ".join(map(str, different[:4]))
        raise InputError(
            f"{operation}: the {what} must be the same on all ranks.\n  got {listed}\n  {repair}"
        )
    return different[0]


def union_in_order(orders: Sequence[Sequence[Value]]) -> list[Value]:
    """Return all names of several lists, each as near to its neighbours as in its list.

    >>> union_in_order([["a", "c"], ["a", "b", "c", "d"]])
    ['a', 'b', 'c', 'd']
    """
    union = list(orders[0])
    for names in orders[1:]:
        place = 0
        for name in names:
            if name in union:
                place = union.index(name) + 1
            else:
                union.insert(place, name)
                place += 1
    return union
