"""The first batch with NaN or infinity, found without waiting for an accelerator."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import torch
from torch import Tensor

__all__ = ["FirstBad"]

NEVER = torch.iinfo(torch.int64).max
"""The number of a non-finite batch if there is none."""


Name = TypeVar("Name", bound=Hashable)


class FirstBad(Generic[Name]):
    """The number of the first batch that was not finite, by the name of a layer or another key.

    Reading a value of an accelerator waits for all that runs on it. Numbers there are therefore
    read once, after the last batch.

    Parameters
    ----------
    error : callable
        Makes the error of a name and a number of a batch.
    """

    def __init__(self, error: Callable[[Name, int], Exception]) -> None:
        self._error = error
        self._batches: dict[Name, Tensor] = {}
        self._details: dict[Name, Tensor] = {}

    def add(self, name: Name, finite: Tensor, batch: int, detail: Tensor | None = None) -> None:
        """Add whether a batch was finite, a 0-d bool, and a 0-d whole number about what was not."""
        here = torch.where(finite, NEVER, batch)
        before = self._batches.get(name)
        self._batches[name] = here if before is None else torch.minimum(before, here)
        if detail is not None:
            if before is not None:
                detail = torch.where(here < before, detail, self._details[name])
            self._details[name] = detail

    def detail(self, name: Name) -> int:
        """Return the number that came with the first batch that was not finite."""
        return int(self._details[name])

    def check(self, *, wait: bool) -> None:
        """Raise the error of the first batch that was not finite.

        Parameters
        ----------
        wait : bool
            Whether to read the numbers on accelerators too, all of one device at once.
        """
        by_device: dict[torch.device, list[Name]] = {}
        for name, batch in self._batches.items():
            if wait or batch.device.type == "cpu":
                by_device.setdefault(batch.device, []).append(name)
        numbers: dict[Name, int] = {}
        for names in by_device.values():
            read = torch.stack([self._batches[name] for name in names]).tolist()
            numbers.update(zip(names, read, strict=True))
        first = min(numbers.values(), default=NEVER)
        for name in self._batches:
            if first != NEVER and numbers.get(name) == first:
                raise self._error(name, first)
