"""CKA of tokens with the patches of the input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from repsim.results._findings import Finding, Table, ends, table_along
from repsim.results._kind import Kind, Variable
from repsim.results._reading import names_of, optional_values, values_of
from repsim.results._registry import register
from repsim.results._text import percent

if TYPE_CHECKING:
    import xarray

__all__ = ["PLACES", "TOKEN_LOCALIZATION", "TokenMaps", "token_maps"]

HITS = "tokens most similar to their own patch"

VARIABLES = {
    "cka": Variable(("layer", "token", "patch"), "CKA"),
    "hit_rate": Variable(("layer",), HITS),
    "chance": Variable(("layer",), "hit rate of a random patch"),
    "argmax_distance": Variable(("layer",), "distance of the most similar patch", units="pixels"),
    "chance_distance": Variable(("layer",), "distance of a random patch", units="pixels"),
    "token_row": Variable(("layer", "token")),
    "token_column": Variable(("layer", "token")),
    "is_prefix": Variable(("layer", "token")),
    "patch_row": Variable(("layer", "patch")),
    "patch_column": Variable(("layer", "patch")),
    "patch_height": Variable(("layer",), "height of a patch", units="pixels"),
    "patch_width": Variable(("layer",), "width of a patch", units="pixels"),
    "grid_height": Variable(("layer",)),
    "grid_width": Variable(("layer",)),
}

PLACES = ("token_row", "token_column", "is_prefix", "patch_row", "patch_column")
"""The coordinates of the places of tokens and patches."""


class TokenMaps(NamedTuple):
    """The tokens of one layer, each as a map of the patches."""

    maps: Any
    """Values of all tokens, (tokens, rows of patches, columns of patches); NaN where undefined."""
    is_prefix: Any
    placed: Any
    """Which tokens have a place in the grid."""
    rows: Any
    columns: Any
    """Places of the tokens; meaningless for tokens without a place."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the tokens that have a place; (0, 0) if none has."""
        rows, columns = self.rows[self.placed], self.columns[self.placed]
        return int(rows.max(initial=-1)) + 1, int(columns.max(initial=-1)) + 1

    @property
    def patches(self) -> tuple[int, int]:
        """Rows and columns of the patches."""
        return self.maps.shape[1], self.maps.shape[2]


def token_maps(one: xarray.Dataset) -> TokenMaps:
    """Arrange the values of one layer, ``result.isel(layer=i)``, by the places of its patches."""
    lie = [values_of(one, name, "patch") for name in ("patch_row", "patch_column")]
    # A layer with fewer patches or tokens than others is padded with entries without a place.
    real = (lie[0] >= 0) & (lie[1] >= 0)
    patch_rows, patch_columns = (places[real].astype(int) for places in lie)
    shape = int(patch_rows.max(initial=0)) + 1, int(patch_columns.max(initial=0)) + 1
    cka = values_of(one, "cka", "token", "patch")
    maps = np.full((len(cka), *shape), np.nan)
    maps[:, patch_rows, patch_columns] = cka[:, real]
    rows, columns = (values_of(one, name, "token") for name in ("token_row", "token_column"))
    is_prefix = values_of(one, "is_prefix", "token").astype(bool)
    placed = ~is_prefix & (rows >= 0) & (columns >= 0)
    at = [np.where(placed, each, -1).astype(int) for each in (rows, columns)]
    return TokenMaps(maps, is_prefix, placed, *at)


def findings(result: xarray.Dataset) -> list[Finding]:
    """Return the share of tokens most similar to their own patch, and the distance of misses."""
    layers, found = names_of(result, "layer"), []
    hits = optional_values(result, "hit_rate", "layer")
    if hits is not None:
        found += [
            Finding(each.what, percent(hits[layers.index(each.where)]), each.where)
            for each in ends(HITS, layers, hits)
        ]
        chance = optional_values(result, "chance", "layer")
        if chance is not None and np.isfinite(chance).any():
            found.append(Finding("by chance", f"{np.nanmax(chance):.1%}"))
    away = optional_values(result, "argmax_distance", "layer")
    if away is not None:
        found += ends("distance of the most similar patch", layers, away, 1, " px")
    return found


def table(result: xarray.Dataset) -> Table:
    """Return hits, chance and distance of each layer."""
    shown = {"hit rate": "hit_rate", "chance": "chance", "distance in pixels": "argmax_distance"}
    columns = {column: optional_values(result, key, "layer") for column, key in shown.items()}
    return table_along("Token localisation", result, "layer", columns)


TOKEN_LOCALIZATION = register(
    Kind("token_localization", "Token localisation", VARIABLES, ("cka",), findings, table)
)
