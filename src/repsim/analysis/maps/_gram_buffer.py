"""Memory for Grams that is allocated once and used again for every batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["GramBuffer"]

BLOCK_BYTES = 1 << 22
"""Bytes of a block of adjacent Grams: one block holds hundreds of small Grams."""


class GramBuffer:
    """Memory that holds the Grams of a batch until the next batch overwrites them.

    A Gram is small and lives longer than the activations. If each were allocated separately, Grams
    would lie between freed activations and fragment the memory, so a forward pass would take more
    and more memory from the system.
    """

    def __init__(self) -> None:
        self._blocks: dict[Any, list[Tensor]] = {}
        self._used: dict[Any, int] = {}

    def keep(self, gram: Tensor) -> Tensor:
        """Return a copy of a Gram (n, n) that is valid until :meth:`forget`."""
        key = gram.shape, gram.dtype, gram.device
        blocks = self._blocks.setdefault(key, [])
        together = max(1, BLOCK_BYTES // (gram.numel() * gram.element_size()))
        block, place = divmod(self._used.get(key, 0), together)
        if block == len(blocks):
            blocks.append(gram.new_empty((together, *gram.shape)))
        self._used[key] = block * together + place + 1
        return blocks[block][place].copy_(gram)

    def forget(self) -> None:
        """Allow the next Grams to overwrite all stored ones.

        Memory of a size that was not used since the last call is freed, so batches of many sizes do
        not accumulate memory.
        """
        self._blocks = {key: self._blocks[key] for key in self._used}
        self._used = {}
