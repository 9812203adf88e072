"""The sums of attention over batches, of one process or of several, and their means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from repsim._errors import InputError
from repsim.analysis.attention._cross_sums import CrossSums
from repsim.analysis.attention._image_sums import ImageSums
from repsim.analysis.attention._places import Places
from repsim.analysis.attention._text_sums import TextSums
from repsim.analysis.attention._video_sums import VideoSums
from repsim.analysis.run.ranks import union_in_order
from repsim.results import ATTENTION_DISTANCE

if TYPE_CHECKING:
    import xarray

__all__ = ["AnySums", "AttentionTotals", "LayerTotals"]

AnySums: TypeAlias = ImageSums | VideoSums | TextSums | CrossSums

MEANS = ("distance", "renormalised", "prefix_mass", "entropy", "sink_mass")
"""The names of the results of `means`, in order; the last one for text only."""

IN_PIXELS = ("distance", "renormalised", "uniform_distance", "patch_height", "patch_width")
"""Quantities in pixels for an image and in tokens for a text."""


@dataclass(frozen=True)
class LayerTotals:
    """The name of a layer, and its sums, on the CPU."""

    label: str
    sums: AnySums

    @staticmethod
    def merge(operation: str, parts: Sequence[LayerTotals]) -> LayerTotals:
        """Return the sums of one layer over the samples of all parts."""
        label = max((each.label for each in parts), key=len)  # with the call, if it has several
        first, *others = (each.sums for each in parts)
        for other in others:
            if not first.fits_sums(other):
                raise InputError(
                    f"{operation}: layer {label!r} must have the same grid and heads on all ranks."
                    f"\n  got {_described(first)}; {_described(other)}\n"
                    f"  Images of one size belong into one call: sort them by size."
                )
        return LayerTotals(label, first.plus(others))  # type: ignore[arg-type]


@dataclass(frozen=True)
class AttentionTotals:
    """The sums of all layers.

    Attributes
    ----------
    operation : str
        The analysis, for errors.
    layers : mapping of (str, int) to LayerTotals
        By module and count of its earlier calls in a forward, in execution order.
    n_samples : int
        The number of samples.
    """

    operation: str
    layers: Mapping[tuple[str, int], LayerTotals]
    n_samples: int

    @staticmethod
    def merge(parts: Sequence[AttentionTotals]) -> AttentionTotals:
        """Return the sums over the samples of all parts."""
        operation = parts[0].operation
        layers = {
            key: LayerTotals.merge(
                operation, [each.layers[key] for each in parts if key in each.layers]
            )
            for key in union_in_order([list(each.layers) for each in parts])
        }
        return AttentionTotals(operation, layers, sum(each.n_samples for each in parts))

    def dataset(self) -> xarray.Dataset:
        """Return the means; see :func:`repsim.attention_distance`."""
        layers = [each.sums for each in self.layers.values()]
        most = max(sums.heads for sums in layers)
        values = np.full((5, len(layers), most), np.nan)
        for i, sums in enumerate(layers):
            means = sums.means()
            values[: len(means), i, : sums.heads] = means
        texts = [isinstance(sums, TextSums) for sums in layers if not isinstance(sums, CrossSums)]
        names = MEANS if any(texts) else MEANS[:-1]
        variables = dict(zip(names, values, strict=False))
        variables["uniform_distance"] = np.array([sums.uniform_distance() for sums in layers])
        variables["uniform_entropy"] = np.array([sums.uniform_entropy() for sums in layers])
        if any(isinstance(sums, VideoSums) for sums in layers):
            variables |= _of_time(layers, most)
        labels = [each.label for each in self.layers.values()]
        along = _along([sums.places for sums in layers])
        result = ATTENTION_DISTANCE.dataset(
            variables, {"layer": labels, "head": np.arange(most), **along}
        )
        if any(texts):
            unit = "tokens" if all(texts) else "pixels of images, tokens of texts"
            for name in IN_PIXELS:
                result[name].attrs["units"] = unit
        return result


def _described(sums: AnySums) -> str:
    return f"{sums.heads} heads, {'no grid' if sums.places is None else sums.places.grid}"


def _along(places: list[Places | None]) -> dict[str, list[Any]]:
    """Return the coordinates along layers; those of cross-attention have no grid."""
    grids = [None if p is None else p.grid for p in places]
    steps = [(np.nan, np.nan) if p is None else p.step for p in places]
    along: dict[str, list[Any]] = {
        "kind": ["cross" if grid is None else "self" for grid in grids],
        "grid_height": [0 if grid is None else grid.height for grid in grids],
        "grid_width": [0 if grid is None else grid.width for grid in grids],
        "patch_height": [step[0] for step in steps],
        "patch_width": [step[1] for step in steps],
        "prefix": [0 if grid is None else grid.prefix for grid in grids],
    }
    if any(p is not None and p.video for p in places):
        along["grid_frames"] = [0 if grid is None else grid.frames or 1 for grid in grids]
        frame_steps = [None if grid is None else grid.frame_step for grid in grids]
        along["patch_frames"] = [np.nan if step is None else step for step in frame_steps]
    return along


def _of_time(layers: list[AnySums], most: int) -> dict[str, Any]:
    """Return the variables along time; NaN for layers without frames."""
    values, uniform = np.full((len(layers), most), np.nan), np.full(len(layers), np.nan)
    for i, sums in enumerate(layers):
        if isinstance(sums, VideoSums):
            values[i, : sums.heads] = sums.time_distance()
            uniform[i] = sums.uniform_time_distance()
    return {"time_distance": values, "uniform_time_distance": uniform}
