"""CKA of tokens with the patches of the input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from repsim.results._findings import Finding, Table, ends, table_along
from repsim.results._kind import Kind, Variable
from repsim.results._maps import LEAST_HIGH
from repsim.results._reading import names_of, optional_values, values_of
from repsim.results._registry import register
from repsim.results._text import percent

if TYPE_CHECKING:
    import xarray

__all__ = [
    "PLACES",
    "TOKEN_LOCALIZATION",
    "TokenMaps",
    "frame_map",
    "token_maps",
    "token_scale",
]

HITS = "tokens most similar to their own patch"

VARIABLES = {
    "cka": Variable(("layer", "token", "patch"), "CKA"),
    "hit_rate": Variable(("layer",), HITS),
    "chance": Variable(("layer",), "hit rate of a random patch"),
    "argmax_distance": Variable(("layer",), "distance of the most similar patch", units="pixels"),
    "chance_distance": Variable(("layer",), "distance of a random patch", units="pixels"),
    "argmax_time_distance": Variable(
        ("layer",), "distance of the most similar patch in time", units="frames"
    ),
    "chance_time_distance": Variable(
        ("layer",), "distance of a random patch in time", units="frames"
    ),
    "token_frame": Variable(("layer", "token")),
    "token_row": Variable(("layer", "token")),
    "token_column": Variable(("layer", "token")),
    "is_prefix": Variable(("layer", "token")),
    "patch_frame": Variable(("layer", "patch")),
    "patch_row": Variable(("layer", "patch")),
    "patch_column": Variable(("layer", "patch")),
    "patch_frames": Variable(("layer",), "frames of a patch", units="frames"),
    "patch_height": Variable(("layer",), "height of a patch", units="pixels"),
    "patch_width": Variable(("layer",), "width of a patch", units="pixels"),
    "grid_frames": Variable(("layer",)),
    "grid_height": Variable(("layer",)),
    "grid_width": Variable(("layer",)),
}

PLACES = ("token_row", "token_column", "is_prefix", "patch_row", "patch_column")
"""The coordinates of the places of tokens and patches."""


class Frame(NamedTuple):
    """One of the frames of the tokens of a video."""

    of_tokens: int
    of_patches: int
    """The frame of the patches in which these tokens lie."""
    total: int
    """How many frames the tokens have."""


class TokenMaps(NamedTuple):
    """The tokens of one layer, each as a map of the patches; those of a video in one frame."""

    maps: Any
    """Values of all tokens, (tokens, rows of patches, columns of patches); NaN where undefined."""
    is_prefix: Any
    placed: Any
    """Which tokens have a place in the grid."""
    rows: Any
    columns: Any
    """Places of the tokens; meaningless for tokens without a place."""
    frame: Frame | None = None
    """The frame that is shown; None for images."""

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
    """Arrange the values of one layer, ``result.isel(layer=i)``, by the places of its patches.

    Of a video, these are the tokens and patches of the frame in the middle.
    """
    lie = [values_of(one, name, "patch") for name in ("patch_row", "patch_column")]
    # A layer with fewer patches or tokens than others is padded with entries without a place.
    real = (lie[0] >= 0) & (lie[1] >= 0)
    frame = _middle_frame(one)
    if frame is not None:
        real &= values_of(one, "patch_frame", "patch") == frame.of_patches
    patch_rows, patch_columns = (places[real].astype(int) for places in lie)
    shape = int(patch_rows.max(initial=0)) + 1, int(patch_columns.max(initial=0)) + 1
    cka = values_of(one, "cka", "token", "patch")
    maps = np.full((len(cka), *shape), np.nan)
    maps[:, patch_rows, patch_columns] = cka[:, real]
    rows, columns = (values_of(one, name, "token") for name in ("token_row", "token_column"))
    is_prefix = values_of(one, "is_prefix", "token").astype(bool)
    placed = ~is_prefix & (rows >= 0) & (columns >= 0)
    if frame is not None:
        placed &= values_of(one, "token_frame", "token") == frame.of_tokens
    at = [np.where(placed, each, -1).astype(int) for each in (rows, columns)]
    return TokenMaps(maps, is_prefix, placed, at[0], at[1], frame)


def token_scale(values: Any) -> tuple[float, float]:
    """Return the ends of the colour scale of token maps: 0 and the largest value, 0.2 or more."""
    known = np.isfinite(values)
    return 0.0, float(np.max(values, where=known, initial=LEAST_HIGH))


def _middle_frame(one: xarray.Dataset) -> Frame | None:
    """Return the frame in the middle of the tokens of a video, and that of its own patches."""
    tokens = optional_values(one, "token_frame", "token")
    patches = optional_values(one, "patch_frame", "patch")
    if tokens is None or patches is None or not (np.isfinite(tokens).any()):
        return None
    n_tokens, n_patches = (int(np.nanmax(frames)) + 1 for frames in (tokens, patches))
    middle = n_tokens // 2
    return Frame(middle, (2 * middle + 1) * n_patches // (2 * n_tokens), n_tokens)


def frame_map(one: xarray.Dataset) -> Any:
    """Return the mean CKA of tokens and patches at one place, (frames of tokens, of patches).

    The patch at the place of a token is the one in which the middle of the token lies. The result
    is None for images.
    """
    if _middle_frame(one) is None:
        return None
    of_tokens, of_patches = (
        [values_of(one, f"{side}_{axis}", side) for axis in ("frame", "row", "column")]
        for side in ("token", "patch")
    )
    # Prefix tokens, and entries beyond the tokens and patches of this layer, have no place.
    placed, real = (
        np.flatnonzero(np.all(np.stack(each) >= 0, axis=0)) for each in (of_tokens, of_patches)
    )
    tokens = np.stack(of_tokens)[:, placed].astype(int)
    patches = np.stack(of_patches)[:, real].astype(int)
    sizes, extents = tokens.max(axis=1) + 1, patches.max(axis=1) + 1
    own = (2 * tokens + 1) * extents[:, None] // (2 * sizes[:, None])
    at = np.full(extents, -1)
    at[tuple(patches)] = real
    places = at[:, own[1], own[2]]  # (frames of patches, tokens)
    cka = values_of(one, "cka", "token", "patch")[placed, places]
    cka = np.where(places >= 0, cka, np.nan)
    in_frame = tokens[0] == np.arange(sizes[0])[:, None]
    total = np.nansum(np.where(in_frame[:, None], cka, 0.0), axis=-1)
    count = np.sum(in_frame[:, None] & np.isfinite(cka), axis=-1)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


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
            ends_of_chance = sorted(
                {percent(each) for each in (np.nanmin(chance), np.nanmax(chance))}
            )
            found.append(Finding("by chance", " to ".join(ends_of_chance)))
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
