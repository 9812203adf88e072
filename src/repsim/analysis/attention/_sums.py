"""Sums of attention distances and related quantities over batches, one row per layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from repsim._errors import CaptureError, InputError, NonFiniteError, warn
from repsim.analysis.attention._chunks import NEVER
from repsim.analysis.attention._cross_sums import CrossSums
from repsim.analysis.attention._image_sums import ImageSums
from repsim.analysis.attention._places import NoDistance, Places, PlacesFinder, n_samples
from repsim.analysis.attention._text_sums import TextSums
from repsim.analysis.attention._video_sums import VideoSums, in_space, in_time
from repsim.capture import AttentionCall, AttentionRecorder, Masks, listing
from repsim.capture.tokens import TokenGrid, TokenOptions
from repsim.results import ATTENTION_DISTANCE

if TYPE_CHECKING:
    import xarray

__all__ = ["AttentionDistances"]


class AttentionDistances:
    """Sums of distance, renormalised distance, prefix mass and entropy of heads, over batches.

    Parameters
    ----------
    options : TokenOptions
        The caller's options about where tokens lie.
    masks : Masks
        Which tokens of a text are real.
    """

    def __init__(self, options: TokenOptions, masks: Masks) -> None:
        self._operation = options.operation
        self.masks = masks
        self._finder = PlacesFinder(options)
        self.n_samples = 0
        self._batch = -1
        self._size: int | None = None
        self._layers: dict[tuple[str, int], _Sums] = {}
        self._left_out: dict[tuple[str, int], str] = {}
        self._tables: dict[tuple[TokenGrid, bool, torch.device, torch.dtype], Tensor] = {}

    def start(self, batch: Any) -> None:
        """Prepare for the next batch, in the form that the model gets."""
        self._batch += 1
        self._size = None
        self.masks.start(batch)

    def add(self, call: AttentionCall) -> None:
        """Add one attention call of the running forward."""
        key = (call.name, call.call)
        if _is_cross(call):
            self._add_cross(key, call)
            return
        try:
            places = self._finder.of(call)
        except NoDistance as reason:
            self._left_out[key] = str(reason)
            return
        self._size = n_samples(call)
        sums = self._layers.get(key)
        if sums is None:
            kind = TextSums if places.text else VideoSums if places.video else ImageSums
            sums = self._layers[key] = kind(places, call.heads, call.output.device)
        elif isinstance(sums, CrossSums) or not sums.fits(places, call.heads):
            raise InputError(
                f"{self._operation}: layer {call.label!r} changes from batch to batch.\n"
                f"  before: {sums.places and sums.places.grid}, {sums.heads} heads\n"
                f"  batch {self._batch}: {places.grid}, {call.heads} heads\n"
                f"  Images of one size belong into one call: sort them by size."
            )
        if isinstance(sums, TextSums):
            sums.add(call, self._mask(call), self._batch)
        elif isinstance(sums, VideoSums):
            space = self._distances(call, places.grid, in_space)
            time = self._distances(call, places.grid, in_time)
            sums.add(call, space, time, self._batch)
        else:
            sums.add(call, self._distances(call, places.grid, in_space), self._batch)

    def _add_cross(self, key: tuple[str, int], call: AttentionCall) -> None:
        """Add one call of cross-attention, which has an entropy and no distance."""
        sums = self._layers.setdefault(key, CrossSums(call.heads, call.output.device))
        if not isinstance(sums, CrossSums) or sums.heads != call.heads:
            raise InputError(
                f"{self._operation}: layer {call.label!r} changes from batch to batch.\n"
                f"  batch {self._batch}: cross-attention of {call.heads} heads\n"
                f"  Pass batches of one kind."
            )
        self._size = self._size or n_samples(call)
        sums.add(call, self.masks.of_queries(call.name, (call.batch, call.queries)), self._batch)

    def finish(self, recorder: AttentionRecorder) -> None:
        """Check a finished batch, if that need not wait for an accelerator."""
        self.n_samples += self._size or 0
        for key, sums in self._layers.items():
            if sums.totals.device.type == "cpu":
                self._check_finite(recorder, key, sums)

    def dataset(self, recorder: AttentionRecorder) -> xarray.Dataset:
        """Return the means; see :func:`attention_distance`."""
        self._report(recorder)
        for key, sums in self._layers.items():
            self._check_finite(recorder, key, sums)
        self._finder.options.check_used("layer with attention")
        most = max(sums.heads for sums in self._layers.values())
        values = np.full((5, len(self._layers), most), np.nan)
        for i, sums in enumerate(self._layers.values()):
            means = sums.means()
            values[: len(means), i, : sums.heads] = means
        along = _along([sums.places for sums in self._layers.values()])
        texts = [
            isinstance(sums, TextSums)
            for sums in self._layers.values()
            if not isinstance(sums, CrossSums)
        ]
        names = _MEANS if any(texts) else _MEANS[:-1]
        variables = dict(zip(names, values, strict=False))
        layers = self._layers.values()
        variables["uniform_distance"] = np.array([sums.uniform_distance() for sums in layers])
        variables["uniform_entropy"] = np.array([sums.uniform_entropy() for sums in layers])
        if any(isinstance(sums, VideoSums) for sums in self._layers.values()):
            variables |= _of_time(list(self._layers.values()), most)
        labels = [recorder.label(*key) for key in self._layers]
        result = ATTENTION_DISTANCE.dataset(
            variables, {"layer": labels, "head": np.arange(most), **along}
        )
        if any(texts):
            unit = "tokens" if all(texts) else "pixels of images, tokens of texts"
            for name in _IN_PIXELS:
                result[name].attrs["units"] = unit
        return result

    def _mask(self, call: AttentionCall) -> Tensor | None:
        """Return which tokens of a text are real; None means all."""
        mask = self.masks.of(call.name, (call.batch, call.keys), call.call)
        if mask is not None and mask.shape != (call.batch, call.keys):
            raise InputError(
                f"{self._operation}: the mask does not fit layer {call.label!r}.\n"
                f"  texts × tokens: {(call.batch, call.keys)}    mask: {tuple(mask.shape)}\n"
                f"  Give each layer its own mask: mask={{name or glob: key of the batch, or None}}."
            )
        return mask

    def _distances(
        self, call: AttentionCall, grid: TokenGrid, between: Callable[[TokenGrid], Any]
    ) -> Tensor:
        """Return (patches, keys) in pixels or frames; 0 for prefix tokens."""
        device = call.output.device
        dtype = torch.float64 if call.output.dtype == torch.float64 else torch.float32
        key = (grid, between is in_time, device, dtype)
        if key not in self._tables:
            distances = torch.from_numpy(between(grid)).to(dtype)
            self._tables[key] = nn.functional.pad(distances, (grid.prefix, 0)).to(device)
        return self._tables[key]

    def _check_finite(self, recorder: AttentionRecorder, key: tuple[str, int], sums: _Sums) -> None:
        batch = int(sums.first_bad)
        if batch != NEVER:
            raise NonFiniteError(
                f"{self._operation}: NaN or infinity in the attention of layer "
                f"{recorder.label(*key)!r}, batch {batch} (counted from 0).\n"
                f"  Does the input contain it? In half precision scores overflow: try float32."
            )

    def _report(self, recorder: AttentionRecorder) -> None:
        left = {recorder.label(*key): why for key, why in self._left_out.items()}
        shown = "".join(f"  {label} {why}\n" for label, why in list(left.items())[:8])
        more = f"  and {len(left) - 8} more\n" if len(left) > 8 else ""
        required = [recorder.label(*key) for key in self._left_out if recorder.requires(*key)]
        if required or not self._layers:
            what = listing(required) if required else "any layer"
            raise CaptureError(
                f"{self._operation}: there are no distances in {what}.\n{shown}{more}"
                f"  Distances are between tokens that lie in a grid and attend to one another."
            )
        if left:
            text = f"{self._operation}: left out, because they have no distances:\n{shown}{more}"
            warn(text.rstrip())


def _is_cross(call: AttentionCall) -> bool:
    """Whether a call attends to another sequence, and does not pool by one learned query."""
    pools = isinstance(call.module, nn.MultiheadAttention) and call.queries == 1
    return call.frames[-1].cross and not pools


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


def _of_time(layers: list[_Sums], most: int) -> dict[str, Any]:
    """Return the variables along time; NaN for layers without frames."""
    values, uniform = np.full((len(layers), most), np.nan), np.full(len(layers), np.nan)
    for i, sums in enumerate(layers):
        if isinstance(sums, VideoSums):
            values[i, : sums.heads] = sums.time_distance()
            uniform[i] = sums.uniform_time_distance()
    return {"time_distance": values, "uniform_time_distance": uniform}


_MEANS = ("distance", "renormalised", "prefix_mass", "entropy", "sink_mass")
"""The names of the results of `means`, in order; the last one for text only."""

_IN_PIXELS = ("distance", "renormalised", "uniform_distance", "patch_height", "patch_width")
"""Quantities in pixels for an image and in tokens for a text."""


_Sums: TypeAlias = ImageSums | VideoSums | TextSums | CrossSums
