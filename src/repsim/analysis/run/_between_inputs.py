"""Centring of Grams of tokens over pairs of tokens of different inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repsim.analysis._precision import sum_dtype

__all__ = ["between_inputs"]

Ints = np.ndarray[Any, np.dtype[np.int64]]


def between_inputs(grams: Mapping[str, Tensor], inputs: Ints) -> dict[str, Tensor]:
    """Centre Grams (n, n) over pairs of tokens of different inputs; all other entries become 0.

    ::

        A_ij = K_ij − a_i − a_j  for tokens of different inputs, with the a for which rows sum to 0

    U-centring is the case of one token an input, and leaves the result as it is. Tokens of one
    input depend on each other in both models, so their pairs would make independent inputs alike.

    Parameters
    ----------
    grams : mapping of str to torch.Tensor
        By layer; shared ones remain shared.
    inputs : array of n int
        The input of each token.
    """
    centrings: dict[torch.device, _Centring] = {}
    done: dict[int, Tensor] = {}
    for gram in grams.values():
        if id(gram) not in done:
            if gram.device not in centrings:
                centrings[gram.device] = _Centring(inputs, gram.device)
            done[id(gram)] = centrings[gram.device](gram)
    return {name: done[id(gram)] for name, gram in grams.items()}


class _Centring:
    """The centring of one batch, on one device."""

    def __init__(self, inputs: Ints, device: torch.device) -> None:
        _, numbers, counts = np.unique(inputs, return_inverse=True, return_counts=True)
        n = len(inputs)
        # Row i sums to 0: r_i = (n − n_g) a_i + T − T_g, with T_g the sum of a over input g and T
        # that of all. The sum over input g gives (n − 2 n_g) T_g + n_g T = R_g.
        system = np.diag(n - 2.0 * counts) + counts[:, None]
        self._wide = sum_dtype(device)
        solved, others = np.linalg.inv(system), n - counts[numbers]
        self._input, self._solved, self._others = (
            torch.from_numpy(each).to(device, dtype, non_blocking=True)
            for each, dtype in ((numbers, None), (solved, self._wide), (others, self._wide))
        )
        # A product, because index_add on an accelerator sums in any order.
        each = torch.arange(len(counts), device=device)
        self._members = (each[:, None] == self._input).to(self._wide)
        self._same = self._input[:, None] == self._input[None, :]

    def __call__(self, gram: Tensor) -> Tensor:
        """Return the centred Gram, in its dtype."""
        kept = gram.masked_fill(self._same, 0.0)
        rows = kept.sum(1, dtype=self._wide)
        totals = self._solved @ (self._members @ rows)
        a = ((rows - totals.sum() + totals[self._input]) / self._others).to(gram.dtype)
        return kept.sub_(a[:, None]).sub_(a[None, :]).masked_fill_(self._same, 0.0)
