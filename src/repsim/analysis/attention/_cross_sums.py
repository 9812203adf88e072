"""Sums over attention from one sequence to another, which has no distances."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from repsim.analysis.attention._chunks import queries_at_a_time
from repsim.analysis.attention._layer_sums import HeadSums
from repsim.capture import AttentionCall, log_of

__all__ = ["CrossSums"]


class CrossSums(HeadSums):
    """The entropy of one layer of cross-attention, over samples and real queries.

    Parameters
    ----------
    heads : int
        The number of heads.
    device : torch.device
        The device of the sums.
    """

    added = ("totals", "uniform")
    places = None

    def __init__(self, heads: int, device: torch.device) -> None:
        super().__init__(2, heads, device)
        self.uniform = torch.zeros(2, dtype=self.totals.dtype, device=device)  # entropy, queries

    def add(self, call: AttentionCall, mask: Tensor | None) -> Tensor:
        """Add the weights of one batch, one chunk of queries at a time.

        Parameters
        ----------
        call : AttentionCall
            Of (batch, heads, queries, keys).
        mask : torch.Tensor, shape (batch, queries), optional
            Which queries are real; by default all.

        Returns
        -------
        torch.Tensor, 0-d bool
            Whether the weights are finite.
        """
        dtype, device = self.totals.dtype, call.output.device
        real = torch.ones(call.batch, call.queries, dtype=torch.bool, device=device)
        real = real if mask is None else mask.to(device)
        sums = torch.zeros_like(self.totals)
        for part, rows in call.weights(queries_at_a_time(call)):
            # A query without keys counts nowhere. NaN is not 0, and stays.
            counted = real[:, None, part] & (rows.sum(-1) != 0)
            logs = log_of(rows)
            entropy = (rows * logs).sum(-1).to(dtype).neg()
            each = torch.stack([entropy, torch.ones_like(entropy)])
            sums += torch.where(counted, each, 0.0).sum((1, 3))
            seen = (rows > 0).any(1).sum(-1).clamp_min(1).to(dtype)  # a mask is of all heads
            queries = counted.any(1).to(dtype)
            self.uniform += torch.stack([(seen.log() * queries).sum(), queries.sum()])
        return self.add_sums(sums)

    def means(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return (5, heads), as other sums do: NaN, except for the entropy."""
        entropy, rows = self.totals.cpu().to(torch.float64).numpy()
        none = np.full_like(entropy, np.nan)
        with np.errstate(invalid="ignore"):
            return np.stack([none, none, none, entropy / rows, none])

    def uniform_distance(self) -> float:
        """Return NaN: there are no distances."""
        return float("nan")

    def uniform_entropy(self) -> float:
        """Return the mean entropy of uniform attention under the layer's own mask, in nats."""
        entropy, queries = self.uniform.tolist()
        return entropy / queries if queries else float("nan")
