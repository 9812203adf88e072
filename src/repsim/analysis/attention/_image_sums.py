"""Sums over the attention of images, between patches of one grid or in windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repsim.analysis.attention._chunks import entries_at_a_time
from repsim.analysis.attention._layer_sums import HeadSums, LayerSums
from repsim.analysis.attention._places import Places
from repsim.attention import grid_distances, uniform_distance
from repsim.capture import AttentionCall, log_of

__all__ = ["ImageSums", "add_rows"]


class ImageSums(HeadSums):
    """Sums over images and patches of one layer.

    For each head: the distances, the attention to the prefix and to the patches, Σ P log P, the
    renormalised distances, and the number of patches that attend to any.
    """

    added = ("totals", "rows")

    def __init__(self, places: Places, heads: int, device: torch.device) -> None:
        super().__init__(6, heads, device)
        self.places = places
        self.rows = 0
        self._real: Tensor | None = None
        if places.real is not None:
            self._real = torch.tensor(places.real, device=device)

    def fits(self, places: Places, heads: int) -> bool:
        """Whether a call of these places can be added."""
        return (self.places, self.heads) == (places, heads)

    def fits_sums(self, other: LayerSums) -> bool:
        """Whether the sums of another rank can be added."""
        return isinstance(other, ImageSums) and self.fits(other.places, other.heads)

    def rows_of(self, call: AttentionCall, tables: Sequence[Tensor]) -> Tensor:
        """Reduce the weights of one batch over their keys, while each part is in the cache.

        Parameters
        ----------
        call : AttentionCall
            Of (batch, heads, tokens, tokens).
        tables : sequence of torch.Tensor, each of shape (patches, keys)
            Distances.

        Returns
        -------
        torch.Tensor, shape (tables + 3, batch, heads, patches)
            For each patch its distance by each table, its attention to the prefix and to the
            patches, and Σ P log₂ P; with E in place of P where the call is :meth:`unscaled`.
        """
        p = self.places.grid.prefix
        real = self._real_rows(call)
        shape = (len(tables) + 3, call.batch, call.heads, call.queries - p)
        found = torch.empty(shape, dtype=tables[0].dtype, device=call.output.device)
        for samples, part, rows, logs in call.powers(entries_at_a_time(call)):
            first = max(part.start, p)
            if first >= part.stop:
                continue  # without prefix tokens as queries
            queries = slice(first - p, part.stop - p)
            rows, logs = rows[:, :, first - part.start :], logs[:, :, first - part.start :]
            if real is not None:
                rows = _among_real(rows, real[samples], slice(first, part.stop))
                logs = log_of(rows).mul_(1 / math.log(2))
            # Sums in one precision, and further sums in the other.
            sums = found[:, samples, :, queries]
            torch.sum(rows[..., :p], -1, out=sums[-3])
            torch.sum(rows[..., p:], -1, out=sums[-2])
            torch.sum(logs.mul_(rows), -1, out=sums[-1])
            for table, far in zip(tables, sums, strict=False):
                torch.sum(torch.mul(rows, table[queries], out=logs), -1, out=far)
        return found

    def unscaled(self, call: AttentionCall) -> bool:
        """Whether the rows of a call are those of weights before the division by their sums."""
        return call.unscaled and self._real is None

    def count(self, call: AttentionCall) -> None:
        """Count the patches of a batch that attend, without padding."""
        real = self.places.real
        if real is None:
            self.rows += call.batch * (call.keys - self.places.grid.prefix)
        else:
            self.rows += call.batch // len(real) * sum(map(sum, real))

    def _real_rows(self, call: AttentionCall) -> Tensor | None:
        """Return (batch, keys): which positions of each window of each sample are tokens."""
        if self._real is None:
            return None
        return self._real.repeat(call.batch // len(self._real), 1)

    def uniform_distance(self) -> float:
        """Return the mean distance of a head that attends equally to all tokens, in pixels."""
        return uniform_attention(self.places)

    def uniform_entropy(self) -> float:
        """Return the mean entropy of a head that attends equally to all tokens, in nats."""
        if self.places.real is None:
            return math.log(self.places.grid.n_tokens)
        tokens = np.array(self.places.real, dtype=float).sum(1)  # of each window
        return float((tokens * np.log(np.maximum(tokens, 1))).sum() / tokens.sum())

    def means(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return (4, heads)."""
        far, mass, _, information, ratio, some = self.totals.cpu().to(torch.float64).numpy()
        with np.errstate(invalid="ignore"):
            renormalised = ratio / some  # NaN if no patch of the head attends to any patch
        return np.stack([far / self.rows, renormalised, mass / self.rows, -information / self.rows])


def add_rows(layers: Sequence[tuple[ImageSums, Tensor]], *, unscaled: bool) -> Tensor:
    """Add the rows of one batch to the sums of layers of one shape, all layers at once.

    Short operations between the layers of a model cost several times what they cost together,
    because the processor has to fetch their instructions again.

    Parameters
    ----------
    layers : sequence of (ImageSums, torch.Tensor)
        The sums of each layer, and what :meth:`ImageSums.rows_of` returns for one table: (4,
        batch, heads, patches).
    unscaled : bool
        Whether the rows are those of weights before the division by their sums.

    Returns
    -------
    torch.Tensor, shape (layers,)
        Whether the rows of each layer are finite.
    """
    each = torch.stack([rows for _, rows in layers], dim=1)
    if unscaled:
        total = each[1] + each[2]
        each /= total
        each[3] -= total.log2()
    far, _, patches, _ = each
    ratios = torch.empty((2, *far.shape), dtype=far.dtype, device=far.device)
    # The distance is 0 where the attention to patches is.
    torch.div(far, patches.clamp_min(torch.finfo(far.dtype).tiny), out=ratios[0])
    torch.gt(patches, 0, out=ratios[1])
    dtype = layers[0][0].totals.dtype
    sums = torch.cat([part.sum((2, 4), dtype=dtype) for part in (each, ratios)])
    sums[3] *= math.log(2)
    for (layer, _), added in zip(layers, sums.unbind(1), strict=True):
        layer.totals += added
    return torch.isfinite(sums).all(0).all(-1)


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
