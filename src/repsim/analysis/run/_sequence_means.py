"""Means over tokens, with standard errors by sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

__all__ = ["SequenceMeans"]

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


class SequenceMeans:
    """The means of K quantities over all tokens of all sequences so far.

    Tokens of one sequence are dependent, so the standard error is that of the ratio of two sums
    over N sequences, with s the sum over the tokens of a sequence and n their number::

        m = Σs / Σn     SE² = N/(N − 1) · Σ(s − m n)² / (Σn)²

    Sums are kept about the mean of the batches so far, because Σs² − ... would cancel.
    """

    def __init__(self) -> None:
        self._state: Tensor | None = None  # (4, K): mean, Σ(s − mn)², Σ(s − mn)n, and Σn²
        self._tokens: Tensor | float = 0.0
        self.n = 0
        """The number of sequences so far."""

    def add(self, sums: Tensor, counts: Tensor) -> None:
        """Add the sequences of one batch.

        Parameters
        ----------
        sums : torch.Tensor, shape (K, B)
            The sums over the tokens of each sequence.
        counts : torch.Tensor, shape (B,)
            The number of tokens of each sequence.
        """
        counts = counts.to(sums.dtype)
        tokens = self._tokens + counts.sum()
        before = sums.new_zeros(4, len(sums)) if self._state is None else self._state
        mean = before[0]
        now = (mean * self._tokens + sums.sum(1)) / tokens
        rest = sums - now[:, None] * counts
        _, squares, products, weights = _about(before, now)
        squares = squares + (rest**2).sum(1)
        products = products + (rest * counts).sum(1)
        weights = weights + (counts**2).sum()
        self._state = torch.stack([now, squares, products, weights])
        self._tokens = tokens
        self.n += len(counts)

    def on_host(self) -> SequenceMeans:
        """Return the same sums on the CPU, which other processes can read."""
        out = SequenceMeans()
        out._state = None if self._state is None else self._state.cpu().to(torch.float64)
        out._tokens, out.n = float(self._tokens), self.n
        return out

    @staticmethod
    def merge(parts: Sequence[SequenceMeans]) -> SequenceMeans:
        """Return the means over the sequences of all parts, on the CPU."""
        out = SequenceMeans()
        for each in map(SequenceMeans.on_host, parts):
            if out._state is None or each._state is None:
                out._state = each._state if out._state is None else out._state
            else:
                tokens = out._tokens + each._tokens
                mean = (out._state[0] * out._tokens + each._state[0] * each._tokens) / tokens
                out._state = _about(out._state, mean) + _about(each._state, mean)
                out._state[0] = mean
            out._tokens = out._tokens + each._tokens
            out.n += each.n
        return out

    def result(self) -> tuple[Floats, Floats]:
        """Return the means and their standard errors, NaN for the errors of one sequence."""
        assert self._state is not None
        mean, squares = self._state[:2].cpu().to(torch.float64).numpy()
        factor = self.n / (self.n - 1) if self.n > 1 else np.nan
        return mean, np.sqrt(factor * squares) / float(self._tokens)


def _about(state: Tensor, mean: Tensor) -> Tensor:
    """Return the sums of a state about another mean."""
    before, squares, products, weights = state
    moved = mean - before
    squares = squares - 2 * moved * products + moved**2 * weights
    return torch.stack([mean, squares, products - moved * weights, weights])
