"""Activations on disk: rows of several layers in one Zarr group that survives a kill."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np

from repsim._errors import StateError
from repsim.storage._atomic import differences
from repsim.storage._checkpoint import EVERY_SECONDS
from repsim.storage._chunks import SAMPLE, make_array, unlike
from repsim.storage._interrupts import uninterrupted
from repsim.storage._names import folders_of
from repsim.storage._plan import MOST_ROWS, columns_of, plan_of
from repsim.storage._rows import damaged, reading, writing
from repsim.storage._stored import FORMAT, group_of, sealed
from repsim.storage.places._address import Place, zarr_for

__all__ = ["ActivationStore", "StoredBatch"]

FIRST_CHUNKS = 16
"""Chunks of a new array; their number doubles whenever they are full."""

Values = np.ndarray[Any, np.dtype[Any]]


class StoredBatch(NamedTuple):
    """The digest of a batch, its rows, and its inputs where these are not the rows."""

    digest: str
    rows: int
    inputs: int = 0


class ActivationStore:
    """Rows of named layers, appended to a Zarr group that a kill at any moment leaves intact.

    Rows are collected until they fill a chunk of each layer. A chunk is written and synced, and
    only then counted in the journal of the place. A resumed run overwrites rows that the journal
    does not count.

    Parameters
    ----------
    place : Place
        Where the group is.
    operation : str
        Name of the caller, for error messages.
    fingerprint : mapping of str to JSON values
        Description of model, layers and options. A store with another fingerprint raises.
    memory : int
        Bytes that collected rows may take.
    most_rows : int, default 1024
        The most rows of a chunk.

    Attributes
    ----------
    n_rows : int
        Number of rows that are safely on disk.
    batches : list of StoredBatch
        Every batch that is completely on disk.
    part : str or None
        Digest of the next batch, if some of its rows are on disk.

    Raises
    ------
    StateError
        The store is damaged, belongs to another run, or another process writes to it.
    CheckpointError
        It cannot be read or written: a full disk, a read-only or missing folder.
    """

    def __init__(
        self,
        place: Place,
        *,
        operation: str,
        fingerprint: Mapping[str, Any],
        memory: int,
        most_rows: int = MOST_ROWS,
    ) -> None:
        self.place = place
        self.operation = operation
        self.n_rows = 0
        self.batches: list[StoredBatch] = []
        self.part: str | None = None
        self._memory, self._most_rows = memory, most_rows
        self._rows_of_batches = 0
        self._pending: list[StoredBatch] = []
        self._group: Any = None
        self._plan: Mapping[str, Any] = {"layers": {}}
        self._folders: dict[str, str] = {}
        self._arrays: dict[str, Any] = {}
        self._gathered: dict[str, Values] = {}
        self._filled = 0  # rows of the current chunk, including those on disk
        self._chunk = 0
        self._saved = time.monotonic()
        self._prepare_folder()
        zarr_for(operation)
        self._journal = place.journal(operation)
        try:
            self._recover(dict(fingerprint))
        except BaseException:
            self._journal.close()
            raise

    # -- the state on disk -----------------------------------------------------------------------

    def _prepare_folder(self) -> None:
        if self.place.is_taken() and not self.place.has_journal():
            raise StateError(
                f"{self.operation}: there is something else at this place already.\n"
                f"  {self.place} exists, and the journal of a store is not there\n"
                f"  Name another place, or delete it. A finished store is read with "
                f"repsim.open_activations."
            )

    def _recover(self, fingerprint: dict[str, Any]) -> None:
        entries = self._journal.entries
        if entries and not self.place.is_group():
            # The data were deleted but the journal was not: there is nothing to resume.
            self._journal.restart()
        if not entries:
            self._journal.add({"format": FORMAT, "fingerprint": fingerprint})
            self._create()
            return
        first = entries[0]
        if first.get("format") != FORMAT:
            raise self._refused(f"of format {first.get('format')!r}, expected {FORMAT!r}")
        if other := differences(first["fingerprint"], fingerprint):
            raise self._refused(f"of another model or other options ({'; '.join(other)})")
        plan = next((entry for entry in entries if "layers" in entry), None)
        for entry in entries:
            self.n_rows = entry.get("rows", self.n_rows)
            self.batches += [StoredBatch(*batch) for batch in entry.get("batches", [])]
            self.part = entry.get("part")
        self._rows_of_batches = sum(batch.rows for batch in self.batches)
        if plan is None:
            self._create()
            return
        self.place.tidy()
        self._chunk = plan["chunk"]
        self._open(plan)
        start = self.n_rows - self.n_rows % self._chunk
        self._filled = self.n_rows - start
        if self._filled:
            for name, array in self._arrays.items():
                with reading(self.operation, self.place, name):
                    self._gathered[name][: self._filled] = array[start : self.n_rows]

    def _create(self) -> None:
        """Create an empty group, in place of one without rows that count."""
        with self._writing():
            self.place.create(sealed({}))

    def _open(self, plan: Mapping[str, Any]) -> None:
        """Open the arrays, and create those that a kill prevented."""
        with reading(self.operation, self.place), self._writing():
            self._group = group_of(self.operation, self.place, "a")
        self._plan, columns = plan, columns_of(plan)
        self._folders = folders_of(columns)
        for name, (shape, dtype) in columns.items():
            row, folder = tuple(shape), self._folders[name]
            with reading(self.operation, self.place, name), self._writing():
                self._arrays[name] = self._array(folder, row, dtype)
            if absent := self.place.absent(self._arrays[name], folder, self.n_rows):
                raise damaged(self.operation, self.place, name, absent)
            kind = object if dtype == "str" else np.dtype(dtype)
            self._gathered[name] = np.zeros((self._chunk, *row), dtype=kind)

    def _array(self, folder: str, row: tuple[int, ...], dtype: str) -> Any:
        import zarr

        # All chunks are written, even those of zeros, so a missing chunk is damage.
        with zarr.config.set({"array.write_empty_chunks": True}):
            if not self.n_rows:
                rows = FIRST_CHUNKS * self._chunk
                return make_array(self._group, folder, rows, row, dtype, self._chunk)
            array = self._group[folder]
            if other := unlike(array, self.n_rows, row, dtype, self._chunk):
                raise ValueError(other)
            return array

    # -- adding rows -----------------------------------------------------------------------------

    @property
    def n_gathered(self) -> int:
        """Number of all rows, including those that are not on disk yet."""
        return self.n_rows - self.n_rows % self._chunk + self._filled if self._chunk else 0

    def begin(
        self,
        layers: Mapping[str, tuple[tuple[int, ...], Any]],
        ids: str,
        coords: Mapping[str, tuple[tuple[int, ...], Any]] | None = None,
        masked: Mapping[str, str] | None = None,
    ) -> None:
        """Set the shape of a row and the dtype of each layer, and those of the ids.

        Parameters
        ----------
        layers : mapping of str to (shape, dtype)
            In execution order. To resume a store, they must be the same as at its start.
        ids : {"int64", "str"}
            The ids of samples.
        coords : mapping of str to (shape, dtype), optional
            Further arrays with a row for each sample, which are not layers.
        masked : mapping of str to str, optional
            The coordinate that says which positions of a layer are real, by layer.
        """
        room = self._memory, self._most_rows
        entry = plan_of(self.operation, layers, ids, coords or {}, masked or {}, *room)
        known = next((entry for entry in self._journal.entries if "layers" in entry), None)
        if known is not None:
            before, now = columns_of(known), columns_of(entry)
            if list(before.items()) != list(now.items()):
                other = differences(before, now) or ["their order"]
                raise self._refused(f"of other outputs ({'; '.join(other)})")
            return
        self._chunk = entry["chunk"]
        self._journal.add(entry)
        self._open(entry)

    def first_rows(self, prefix: str = "") -> dict[str, Values]:
        """Return the first row of each layer whose name begins with `prefix`."""
        found = {}
        for name in self._plan["layers"] if self.n_rows else ():
            if name.startswith(prefix):
                with reading(self.operation, self.place, name):
                    found[name] = np.asarray(self._arrays[name][0])
        return found

    def append(
        self,
        rows: Mapping[str, Values],
        ids: Sequence[Any] | Values,
        digest: str,
        *,
        skip: int = 0,
        inputs: int = 0,
    ) -> None:
        """Add the rows of one batch, (n, ...) of every layer.

        Parameters
        ----------
        rows : mapping of str to array
            Of every layer and coordinate, in any order.
        ids : sequence of n
            Of the samples.
        digest : str
            The digest that identifies the batch when the run resumes.
        skip : int
            How many of the rows are stored already.
        inputs : int
            How many inputs the batch has, if not one for each row.
        """
        n = len(ids)
        self._pending.append(StoredBatch(digest, n, inputs))
        at = skip
        while at < n:
            take = min(n - at, self._chunk - self._filled)
            part = slice(self._filled, self._filled + take)
            for name, values in rows.items():
                self._gathered[name][part] = values[at : at + take]
            self._gathered[SAMPLE][part] = ids[at : at + take]
            self._filled, at = self._filled + take, at + take
            if self._filled == self._chunk:
                self.save()
        if time.monotonic() - self._saved >= EVERY_SECONDS:
            self.save()

    def save(self) -> None:
        """Write all rows to disk and sync them.

        Raises
        ------
        CheckpointError
            The disk is full or the folder is gone. Rows saved earlier are intact.
        """
        with uninterrupted():  # the disk and the record of it change together
            total = self.n_gathered
            start = self.n_rows - self.n_rows % self._chunk if self._chunk else 0
            if total > self.n_rows:
                with self._writing():
                    self._write(start, total)
            whole, before = [], self._rows_of_batches
            for batch in self._pending:
                if before + batch.rows > total:
                    break
                before += batch.rows
                whole.append(batch)
            part = None
            if before < total:
                rest = self._pending[len(whole) :]
                part = rest[0].digest if rest else self.part
            if total > self.n_rows or whole:
                self._journal.add({"rows": total, "batches": whole, "part": part})
            self.batches += whole
            self._rows_of_batches = before
            self.part = part
            del self._pending[: len(whole)]
            self.n_rows = total
            if self._filled == self._chunk:
                self._filled = 0
            self._saved = time.monotonic()

    def _write(self, start: int, stop: int) -> None:
        index = start // self._chunk
        for name, array in self._arrays.items():
            if array.shape[0] < stop:
                array.resize((max(stop, 2 * array.shape[0]), *array.shape[1:]))
            array[start:stop] = self._gathered[name][: stop - start]
            self.place.sync(array, self._folders[name], index)

    def finish(self, attrs: Mapping[str, Any]) -> None:
        """Save, cut the arrays to their rows, and write the attributes of the store."""
        self.save()
        with self._writing():
            for array in self._arrays.values():
                if array.shape[0] != self.n_rows:
                    array.resize((self.n_rows, *array.shape[1:]))
            layers = list(self._plan["layers"])
            attrs = {**attrs, "layers": layers, "n_samples": self.n_rows, "format": FORMAT}
            if layers:
                attrs["plan"] = self._plan
            else:  # a rank without data
                self._group = group_of(self.operation, self.place, "a")
            # Not attrs.update, which writes the file once for every attribute.
            self._group.update_attributes(sealed(attrs))

    def close(self) -> None:
        """Close the store and release its lock; unsaved rows are dropped."""
        self._journal.close()

    def _writing(self) -> AbstractContextManager[None]:
        return writing(self.operation, self.place, f"{self.n_rows} rows are there, whole")

    def _refused(self, why: str) -> StateError:
        return StateError(
            f"{self.operation}: the store does not belong to this call.\n"
            f"  {self.place} is {why}\n"
            f"  Call with the arguments it was made with, name another place, or delete it to "
            f"begin anew."
        )
