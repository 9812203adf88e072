"""The first batch with NaN or infinity, found without waiting for an accelerator."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["FirstBad"]

NEVER = torch.iinfo(torch.int32).max
"""The number of a non-finite batch if there is none."""


class FirstBad:
    """The number of the first batch that was not finite, by name.

    Reading a value of an accelerator waits for all that runs on it. Numbers there are therefore
    read once, after the last batch.

    Parameters
    ----------
    error : callable
        Makes the error of a name and a number of a batch.
    """

    def __init__(self, error: Callable[[str, int], Exception]) -> None:
        self._error = error
        self._batches: dict[str, Tensor] = {}

    def add(self, name: str, finite: Tensor, batch: int) -> None:
        """Add whether a batch was finite, a 0-d bool."""
        here = torch.where(finite, NEVER, batch).to(torch.int32)
        before = self._batches.get(name)
        self._batches[name] = here if before is None else torch.minimum(before, here)

    def check(self, *, wait: bool) -> None:
        """Raise the error of a batch that was not finite.

        Parameters
        ----------
        wait : bool
            Whether to read the numbers on accelerators too.
        """
        for name, batch in self._batches.items():
            if (wait or batch.device.type == "cpu") and int(batch) != NEVER:
                raise self._error(name, int(batch))
