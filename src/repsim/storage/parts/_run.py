"""The group that holds the parts of all ranks: how many there are, and whether they are whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from repsim._errors import StateError
from repsim.storage._plan import MOST_ROWS
from repsim.storage._rows import writing
from repsim.storage._stored import group_of, sealed
from repsim.storage.places._address import Place, zarr_for

__all__ = ["PARTS", "begin_parts", "check_parts", "end_parts", "part_name", "rows_of_chunk"]

PARTS = "repsim.activations.parts/1"

FEWEST_ROWS = 64
"""Rows of a chunk of many ranks: below, there would be too many files."""


def part_name(rank: int, size: int) -> str:
    """Return the name of the part of a rank."""
    return f"rank{rank}of{size}"


def rows_of_chunk(size: int) -> int:
    """Return the most rows of a chunk of a part.

    >>> [rows_of_chunk(size) for size in (1, 2, 3, 8, 64)]
    [1024, 512, 256, 128, 64]

    Samples that are sorted by id alternate between the parts. A block of rows then has a share of
    each part, and a chunk of this size is read once and not once for each of several blocks.
    """
    return max(FEWEST_ROWS, MOST_ROWS >> (size - 1).bit_length())


def begin_parts(operation: str, place: Place, size: int, *, named: bool) -> None:
    """Create the group of the parts, or check the one that is there; for the first rank alone.

    Parameters
    ----------
    operation : str
        The caller's name, for errors.
    place : Place
        The store.
    size : int
        The number of ranks.
    named : bool
        Whether samples have ids, and are not numbered.

    Raises
    ------
    StateError
        There is something else, or a store of another number of ranks.
    CheckpointError
        The place cannot be written.
    """
    zarr_for(operation)
    with writing(operation, place, "nothing had been stored there"):
        if not place.is_taken() or place.is_empty():
            names = [part_name(rank, size) for rank in range(size)]
            place.create(sealed({"format": PARTS, "parts": names, "named": named}))
    check_parts(operation, place, size)


def check_parts(operation: str, place: Place, size: int) -> None:
    """Raise unless this place has a store of this number of ranks."""
    if not place.is_group():
        there = place.is_taken()
        raise StateError(
            f"{operation}: "
            + ("there is something else at this place already." if there else "no store is here.")
            + f"\n  {place} {'is not a folder' if there else 'was made by another rank'}\n  "
            + (
                "Name another place, or delete it."
                if there
                else "All ranks must reach the same place: a file system that they share, or an "
                "object store."
            )
        )
    attrs = _attributes(operation, place)
    if attrs.get("format") != PARTS:
        raise StateError(
            f"{operation}: there is something else at this place already.\n"
            f"  {place} is of format {attrs.get('format')!r}, expected {PARTS!r}\n"
            f"  A store that one process wrote has no parts for ranks. Name another place, or "
            f"delete it."
        )
    before = len(attrs["parts"])
    if before != size:
        raise StateError(
            f"{operation}: the store was begun with another number of ranks.\n"
            f"  {place} has parts of {before} ranks, and now there are {size}\n"
            f"  Start {before} ranks to go on with it, name another place, or delete it to begin "
            f"anew."
        )


def end_parts(operation: str, place: Place, rows: Sequence[int]) -> None:
    """Write how many rows each part has, which makes the store complete; for the first rank alone.

    Raises
    ------
    CheckpointError
        The place cannot be written.
    """
    attrs = _attributes(operation, place)
    with writing(operation, place, "the parts of all ranks are there, whole"):
        group = group_of(operation, place, "a")
        group.update_attributes(sealed({**attrs, "rows": list(rows)}))


def _attributes(operation: str, place: Place) -> dict[str, Any]:
    return dict(group_of(operation, place, "r").attrs)
