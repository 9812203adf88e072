"""A store that is filled batch by batch, and skips the batches that it holds already."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from repsim._errors import CheckpointError
from repsim.analysis._extract_rows import BatchRows, LayerRows, Seen, same_layers
from repsim.analysis.run._fingerprint import BatchLog
from repsim.analysis.run._token_samples import TokenSamples
from repsim.storage import ActivationStore

__all__ = ["Filling", "saving", "where_of"]


@contextmanager
def saving(store: ActivationStore, note: str = "") -> Iterator[None]:
    """Write all rows before an error of this block is raised, and close the store.

    Parameters
    ----------
    store : ActivationStore
        The store.
    note : str, optional
        What the error says in addition if the rows are written.
    """
    try:
        yield
    except CheckpointError:
        raise  # its message says what remains
    except BaseException as error:
        try:
            store.save()
        except CheckpointError as failure:
            error.add_note(str(failure))
        else:
            if note:
                error.add_note(note)
        raise
    finally:
        store.close()


class Filling:
    """The batches of one pass over the data, on their way to a store.

    Parameters
    ----------
    store : ActivationStore
        Where the rows go. It may hold batches of an earlier call.
    seen : Seen
        The ids of the samples so far.
    tokens : TokenSamples, optional
        Which tokens are samples; by default inputs are.

    Attributes
    ----------
    ids, new : list or None
        The ids of the latest batch and its new rows, as :meth:`Seen.take` returns them.
    """

    def __init__(self, store: ActivationStore, seen: Seen, tokens: TokenSamples | None) -> None:
        self.ids: list[Any] | None = None
        self.new: list[int] | None = None
        self._store, self._seen, self._tokens = store, seen, tokens
        known = [[batch.digest for batch in store.batches]]
        self._log = BatchLog(store.operation, str(store.place), known)
        self._log.begin_pass()
        # Rows on disk of an incomplete batch.
        self._there = store.n_rows - sum(batch.rows for batch in store.batches)
        self._part = store.part
        self._first: LayerRows = {}
        self._n_batches = 0

    def has(self, value: Any) -> bool:
        """Whether the store holds the next batch of the data; its samples then count as seen."""
        known = self._log.was_counted(value)
        number, self._n_batches = self._n_batches, self._n_batches + 1
        self.ids, self.new = self._seen.take(value)
        if known:
            stored = self._store.batches[number]
            self._seen.n_rows += stored.rows
            if self._tokens is not None:
                self._tokens.n_sequences += stored.inputs
            return True
        if self._part is not None and self._log.latest != self._part:
            raise self._log.refusal(f"batch {number} (from 0) is another")
        self._part = None
        return False

    def add(self, rows: BatchRows, where: str) -> None:
        """Add the rows of the latest batch."""
        layers, coords = (
            {name: (x.shape[1:], _kind(x)) for name, x in each.items()}
            for each in (rows.layers, rows.coords)
        )
        self._first = same_layers(self._store.operation, self._first, layers, where)
        ids = "int64" if self._tokens else self._seen.kind
        self._store.begin(layers, ids, coords, rows.masked)
        self._store.append(
            {**rows.layers, **rows.coords},
            rows.ids,
            self._log.latest,
            skip=self._there,
            inputs=rows.inputs,
        )
        if self._tokens is not None:
            self._tokens.count()
        self._log.count()
        self._seen.n_rows, self._there = self._seen.n_rows + len(rows.ids), 0

    def end(self) -> None:
        """Check that the data had all batches of the store, and write the rest."""
        self._log.end_pass()
        if self._part is not None:
            raise self._log.refusal(
                f"the data ended after {self._n_batches} batches; of one more, some rows had been "
                f"stored"
            )
        self._store.save()


def where_of(number: int) -> str:
    """Return which batch this is, for errors."""
    return f"batch {number} (counted from 0)"


def _kind(x: np.ndarray[Any, np.dtype[Any]]) -> Any:
    return "str" if x.dtype == object else x.dtype
