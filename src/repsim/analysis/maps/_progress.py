"""What `compare` keeps on disk while it runs, and how it goes on from there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from os import PathLike, fspath
from typing import Any

import numpy as np
import torch
from array_api_compat import device

from repsim._array import to_numpy
from repsim._errors import CheckpointError, warn
from repsim._typing import Array
from repsim.analysis.run._fingerprint import BatchLog
from repsim.kernels import Kernel
from repsim.storage import Checkpoint, uninterrupted
from repsim.streaming import MinibatchCKA, PilotKernels

__all__ = ["KeptKernels", "Progress", "joined", "split"]

_VALUES = "values"


class KeptKernels(PilotKernels):
    """Pilot kernels whose bandwidths go on in the dtype they were fixed in, to the last bit."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self.kept: dict[str, list[Any]] = {}

    def gram(self, layer: str, x: Array) -> Array:
        """Return the Gram of ``x`` under the layer's kernel, fixed here or before."""
        if layer not in self.fitted and layer in self.kept:
            value, dtype = self.kept[layer]
            sigma = torch.tensor(value, dtype=getattr(torch, dtype), device=device(x))
            self.fitted[layer] = replace(self.kernel, sigma=sigma)  # type: ignore[type-var]
        return super().gram(layer, x)

    def state(self) -> dict[str, list[Any]]:
        """Return every bandwidth with its dtype, by layer."""
        fitted = {
            layer: [float(to_numpy(sigma)), str(sigma.dtype).removeprefix("torch.")]
            for layer, kernel in self.fitted.items()
            if isinstance(sigma := getattr(kernel, "sigma", None), torch.Tensor)
        }
        return {**self.kept, **fitted}


class Progress:
    """The accumulators of the passes over the data, restored from a file and written to it.

    Parameters
    ----------
    path : path or None
        The state file; with None nothing is kept, and nothing is ever skipped.
    fingerprint : mapping of str to JSON values
        What must be the same for the state to be gone on with, in words that an error can show.
    kernel : Kernel
        Of the accumulators.
    books : list of KeptKernels
        The bandwidths of each recorded side.

    Raises
    ------
    StateError
        The file is damaged, belongs to something else, or cannot be written.
    """

    def __init__(
        self,
        path: str | PathLike[str] | None,
        fingerprint: Mapping[str, Any],
        kernel: Kernel,
        books: list[KeptKernels],
    ) -> None:
        self.path = None if path is None else fspath(path)
        self.accumulators: list[MinibatchCKA] = []
        self._kernel, self._books = kernel, books
        self._pass, self._written = -1, -1
        self._file: Checkpoint | None = None
        known: list[list[str]] = []
        if self.path is not None:
            self._file = Checkpoint(self.path, operation="compare", fingerprint=fingerprint)
            arrays = self._file.load()
            if arrays is not None:
                state = joined(arrays)
                known = state["batches"]
                self.accumulators = [
                    MinibatchCKA.from_state_dict(each, kernel=kernel)
                    for each in state["accumulators"]
                ]
                for book, kept in zip(books, state["bandwidths"], strict=True):
                    book.kept = dict(kept)
        self.log = BatchLog("compare", self.path or "", known)
        self.save()  # a folder that cannot be written is found out before the work, not after

    @property
    def n_batches(self) -> int:
        """How many batches have been counted, over all passes."""
        return sum(map(len, self.log.known))

    def begin_pass(self) -> MinibatchCKA:
        """Return the accumulator of the next pass."""
        self._pass += 1
        self.log.begin_pass()
        if self._pass == len(self.accumulators):
            self.accumulators.append(MinibatchCKA(kernel=self._kernel))
        return self.accumulators[self._pass]

    def was_counted(self, batch: Any) -> bool:
        """Return whether the batch is part of the state that was read."""
        return self.path is not None and self.log.was_counted(batch)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Add a batch to the accumulator and to what is known, both or neither."""
        with uninterrupted():
            yield
            if self.path is not None:
                self.log.count()

    def save_if_due(self) -> None:
        """Write the state if the last writing was some minutes ago; go on if that fails."""
        if self._file is not None and self._file.due:
            try:
                self.save()
            except CheckpointError as error:
                warn(f"{error}\n  The computation goes on; what was written before stands.")

    def save(self) -> None:
        """Write the state, atomically: the file is the one before or this one, never a mixture."""
        if self._file is None or self._written == self.n_batches:
            return
        state = {
            "batches": self.log.known,
            "accumulators": [each.state_dict() for each in self.accumulators],
            "bandwidths": [book.state() for book in self._books],
        }
        self._file.save(split(state))
        self._written = self.n_batches

    def save_before_raising(self, error: BaseException) -> None:
        """Write the state while an error is on its way; what fails here is added to it."""
        try:
            self.save()
        except CheckpointError as failure:
            error.add_note(str(failure))


def split(state: Any) -> dict[str, Any]:
    """Return the arrays of a nested state by name, and all else as JSON in one more array."""
    arrays: dict[str, Any] = {}

    def without(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            name = f"array{len(arrays)}"
            arrays[name] = value
            return {"__array__": name}
        if isinstance(value, Mapping):
            return {str(key): without(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [without(each) for each in value]
        return value.item() if isinstance(value, np.generic) else value

    text = json.dumps(without(state))
    return {**arrays, _VALUES: np.frombuffer(text.encode(), dtype=np.uint8)}


def joined(arrays: Mapping[str, Any]) -> Any:
    """Return the nested state that :func:`split` took apart."""

    def whole(value: dict[str, Any]) -> Any:
        return arrays[value["__array__"]] if value.keys() == {"__array__"} else value

    return json.loads(arrays[_VALUES].tobytes(), object_hook=whole)
