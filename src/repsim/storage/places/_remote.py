"""A store at an address of fsspec, such as an object store, or in a store object of Zarr."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import WrapperStore

from repsim._errors import CheckpointError, StateError
from repsim.storage.places._journal import entries_of, line_of

__all__ = ["RemoteJournal", "RemotePlace"]

ROOT = "zarr.json"


class RemotePlace:
    """A Zarr group at an address, and its journal, an object beside it.

    An object store has no renames, no appending and no locks. What holds here: an object is written
    whole or not at all, and the next reader sees it. A chunk is written before the journal counts
    it, and the attributes of a finished store are written last. Each chunk has a checksum.

    Parameters
    ----------
    store : zarr.abc.store.Store
        What the group is in.
    operation, label : str
        The caller's name and the address, for messages.
    prefix : str
        The path of the group in the store.

    Attributes
    ----------
    zarr : (zarr.abc.store.Store, str)
        What Zarr opens, and the path of the group in it.
    """

    def __init__(self, store: Store, operation: str, label: str, prefix: str = "") -> None:
        self._store = store if isinstance(store, Reached) else Reached(store)
        self._operation, self._label, self._prefix = operation, label, prefix
        self.zarr = self._store, prefix

    def __str__(self) -> str:
        return f"{self._label}/{self._prefix}" if self._prefix else self._label

    @property
    def parts_to_delete(self) -> str:
        """What must be deleted to begin anew, for messages."""
        return f"it and {self._prefix}.journal" if self._prefix else "it"

    def part(self, name: str) -> RemotePlace:
        """Return the place of a group inside this one."""
        return RemotePlace(self._store, self._operation, self._label, self._key(name))

    def is_taken(self) -> bool:
        """Whether anything is here."""
        return not self._found(self._store.is_empty(self._prefix), True)

    def is_empty(self) -> bool:
        """Whether nothing is here."""
        return not self.is_taken()

    def is_group(self) -> bool:
        """Whether there is a group here."""
        return bool(self._found(self._store.exists(self._key(ROOT)), False))

    def create(self, attributes: dict[str, Any]) -> None:
        """Create an empty group, if there is none yet."""
        import zarr

        store, path = self.zarr
        # Not overwritten, because that would delete the journal too; and written in one piece.
        zarr.open_group(store, path=path, mode="a", zarr_format=3, attributes=attributes)

    def tidy(self) -> None:
        """Do nothing: there is no object that was written in part."""

    # -- chunks ----------------------------------------------------------------------------------

    def sync(self, array: Any, folder: str, index: int) -> None:
        """Do nothing: an object is there when its writing returns."""

    def absent(self, array: Any, folder: str, stop: int, start: int = 0) -> str | None:
        """Name the first chunk of these rows that is missing; None if none is."""
        there = set(self._found(_listed(self._store.list_dir(self._key(folder))), ()))
        for index in range(start // array.chunks[0], -(-stop // array.chunks[0])):
            key = array.metadata.encode_chunk_key((index,) + (0,) * (array.ndim - 1))
            if key not in there:
                return f"{folder}/{key} is missing"
        return None

    def lost(self, array: Any, folder: str, stop: int, start: int) -> None:
        """Do nothing: reading a chunk that is not there any more raises."""

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}".lstrip("/")

    def _found(self, asked: Any, nothing: Any) -> Any:
        """Return what a store answers; ``nothing`` where there is no such place."""
        try:
            return sync(_as_os_errors(asked))
        except FileNotFoundError:
            return nothing
        except OSError as error:
            raise CheckpointError(
                f"{self._operation}: the store cannot be read.\n"
                f"  {self}: {error.strerror or error}\n"
                f"  Check the address, the network and your permissions."
            ) from error

    # -- the journal -----------------------------------------------------------------------------

    @property
    def _journal(self) -> str:
        return f"{self._prefix}.journal"

    def has_journal(self) -> bool:
        """Whether there is a journal."""
        return bool(self._found(self._store.exists(self._journal), False))

    def journal(self, operation: str) -> RemoteJournal:
        """Open the journal to add to it."""
        return RemoteJournal(self._store, self._journal, self._label, operation)

    def entries(self, operation: str) -> list[dict[str, Any]]:
        """Return the entries of the journal, to which another process may be writing."""
        return self.journal(operation).entries


class RemoteJournal:
    """A log of JSON objects in one object, which is written whole for each new entry.

    There are no locks. Instead the object is read before it is written: what another writer has
    added is found, and an error says so. An entry costs time in proportion to the journal, which
    grows by about 130 bytes for each batch.

    Parameters
    ----------
    store : Reached
        What the object is in.
    key : str
        Its key.
    label : str
        The address, for messages.
    operation : str
        Name of the caller, for messages.

    Attributes
    ----------
    entries : list of dict
        All entries, of this process and earlier ones.

    Raises
    ------
    StateError
        The object is damaged, or another process has written to it.
    CheckpointError
        It cannot be read or written.
    """

    def __init__(self, store: Store, key: str, label: str, operation: str) -> None:
        self._store, self._key, self.operation = store, key, operation
        self.path = f"{label}/{key}"
        self._written = self._read()
        self.entries: list[dict[str, Any]] = entries_of(self._written, self.path, operation)

    def close(self) -> None:
        """Do nothing: there is no lock to release."""

    def add(self, entry: Mapping[str, Any]) -> None:
        """Write all entries and a new one; it is stored when this returns."""
        line = line_of(entry)
        if self._read() != self._written:
            raise StateError(
                f"{self.operation}: another process is writing here.\n"
                f"  {self.path} has entries that this process did not write\n"
                f"  Stop one of the two, and call again: it goes on from what is there."
            )
        self._write(self._written + line)
        self.entries += entries_of(line, self.path, self.operation)

    def restart(self) -> None:
        """Delete every entry, because the data that they describe are gone."""
        self.entries.clear()
        self._write(b"")

    def _read(self) -> bytes:
        try:
            found = sync(self._store.get(self._key, default_buffer_prototype()))
        except OSError as error:
            raise self._failed("read", error) from error
        return b"" if found is None else found.to_bytes()

    def _write(self, written: bytes) -> None:
        buffer = default_buffer_prototype().buffer.from_bytes(written)
        try:
            sync(self._store.set(self._key, buffer))
        except OSError as error:
            raise self._failed("written", error) from error
        self._written = written

    def _failed(self, what: str, error: OSError) -> CheckpointError:
        return CheckpointError(
            f"{self.operation}: the journal cannot be {what}.\n"
            f"  {self.path}: {error.strerror or error}\n"
            f"  Check the address, the network and your permissions, then call again with the same "
            f"arguments: it goes on from what is there."
        )


class Reached(WrapperStore[Store]):
    """A store whose failures are OSErrors, and which does not read a missing chunk as zeros."""

    def with_read_only(self, read_only: bool = False) -> Reached:
        """Return the same store for reading only, which wrappers of Zarr 3.1.3 cannot."""
        return Reached(self._store.with_read_only(read_only))

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """Return an object, or None."""
        found = await _as_os_errors(self._store.get(key, prototype, byte_range))
        if found is None and self.read_only and key.rpartition("/")[2].startswith("c."):
            raise FileNotFoundError(f"{key} is missing")
        return found

    async def set(self, key: str, value: Any) -> None:
        """Write an object."""
        await _as_os_errors(self._store.set(key, value))


async def _as_os_errors(reached: Any) -> Any:
    try:
        return await reached
    except (OSError, MemoryError):
        raise
    # Each client of an object store has errors of its own.
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


async def _listed(names: AsyncIterator[str]) -> list[str]:
    return [name async for name in names]
