"""Sums of attention distances and related quantities over batches, one row per layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from repsim._errors import CaptureError, InputError, NonFiniteError, warn
from repsim.analysis.attention._chunks import NEVER, queries_at_a_time
from repsim.analysis.attention._cross_sums import CrossSums
from repsim.analysis.attention._places import NoDistance, Places, PlacesFinder, n_samples
from repsim.analysis.attention._text_sums import TextSums
from repsim.attention import grid_distances, uniform_distance
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
        self._tables: dict[tuple[TokenGrid, torch.device, torch.dtype], Tensor] = {}

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
            kind = TextSums if places.text else _LayerSums
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
        else:
            sums.add(call, self._distances(call, places.grid), self._batch)

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
        uniform = [sums.uniform_distance() for sums in self._layers.values()]
        texts = [
            isinstance(sums, TextSums)
            for sums in self._layers.values()
            if not isinstance(sums, CrossSums)
        ]
        names = _MEANS if any(texts) else _MEANS[:-1]
        variables = dict(zip(names, values, strict=False))
        variables["uniform_distance"] = np.array(uniform)
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

    def _distances(self, call: AttentionCall, grid: TokenGrid) -> Tensor:
        """Return (patches, keys) in pixels; 0 for prefix tokens."""
        device = call.output.device
        dtype = torch.float64 if call.output.dtype == torch.float64 else torch.float32
        key = (grid, device, dtype)
        if key not in self._tables:
            assert grid.step is not None, "places have a step"
            distances = torch.from_numpy(grid_distances(grid.size, grid.step)).to(dtype)
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
    return {
        "kind": ["cross" if grid is None else "self" for grid in grids],
        "grid_height": [0 if grid is None else grid.height for grid in grids],
        "grid_width": [0 if grid is None else grid.width for grid in grids],
        "patch_height": [step[0] for step in steps],
        "patch_width": [step[1] for step in steps],
        "prefix": [0 if grid is None else grid.prefix for grid in grids],
    }


_MEANS = ("distance", "renormalised", "prefix_mass", "entropy", "sink_mass")
"""The names of the results of `means`, in order; the last one for text only."""

_IN_PIXELS = ("distance", "renormalised", "uniform_distance", "patch_height", "patch_width")
"""Quantities in pixels for an image and in tokens for a text."""


class _LayerSums:
    """Sums over images and patches of one layer: (distance, renormalised, mass, entropy, rows)."""

    def __init__(self, places: Places, heads: int, device: torch.device) -> None:
        self.places = places
        self.heads = heads
        # Apple's GPUs lack float64.
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.totals = torch.zeros(5, heads, dtype=dtype, device=device)
        self.first_bad = torch.tensor(NEVER, dtype=torch.int32, device=device)
        self.rows = 0
        self._real: Tensor | None = None
        if places.real is not None:
            self._real = torch.tensor(places.real, device=device)

    def fits(self, places: Places, heads: int) -> bool:
        """Whether a call of these places can be added."""
        return (self.places, self.heads) == (places, heads)

    def add(self, call: AttentionCall, distances: Tensor, batch: int) -> None:
        """Add the weights of one batch, chunk by chunk while each is in the cache."""
        p, dtype = self.places.grid.prefix, self.totals.dtype
        sums = torch.zeros_like(self.totals)
        real = self._real_rows(call)
        for part, weights in call.weights(queries_at_a_time(call)):
            if part.stop <= p:
                continue  # without prefix tokens as queries
            first = max(part.start, p)
            rows = weights[:, :, first - part.start :]
            if real is not None:
                rows = _among_real(rows, real, slice(first, part.stop))
            # (batch, heads, queries): pairwise sums in one precision, then further sums in the
            # other.
            far = (rows * distances[first - p : part.stop - p]).sum(-1).to(dtype)
            mass = rows[..., :p].sum(-1).to(dtype)
            patches = rows[..., p:].sum(-1).to(dtype)
            some = patches > 0
            ratio = torch.where(some, far / patches, 0.0)
            # 0 log 0 = 0: take the logarithm of the least number for zeros (special.entr is
            # slower).
            logs = rows.clamp_min(torch.finfo(rows.dtype).tiny).log_()
            entropy = logs.mul_(rows).sum(-1).to(dtype).neg_()
            each = torch.stack([far, ratio, mass, entropy, some.to(dtype)])
            sums += each.sum((1, 3))
        finite = torch.isfinite(sums).all()
        here = torch.where(finite, NEVER, batch).to(torch.int32)
        self.first_bad = torch.minimum(self.first_bad, here)
        self.totals += sums
        self.rows += self._n_queries(call)

    def _real_rows(self, call: AttentionCall) -> Tensor | None:
        """Return (batch, keys): which positions of each window of each sample are tokens."""
        if self._real is None:
            return None
        return self._real.repeat(call.batch // len(self._real), 1)

    def _n_queries(self, call: AttentionCall) -> int:
        """Return the number of patches of a batch that attend, without padding."""
        real = self.places.real
        if real is None:
            return call.batch * (call.keys - self.places.grid.prefix)
        return call.batch // len(real) * sum(map(sum, real))

    def uniform_distance(self) -> float:
        """Return the mean distance of a head that attends equally to all tokens, in pixels."""
        return uniform_attention(self.places)

    def means(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return (4, heads)."""
        far, ratio, mass, entropy, some = self.totals.cpu().to(torch.float64).numpy()
        with np.errstate(invalid="ignore"):
            renormalised = ratio / some  # NaN if no patch of the head attends to any patch
        return np.stack([far / self.rows, renormalised, mass / self.rows, entropy / self.rows])


_Sums: TypeAlias = _LayerSums | TextSums | CrossSums


def uniform_attention(places: Places) -> float:
    """Return the mean distance of a head that attends equally to all tokens, in pixels."""
    grid = places.grid
    if places.real is None:
        return uniform_distance(grid.size, places.step, grid.prefix)
    real = np.array(places.real, dtype=float)
    distances = grid_distances(grid.size, places.step)
    # A window without tokens has neither queries nor keys.
    real = real[real.any(1)]
    per_query = (real @ distances) / real.sum(1, keepdims=True)
    return float((real * per_query).sum() / real.sum())


def _among_real(rows: Tensor, real: Tensor, queries: slice) -> Tensor:
    """Return weights that sum to 1 over keys that are tokens; 0 for queries that are padding."""
    kept = rows * real[:, None, None, :]
    total = kept.sum(-1, keepdim=True)
    counted = real[:, None, queries, None] & (total > 0)
    return torch.where(counted, kept / total, 0.0)
