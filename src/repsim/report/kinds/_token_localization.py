"""Token localisation as a section: hits by layer, and each token as a map of the patches."""

from __future__ import annotations

import numpy as np
import xarray as xr

from repsim.report._blocks import Chart, Section, Series, Tile, Tiles
from repsim.results import (
    PLACES,
    TOKEN_LOCALIZATION,
    model_of,
    names_of,
    number,
    optional_values,
    ordinal,
    percent,
    token_maps,
    token_scale,
)

__all__ = ["localization_section"]

CELLS = 600_000
"""The most cells of all localisation maps; beyond, only every second (third, ...) token is kept."""


def localization_section(name: str, result: xr.Dataset) -> Section:
    """CKA of tokens with patches of the input, and how often the own patch is most similar."""
    layers = names_of(result, "layer")
    section = Section(
        name, TOKEN_LOCALIZATION.title, f"tokens of {model_of(result)} with patches of the input"
    )
    at = np.arange(len(layers))
    what = TOKEN_LOCALIZATION.variables["hit_rate"].long_name
    hits = optional_values(result, "hit_rate", "layer")
    if hits is not None:
        series = [Series(what, at, hits)]
        chance = optional_values(result, "chance", "layer")
        if chance is not None:
            series.append(
                Series("a random patch", at, chance, points=False, dashed=True, reference=True)
            )
        section.pictures.append(
            Chart(
                "Hits by layer",
                f"Share of tokens whose most similar patch is their own, for {len(layers)} layers: "
                f"from {percent(hits[0], 0)} to {percent(hits[-1], 0)}.",
                "layer",
                what,
                series,
                categories=layers,
                percent=True,
            )
        )
    section.pictures += _token_maps(result, layers)
    return section


def _token_maps(result: xr.Dataset, layers: list[str]) -> list[Tiles]:
    """Each layer as a grid of tokens, where each token is a map of the patches."""
    if not all(key in result.coords for key in PLACES):
        return []
    every = 1
    while result["cka"].size / every**2 > CELLS:
        every += 1
    tiles, cells = [], set()
    for i, layer in enumerate(layers):
        tokens = token_maps(result.isel(layer=i))
        drawn = tokens.placed & (tokens.rows % every == 0) & (tokens.columns % every == 0)
        if not drawn.any():
            continue
        rows, columns = tokens.rows[drawn] // every, tokens.columns[drawn] // every
        height, width = tokens.patches
        grid = np.full((rows.max() + 1, columns.max() + 1, height, width), np.nan)
        grid[rows, columns] = tokens.maps[drawn]
        cells.add((height, width))
        whole = grid.swapaxes(1, 2)  # the map of each token is at its place
        frame = tokens.frame
        at = "" if frame is None else f", frame {frame.of_tokens + 1} of {frame.total}"
        tiles.append(Tile(f"{layer}{at}", whole.reshape(len(grid) * height, -1)))
    if not tiles or len(cells) != 1:
        return []  # if grids differ between layers, there is no common picture
    low, high = token_scale(np.concatenate([tile.values.ravel() for tile in tiles]))
    (cell,) = cells
    return [
        Tiles(
            "Each token as a map of the patches",
            f"Each of {len(tiles)} layers is a grid of tokens. The place of a token shows the "
            f"map of its CKA with all patches, on a scale from {number(low)} to {number(high)}.",
            tiles,
            "CKA of token and patch",
            low,
            high,
            cell=cell,
            words=("token", "patch"),
            note=f"Shown: every {ordinal(every)} token of a row and column." if every > 1 else "",
        )
    ]
