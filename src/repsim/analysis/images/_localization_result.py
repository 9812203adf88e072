"""The labelled result of token localisation, and its hit rates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim._errors import DegenerateWarning, warn
from repsim.analysis.images._localization_sums import Floats, LayerSums, TokenPatchSums, patch_edges
from repsim.capture.tokens import TokenGrid
from repsim.estimators import Products, alignment
from repsim.results import TOKEN_LOCALIZATION

if TYPE_CHECKING:
    import xarray

__all__ = ["localization_result"]


def localization_result(
    operation: str, sums: TokenPatchSums, provenance: Mapping[str, Any]
) -> xarray.Dataset:
    """Label the accumulated CKA of tokens with patches, their hit rates and their positions."""
    layers = sums.layers()
    _warn_of_constants(operation, layers)
    n_tokens = max(len(each.xx) for each in layers.values())
    n_patches = max(len(each.yy) for each in layers.values())
    cka = np.full((len(layers), n_tokens, n_patches), np.nan)
    tokens = np.full((2, len(layers), n_tokens), np.nan)
    patches = np.full((2, len(layers), n_patches), np.nan)
    is_prefix = np.zeros((len(layers), n_tokens), dtype=bool)
    hits: dict[str, list[float]] = {key: [] for key in _HITS}
    for i, each in enumerate(layers.values()):
        products = Products(each.xy, each.xx[:, None], each.yy[None, :])
        values = np.asarray(alignment(np, products))
        (p, q), prefix = each.xy.shape, each.grid.prefix
        cka[i, :p, :q] = values
        tokens[:, i, prefix:p] = np.indices((each.grid.height, each.grid.width)).reshape(2, -1)
        patches[:, i, :q] = np.indices(each.patches).reshape(2, -1)
        is_prefix[i, :prefix] = True
        for key, value in _hits(values, each).items():
            hits[key].append(value)
    along: dict[str, list[float]] = {
        "grid_height": [each.grid.height for each in layers.values()],
        "grid_width": [each.grid.width for each in layers.values()],
        "patch_height": [each.image[0] / each.patches[0] for each in layers.values()],
        "patch_width": [each.image[1] / each.patches[1] for each in layers.values()],
    }
    dataset = TOKEN_LOCALIZATION.dataset(
        {"cka": cka, **hits},
        {
            "layer": list(layers),
            "token": np.arange(n_tokens),
            "patch": np.arange(n_patches),
            "token_row": tokens[0],
            "token_column": tokens[1],
            "is_prefix": is_prefix,
            "patch_row": patches[0],
            "patch_column": patches[1],
            **along,
        },
    )
    return dataset.assign_attrs(
        provenance,
        patch_size=_common(along["patch_height"], along["patch_width"]),
        grid=_common(along["grid_height"], along["grid_width"]),
    )


_HITS = ("hit_rate", "chance", "argmax_distance", "chance_distance")


def _hits(cka: Floats, layer: LayerSums) -> dict[str, float]:
    """Compare the place of each spatial token with that of its most similar patch."""
    own = _own_patch(layer.grid, layer.patches)
    spatial = cka[layer.grid.prefix :]
    # A constant patch is not a candidate, and no token can hit it.
    candidates = np.flatnonzero(layer.yy > 0)
    judged = np.flatnonzero(np.isfinite(spatial[np.arange(len(own)), own]))
    if not judged.size:
        return dict.fromkeys(_HITS, float("nan"))
    best = candidates[np.argmax(spatial[judged][:, candidates], axis=1)]
    own = own[judged]
    centres = _patch_centres(layer)

    def mean_distance(a: Any, b: Any) -> float:
        return float(np.linalg.norm(centres[a] - centres[b], axis=-1).mean())

    return {
        "hit_rate": float((best == own).mean()),
        "chance": 1 / len(candidates),
        "argmax_distance": mean_distance(best, own),
        "chance_distance": mean_distance(candidates[None, :], own[:, None]),
    }


def _own_patch(grid: TokenGrid, patches: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Return, for each position of the grid, the patch that contains its centre."""
    row, column = (
        ((2 * np.arange(size) + 1) * parts) // (2 * size)
        for size, parts in zip((grid.height, grid.width), patches, strict=True)
    )
    own: np.ndarray[Any, np.dtype[np.intp]] = (row[:, None] * patches[1] + column).ravel()
    return own


def _patch_centres(layer: LayerSums) -> Floats:
    """Return the centres (patches, 2) of all patches, in pixels."""
    rows, columns = (
        np.asarray(patch_edges(size, parts), dtype=float)
        for size, parts in zip(layer.image, layer.patches, strict=True)
    )
    middle = np.meshgrid(
        (rows[1:] + rows[:-1]) / 2, (columns[1:] + columns[:-1]) / 2, indexing="ij"
    )
    return np.stack(middle, axis=-1).reshape(-1, 2)


def _common(heights: list[Any], widths: list[Any]) -> list[Any] | str:
    pairs = set(zip(heights, widths, strict=True))
    return list(pairs.pop()) if len(pairs) == 1 else "per layer"


def _warn_of_constants(operation: str, layers: Mapping[str, LayerSums]) -> None:
    lines: dict[str, list[str]] = {}
    for label, each in layers.items():
        for what, selves in (("tokens", each.xx), ("patches", each.yy)):
            constant = np.flatnonzero(selves == 0)
            if constant.size:
                shown = ", ".join(map(str, constant[:6])) + (", ..." if constant.size > 6 else "")
                line = f"{constant.size} of {selves.size} {what} ({shown})"
                lines.setdefault(line, []).append(repr(label))
    if lines:
        shown = "".join(
            f"  {line} of {', '.join(of[:4])}{f' and {len(of) - 4} more' if len(of) > 4 else ''}\n"
            for line, of in list(lines.items())[:12]
        )
        warn(
            f"{operation}: constant over the samples of every batch, so their CKA is undefined "
            f"(NaN):\n{shown}  They do not count in hit_rate.",
            DegenerateWarning,
        )
