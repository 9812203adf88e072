"""Token localisation as a section: hits by layer, and each token as a map of the patches."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from repsim.report._blocks import Chart, Finding, Section, Series, Tile, Tiles, number, percent
from repsim.report._read import ends, has, model_of, names_of, values_of

__all__ = ["localization_section"]

CELLS = 600_000
"""The most cells of all localisation maps; beyond, only every second (third, ...) token is kept."""


def localization_section(name: str, result: xr.Dataset) -> Section:
    """CKA of tokens with patches of the input, and how often the own patch is most similar."""
    layers = names_of(result, "layer")
    section = Section(
        name, "Token localisation", f"tokens of {model_of(result)} with patches of the input"
    )
    at = np.arange(len(layers))
    if has(result, "hit_rate", "layer"):
        hits = values_of(result, "hit_rate", "layer")
        series = [Series("tokens most similar to their own patch", at, hits)]
        section.findings += [
            Finding(each.what, percent(hits[layers.index(each.where)]), each.where)
            for each in ends("tokens most similar to their own patch", layers, hits)
        ]
        if has(result, "chance", "layer"):
            chance = values_of(result, "chance", "layer")
            series.append(
                Series("a random patch", at, chance, points=False, dashed=True, reference=True)
            )
            if np.isfinite(chance).any():
                section.findings.append(Finding("by chance", f"{np.nanmax(chance):.1%}"))
        section.pictures.append(
            Chart(
                "Hits by layer",
                f"Share of tokens whose most similar patch is their own, for {len(layers)} layers: "
                f"from {percent(hits[0], 0)} to {percent(hits[-1], 0)}.",
                "layer",
                "tokens most similar to their own patch",
                series,
                categories=layers,
                percent=True,
            )
        )
    if has(result, "argmax_distance", "layer"):
        away = values_of(result, "argmax_distance", "layer")
        section.findings += ends("distance of the most similar patch", layers, away, 1, " px")
    section.pictures += _token_maps(result, layers)
    return section


def _token_maps(result: xr.Dataset, layers: list[str]) -> list[Tiles]:
    """Each layer as a grid of tokens, where each token is a map of the patches."""
    needed = ("token_row", "token_column", "patch_row", "patch_column")
    if not all(key in result.coords for key in needed):
        return []
    cka = values_of(result, "cka", "layer", "token", "patch")
    every = 1
    while cka.size / every**2 > CELLS:
        every += 1
    tiles, cells = [], set()
    for i, layer in enumerate(layers):
        token_row, token_column, patch_row, patch_column = (
            _of_layer(result[key], i, "token" if key.startswith("token") else "patch")
            for key in needed
        )
        tokens = np.flatnonzero(
            np.isfinite(token_row) & (token_row % every == 0) & (token_column % every == 0)
        )
        patches = np.flatnonzero(np.isfinite(patch_row))
        if not tokens.size or not patches.size:
            continue
        rows, columns = (
            (token_row[tokens] // every).astype(int),
            (token_column[tokens] // every).astype(int),
        )
        down, right = patch_row[patches].astype(int), patch_column[patches].astype(int)
        height, width = int(down.max()) + 1, int(right.max()) + 1
        grid = np.full((rows.max() + 1, height, columns.max() + 1, width), np.nan)
        for token, r, c in zip(tokens, rows, columns, strict=True):
            grid[r, down, c, right] = cka[i, token, patches]
        cells.add((height, width))
        tiles.append(Tile(layer, grid.reshape(grid.shape[0] * height, grid.shape[2] * width)))
    if not tiles or len(cells) != 1:
        return []  # if grids differ between layers, there is no common picture
    known = np.concatenate([tile.values[np.isfinite(tile.values)] for tile in tiles])
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    if not low < high:
        return []
    (cell,) = cells
    return [
        Tiles(
            "Each token, as a map of the patches",
            f"For each of {len(tiles)} layers a grid of tokens; at the place of each token stands "
            f"the map of its CKA with all patches, from {number(low)} to {number(high)}.",
            tiles,
            "CKA of token and patch",
            low,
            high,
            cell=cell,
            words=("token", "patch"),
            note=f"Every {_ordinal(every)} token of a row and column." if every > 1 else "",
        )
    ]


def _of_layer(coordinate: xr.DataArray, layer: int, dim: str) -> Any:
    if "layer" in coordinate.dims:
        coordinate = coordinate.isel(layer=layer)
    return np.asarray(coordinate.transpose(dim).values, dtype=np.float64)


def _ordinal(n: int) -> str:
    return {2: "second", 3: "third"}.get(n, f"{n}th")
