"""The labelled result of token localisation, and its hit rates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim._errors import DegenerateWarning, warn
from repsim.analysis.images._localization_sums import patch_edges
from repsim.analysis.images._localization_total import Floats, LayerSums, Localized
from repsim.capture.tokens import TokenGrid
from repsim.estimators import Products
from repsim.results import TOKEN_LOCALIZATION
from repsim.streaming import cka_of_sums

if TYPE_CHECKING:
    import xarray

__all__ = ["localization_result"]


def localization_result(total: Localized, provenance: Mapping[str, Any]) -> xarray.Dataset:
    """Label the accumulated CKA of tokens with patches, their hit rates and their positions."""
    layers = total.layers
    _warn_of_constants(total.operation, layers)
    n_tokens = max(len(each.xx) for each in layers.values())
    n_patches = max(len(each.yy) for each in layers.values())
    cka = np.full((len(layers), n_tokens, n_patches), np.nan)
    axes = _AXES[-len(next(iter(layers.values())).image) :]
    tokens = np.full((len(axes), len(layers), n_tokens), np.nan)
    patches = np.full((len(axes), len(layers), n_patches), np.nan)
    is_prefix = np.zeros((len(layers), n_tokens), dtype=bool)
    hits: dict[str, list[float]] = {}
    for i, each in enumerate(layers.values()):
        values = cka_of_sums(Products(each.xy, each.xx, each.yy))
        (p, q), prefix = each.xy.shape, each.grid.prefix
        cka[i, :p, :q] = values
        tokens[:, i, prefix:p] = np.indices(each.grid.extent).reshape(len(axes), -1)
        patches[:, i, :q] = np.indices(each.patches).reshape(len(axes), -1)
        is_prefix[i, :prefix] = True
        for key, value in _hits(values, each).items():
            hits.setdefault(key, []).append(value)
    places: dict[str, Any] = {"is_prefix": is_prefix}
    grids: list[list[float]] = []
    sizes: list[list[float]] = []
    for i, (place, extent) in enumerate(axes):
        grids.append([each.grid.extent[i] for each in layers.values()])
        sizes.append([each.image[i] / each.patches[i] for each in layers.values()])
        places |= {f"token_{place}": tokens[i], f"patch_{place}": patches[i]}
        places |= {f"grid_{extent}": grids[i], f"patch_{extent}": sizes[i]}
    dataset = TOKEN_LOCALIZATION.dataset(
        {"cka": cka, **hits},
        {
            "layer": list(layers),
            "token": np.arange(n_tokens),
            "patch": np.arange(n_patches),
            **places,
        },
    )
    return dataset.assign_attrs(provenance, patch_size=_common(sizes), grid=_common(grids))


_AXES = (("frame", "frames"), ("row", "height"), ("column", "width"))
"""What a place and an extent are called along time, height and width."""


def _hits(cka: Floats, layer: LayerSums) -> dict[str, float]:
    """Compare the place of each spatial token with that of its most similar patch."""
    own = _own_patch(layer.grid, layer.patches)
    spatial = cka[layer.grid.prefix :]
    # A constant patch is not a candidate, and no token can hit it.
    candidates = np.flatnonzero(layer.yy > 0)
    judged = np.flatnonzero(np.isfinite(spatial[np.arange(len(own)), own]))
    some = bool(judged.size)
    best = candidates[np.argmax(spatial[judged][:, candidates], axis=1)] if some else judged
    own = own[judged]
    centres = _patch_centres(layer)
    in_space, in_time = centres[:, -2:], centres[:, :-2]

    def mean_distance(places: Floats, a: Any, b: Any) -> float:
        apart = np.linalg.norm(places[a] - places[b], axis=-1)
        return float(apart.mean()) if some else float("nan")

    found = {
        "hit_rate": float((best == own).mean()) if some else float("nan"),
        "chance": 1 / len(candidates) if some else float("nan"),
        "argmax_distance": mean_distance(in_space, best, own),
        "chance_distance": mean_distance(in_space, candidates[None, :], own[:, None]),
    }
    if in_time.shape[1]:
        found["argmax_time_distance"] = mean_distance(in_time, best, own)
        found["chance_time_distance"] = mean_distance(in_time, candidates[None, :], own[:, None])
    return found


def _own_patch(grid: TokenGrid, patches: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Return, for each position of the grid, the patch that contains its centre."""
    places = [
        ((2 * np.arange(size) + 1) * parts) // (2 * size)
        for size, parts in zip(grid.extent, patches, strict=True)
    ]
    own: np.ndarray[Any, np.dtype[np.intp]] = np.ravel_multi_index(np.ix_(*places), patches).ravel()
    return own


def _patch_centres(layer: LayerSums) -> Floats:
    """Return the centres (patches, axes) of all patches, in frames and pixels."""
    edges = [
        np.asarray(patch_edges(size, parts), dtype=float)
        for size, parts in zip(layer.image, layer.patches, strict=True)
    ]
    middle = np.meshgrid(*((each[1:] + each[:-1]) / 2 for each in edges), indexing="ij")
    return np.stack(middle, axis=-1).reshape(-1, len(edges))


def _common(sides: list[list[float]]) -> list[Any] | str:
    """Return (frames,) height and width if all layers have the same."""
    extents = set(zip(*sides, strict=True))
    return list(extents.pop()) if len(extents) == 1 else "per layer"


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
            f"{operation}: constant over the samples of every batch, or below 1e-18 (1e-76 in "
            f"float64), where squares vanish, so their CKA is undefined (NaN):\n"
            f"{shown}  They do not count in hit_rate.",
            DegenerateWarning,
        )
