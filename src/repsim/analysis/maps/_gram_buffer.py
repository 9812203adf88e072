"""Memory for the Grams of one batch after another, taken once."""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["GramBuffer"]

BLOCK_BYTES = 1 << 22
"""Of Grams that lie side by side: one block for hundreds of small ones."""


class GramBuffer:
    """Where the Grams of a batch are kept until the next one's take their place.

    A Gram is small and outlives the activations around it. Each in memory of its own, they would
    stand between the activations that come and go, and the allocator could not use the space of
    two for a larger one: a forward pass would take more and more from the system.
    """

    def __init__(self) -> None:
        self._blocks: dict[Any, list[Tensor]] = {}
        self._used: dict[Any, int] = {}

    def keep(self, gram: Tensor) -> Tensor:
        """Return a copy of a Gram (n, n) that holds its values until :meth:`forget`."""
        key = gram.shape, gram.dtype, gram.device
        blocks = self._blocks.setdefault(key, [])
        together = max(1, BLOCK_BYTES // (gram.numel() * gram.element_size()))
        block, place = divmod(self._used.get(key, 0), together)
        if block == len(blocks):
            blocks.append(gram.new_empty((together, *gram.shape)))
        self._used[key] = block * together + place + 1
        return blocks[block][place].copy_(gram)

    def forget(self) -> None:
        """Let what comes next take the place of all that was kept.

        Room of a kind that was not used since the last call is given back, so that batches of many
        sizes do not each keep theirs.
        """
        self._blocks = {key: self._blocks[key] for key in self._used}
        self._used = {}
