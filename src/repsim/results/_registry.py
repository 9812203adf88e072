"""The table of all kinds of results; the file of each kind registers it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from repsim.results._kind import Kind

if TYPE_CHECKING:
    import xarray

__all__ = ["KINDS", "kind_of", "register"]

KINDS: dict[str, Kind] = {}
"""By the name of the function that returns the kind. No result matches two kinds."""


def register(kind: Kind) -> Kind:
    """Add a kind to the table, and return it."""
    KINDS[kind.function] = kind
    return kind


def kind_of(result: xarray.Dataset) -> Kind | None:
    """Return the kind of a result, found from its variables; None if its kind is unknown."""
    return next((kind for kind in KINDS.values() if kind.fits(result)), None)
