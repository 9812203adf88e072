"""The order of the samples of several parts, in which each sample counts once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from repsim.storage._chunks import SAMPLE
from repsim.storage._stored import Stored
from repsim.storage.parts._part_rows import Ints, parts_of

__all__ = ["Order", "Ordered", "ordered"]

Order: TypeAlias = Literal["id", "rank"]
"""Type of ``order=``."""

SEQUENCE = "sequence"
"""The coordinate with the input of each row, if tokens are the samples."""


class Ordered(NamedTuple):
    """Which rows of the parts count, and in which order.

    Attributes
    ----------
    places : array of int, optional
        Their places in the parts one after the other; None for all rows in that order.
    coords : dict of str to array
        The ids of the samples, and the sequences of tokens.
    n_repeats : int
        How many samples were left out because an earlier part has them.
    """

    places: Ints | None
    coords: dict[str, Any]
    n_repeats: int


def ordered(
    parts: Sequence[Stored], ranks: Sequence[int], size: int, order: Order, *, named: bool
) -> Ordered:
    """Return the order of the samples.

    Parameters
    ----------
    parts : sequence of Stored
        The parts with rows, by rank.
    ranks : sequence of int
        The ranks that wrote them.
    size : int
        The number of all ranks.
    order : {"id", "rank"}
        Sorted by id, or as they lie in the parts.
    named : bool
        Whether samples have ids. Those without are numbered by their places in the data of all
        ranks, whose samples alternate, as a ``DistributedSampler`` deals them.
    """
    tokens = SEQUENCE in parts[0].columns
    name = SEQUENCE if tokens else SAMPLE
    found = [_column(part, name) for part in parts]
    if not named:  # each rank numbered its own from 0
        found = [numbers * size + rank for numbers, rank in zip(found, ranks, strict=True)]
    ids = np.concatenate(found)
    if tokens:
        return _of_tokens(ids, [part.rows for part in parts], order)
    _, first = np.unique(ids, return_index=True)
    places = first if order == "id" else np.sort(first)
    repeats = len(ids) - len(first)
    if not repeats and bool((np.diff(places) == 1).all()):
        return Ordered(None, {SAMPLE: ids}, 0)
    return Ordered(places, {SAMPLE: ids[places]}, repeats)


def _of_tokens(sequences: Any, sizes: Sequence[int], order: Order) -> Ordered:
    """Return the order of tokens by their inputs; those of an input lie in one part."""
    _, first, number = np.unique(sequences, return_index=True, return_inverse=True)
    of, _ = parts_of(sizes, np.arange(len(sequences)))
    places = np.flatnonzero(of == of[first][number])
    if order == "id":
        places = places[np.argsort(number[places], kind="stable")]
    repeats = len(np.unique(number * len(sizes) + of)) - len(first)
    coords = {SAMPLE: np.arange(len(places)), SEQUENCE: sequences[places]}
    return Ordered(places, coords, repeats)


def _column(part: Stored, name: str) -> Any:
    return part.columns[name].read((slice(0, part.rows),))
