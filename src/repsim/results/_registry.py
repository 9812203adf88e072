"""The table of all kinds of results, which the file of each kind adds to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from repsim.results._kind import Kind

if TYPE_CHECKING:
    import xarray

__all__ = ["KINDS", "kind_of", "register"]

KINDS: dict[str, Kind] = {}
"""By the name of the function that returns it. No result fits two of them."""


def register(kind: Kind) -> Kind:
    """Add a kind to the table, and return it."""
    KINDS[kind.function] = kind
    return kind


def kind_of(result: xarray.Dataset) -> Kind | None:
    """Return the kind of a result, found from its variables; None if it is of no known kind."""
    return next((kind for kind in KINDS.values() if kind.fits(result)), None)
