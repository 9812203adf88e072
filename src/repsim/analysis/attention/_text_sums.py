"""Sums over the attention of text, where padding is neither a query nor a key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repsim.analysis.attention._chunks import queries_at_a_time
from repsim.analysis.attention._layer_sums import HeadSums, LayerSums
from repsim.analysis.attention._places import Places
from repsim.capture import AttentionCall, log_of

__all__ = ["TextSums"]


class TextSums(HeadSums):
    """Sums over texts and real queries of one layer, in batches of any length.

    Positions are counted among the real tokens of each text. So a text has the same distances
    whichever side its padding is on.

    Parameters
    ----------
    places : Places
        Those of the longest text so far.
    heads : int
        The number of heads.
    device : torch.device
        The device of the sums.
    """

    added = ("totals", "uniform", "rows")

    def __init__(self, places: Places, heads: int, device: torch.device) -> None:
        # distance, renormalised, prefix mass, entropy, queries that see a patch, sink mass
        super().__init__(6, heads, device)
        self.places, dtype = places, self.totals.dtype
        self.uniform = torch.zeros(2, dtype=dtype, device=device)  # distance, entropy
        self.rows = torch.zeros((), dtype=dtype, device=device)

    def fits(self, places: Places, heads: int) -> bool:
        """Whether a call of these places can be added: its length may differ."""
        return places.text and places.grid.prefix == self.places.grid.prefix and heads == self.heads

    def fits_sums(self, other: LayerSums) -> bool:
        """Whether the sums of another rank can be added."""
        return isinstance(other, TextSums) and self.fits(other.places, other.heads)

    def plus(self, others: Sequence[TextSums]) -> TextSums:
        """Return the sums together with those of other ranks, with the places of the longest."""
        total = super().plus(others)
        total.places = max((each.places for each in (self, *others)), key=lambda p: p.grid.width)
        return total

    def add(self, call: AttentionCall, mask: Tensor | None) -> Tensor:
        """Add the weights of one batch, one chunk of queries at a time.

        Parameters
        ----------
        call : AttentionCall
            Of texts (batch, heads, queries, keys).
        mask : torch.Tensor, shape (batch, keys), optional
            Which tokens are real; by default all.

        Returns
        -------
        torch.Tensor, 0-d bool
            Whether the weights are finite.
        """
        device, dtype = call.output.device, self.totals.dtype
        if mask is None:
            real = torch.ones(call.batch, call.keys, dtype=torch.bool, device=device)
        else:
            real = mask.to(device)
        place = real.cumsum(1) - 1  # among the real tokens of each text
        patch = real & (place >= self.places.grid.prefix)
        first = real & (place == 0)
        sums = torch.zeros_like(self.totals)
        for part, weights in call.weights(queries_at_a_time(call)):
            seen = weights.sum(-1, keepdim=True)
            kept = weights * real[:, None, None, :]
            total = kept.sum(-1, keepdim=True)
            # The remaining weights sum to the same; the sum is below 1 only if a learned sink gets
            # the rest.
            rows = torch.where(total > 0, kept * (seen / total), 0.0)
            counts = (patch[:, None, part] & (total[..., 0] > 0)).to(dtype)
            apart = (place[:, part, None] - place[:, None, :]).abs()
            apart = (apart * patch[:, None, :]).to(rows.dtype) * self.places.step[1]
            far = (rows * apart[:, None]).sum(-1).to(dtype)
            to_patches = (rows * patch[:, None, None, :]).sum(-1).to(dtype)
            mass = (rows * (real & ~patch)[:, None, None, :]).sum(-1).to(dtype)
            logs = log_of(rows)
            entropy = (rows * logs).sum(-1).to(dtype).neg()
            some = to_patches > 0
            ratio = torch.where(some, far / to_patches, 0.0)
            sink = (rows * first[:, None, None, :]).sum(-1).to(dtype) + (1 - seen[..., 0]).to(dtype)
            each = torch.stack([far, ratio, mass, entropy, some.to(dtype), sink])
            # NaN times zero is NaN, so values of padding must be replaced.
            sums += torch.where(counts > 0, each, 0.0).sum((1, 3))
            self._add_uniform(rows, apart, counts)
        if self.places.grid.width < call.keys:
            self.places = self.places.of_length(call.keys)
        return self.add_sums(sums)

    def _add_uniform(self, rows: Tensor, apart: Tensor, counts: Tensor) -> None:
        """Add attention that is uniform over the visible keys of each query."""
        allowed = (rows > 0).any(1).to(counts.dtype)  # in some head: a mask is of all heads
        seen = allowed.sum(-1).clamp_min(1)
        uniform = torch.stack([(allowed * apart).sum(-1) / seen, seen.log()])
        queries = counts.amax(1)
        self.uniform += (uniform * queries).sum((1, 2))
        self.rows += queries.sum()

    def means(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return (5, heads): as other sums, and the sink mass."""
        far, ratio, mass, entropy, some, sink = self.totals.cpu().to(torch.float64).numpy()
        rows = float(self.rows)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.stack([far / rows, ratio / some, mass / rows, entropy / rows, sink / rows])

    def uniform_distance(self) -> float:
        """Return the mean distance of uniform attention under the layer's own mask, in tokens."""
        return float(self.uniform[0] / self.rows)

    def uniform_entropy(self) -> float:
        """Return the mean entropy of uniform attention under the layer's own mask, in nats."""
        return float(self.uniform[1] / self.rows)
