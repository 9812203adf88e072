"""Where features go: into memory up to a limit, or into a store on disk."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from contextlib import AbstractContextManager
from os import PathLike, fspath
from typing import Any, NamedTuple, Protocol

import numpy as np

from repsim._errors import InputError
from repsim.analysis._extract_rows import (
    BatchRows,
    LayerRows,
    Seen,
    ToHost,
    Values,
    same_layers,
)
from repsim.analysis._filling import Filling, saving
from repsim.analysis.run._token_samples import TokenSamples
from repsim.storage import ActivationStore, open_activations, place_of

__all__ = ["SEQUENCE", "InMemory", "InStore", "Keeper", "Kept"]

SEQUENCE = "sequence"
"""The coordinate of a row with the input that its token is of."""


class Kept(NamedTuple):
    """The features of all samples.

    Attributes
    ----------
    layers : dict of str to array-like
        By layer, (n, p); those of a store are read on access.
    ids : list, optional
        The ids of the samples, if they have any.
    sequences : array, optional
        The input of each row, if tokens are the samples.
    n_samples, n_batches : int
        How many rows and batches there are.
    """

    layers: dict[str, Any]
    ids: list[Any] | None
    sequences: Values | None
    n_samples: int
    n_batches: int


class Keeper(Protocol):
    """Keeps the rows of one batch after another."""

    @property
    def ids(self) -> list[Any] | None:
        """The ids of the latest batch, as :meth:`Seen.take` returns them."""

    @property
    def new(self) -> list[int] | None:
        """The new rows of the latest batch; None for all."""

    def has(self, value: Any) -> bool:
        """Whether the next batch of the data is kept already."""

    def add(self, rows: BatchRows, where: str) -> None:
        """Keep the rows of the latest batch."""

    def end(self, attrs: Mapping[str, Any]) -> Kept:
        """Return the features of all batches."""


class InMemory:
    """Features in memory, as long as they fit.

    Parameters
    ----------
    operation : str
        The caller's name, for errors.
    seen : Seen
        The ids of the samples so far.
    tokens : TokenSamples, optional
        Which tokens are samples.
    memory : int
        The most bytes that they may take.
    data : object
        The data, which may know how many batches they have.
    elsewhere : str, optional
        How to keep features on disk, for errors; by default the caller cannot.
    """

    def __init__(
        self,
        operation: str,
        seen: Seen,
        tokens: TokenSamples | None,
        memory: int,
        data: Any,
        elsewhere: str | None = None,
    ) -> None:
        self.ids: list[Any] | None = None
        self.new: list[int] | None = None
        self._operation, self._seen, self._tokens = operation, seen, tokens
        self._memory, self._bytes, self._n_batches = memory, 0, 0
        self._elsewhere = elsewhere
        self._ids: list[Any] = []
        # The last batch may be short, and samples that came before are not kept again.
        self._sure = operator.length_hint(data) - 1 if seen.unnamed and tokens is None else 0
        self._first: LayerRows = {}
        self._parts: dict[str, list[Values]] = {}
        self._sequences: list[Values] = []

    def has(self, value: Any) -> bool:
        """Return False: nothing is left of an earlier call."""
        self.ids, self.new = self._seen.take(value)
        return False

    def add(self, rows: BatchRows, where: str) -> None:
        """Keep the rows of the latest batch; raise at once if all batches will not fit."""
        shapes = {name: (x.shape[1:], x.dtype) for name, x in rows.layers.items()}
        self._first = same_layers(self._operation, self._first, shapes, where)
        size = sum(x.nbytes for x in rows.layers.values())
        self._bytes, self._n_batches = self._bytes + size, self._n_batches + 1
        if max(self._bytes, self._sure * size if self._n_batches == 1 else 0) > self._memory:
            raise self._too_large(size, len(rows.ids))
        for name, x in rows.layers.items():
            self._parts.setdefault(name, []).append(x)
        self._ids += rows.ids
        if SEQUENCE in rows.coords:
            self._sequences.append(rows.coords[SEQUENCE])
        if self._tokens is not None:
            self._tokens.count()
        self._seen.n_rows += len(rows.ids)

    def end(self, attrs: Mapping[str, Any]) -> Kept:
        """Return the features of all batches."""
        layers = {}
        for name in list(self._parts):  # one at a time, because each is in memory twice here
            parts = self._parts.pop(name)
            layers[name] = parts[0] if len(parts) == 1 else np.concatenate(parts)
        sequences = np.concatenate(self._sequences) if self._sequences else None
        ids = None if self._seen.unnamed else self._ids
        return Kept(layers, ids, sequences, self._seen.n_rows, self._n_batches)

    def _too_large(self, size: int, n: int) -> InputError:
        a_sample = size // max(n, 1)
        so_far = f"after {self._n_batches} batches they take {self._bytes:,} bytes"
        if self._sure > 0 and self._n_batches == 1:
            whole = (self._sure + 1) * size
            so_far = f"{self._sure + 1} batches need about {whole:,} bytes"
        store = "."
        if self._elsewhere is not None:
            store = f",\n  or keep them in a store on disk: {self._elsewhere}."
        return InputError(
            f"{self._operation}: the features of all samples do not fit in memory.\n"
            f"  memory={self._memory:,} bytes; {so_far}, {a_sample:,} a sample in "
            f"{len(self._first)} layers\n"
            f'  Keep less of each output (transform="mean", "cls" or "last"), choose fewer layers '
            f"(layers=), raise memory={store}"
        )


class InStore:
    """Features in a store on disk, which a later call goes on with.

    Parameters
    ----------
    operation : str
        The caller's name, for errors.
    seen, tokens
        As in :class:`InMemory`.
    path : path
        The folder of the store.
    fingerprint : mapping of str to JSON values
        What must be the same to go on with a store.
    memory : int
        Bytes for rows that are collected and written together.
    """

    def __init__(
        self,
        operation: str,
        seen: Seen,
        tokens: TokenSamples | None,
        path: str | PathLike[str],
        fingerprint: Mapping[str, Any],
        memory: int,
    ) -> None:
        self._path = path
        self._store = ActivationStore(
            place_of(operation, "checkpoint", path),
            operation=operation,
            fingerprint=fingerprint,
            memory=memory,
        )
        try:
            self._filling = Filling(self._store, seen, tokens)
        except BaseException:
            self._store.close()
            raise

    @property
    def ids(self) -> list[Any] | None:
        """The ids of the latest batch."""
        return self._filling.ids

    @property
    def new(self) -> list[int] | None:
        """The new rows of the latest batch."""
        return self._filling.new

    def resume(self, rows: ToHost, side: str) -> None:
        """Let the rows of one side go on from those of the store."""
        rows.resume(self._store, f"{side}/")

    def has(self, value: Any) -> bool:
        """Whether the next batch of the data is in the store."""
        return self._filling.has(value)

    def add(self, rows: BatchRows, where: str) -> None:
        """Store the rows of the latest batch."""
        self._filling.add(rows, where)

    def end(self, attrs: Mapping[str, Any]) -> Kept:
        """Return the features of all batches, which are read from disk on access."""
        self._filling.end()
        n_batches = len(self._store.batches)
        self._store.finish({**attrs, "n_batches": n_batches})
        stored = open_activations(self._path)
        sequences = stored[SEQUENCE].values if SEQUENCE in stored.coords else None
        layers = {str(name): array.variable for name, array in stored.data_vars.items()}
        ids = stored["sample"].values.tolist()
        return Kept(layers, ids, sequences, len(ids), n_batches)

    def saving(self) -> AbstractContextManager[None]:
        """Write all rows before an error of this block is raised, and close the store."""
        return saving(
            self._store,
            f"The features of the batches before are in {fspath(self._path)!r}: the same call goes "
            f"on from there.",
        )
