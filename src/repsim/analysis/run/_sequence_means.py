"""Means over tokens, with standard errors by sequence."""

from __future__ import annotations

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
        mean, squares, products, weights = before
        now = (mean * self._tokens + sums.sum(1)) / tokens
        moved = now - mean
        rest = sums - now[:, None] * counts
        squares = squares - 2 * moved * products + moved**2 * weights + (rest**2).sum(1)
        products = products - moved * weights + (rest * counts).sum(1)
        weights = weights + (counts**2).sum()
        self._state = torch.stack([now, squares, products, weights])
        self._tokens = tokens
        self.n += len(counts)

    def result(self) -> tuple[Floats, Floats]:
        """Return the means and their standard errors, NaN for the errors of one sequence."""
        assert self._state is not None
        mean, squares = self._state[:2].cpu().to(torch.float64).numpy()
        factor = self.n / (self.n - 1) if self.n > 1 else np.nan
        return mean, np.sqrt(factor * squares) / float(self._tokens)
