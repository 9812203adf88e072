"""A file to which lines are only appended: the log of a run."""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repsim._errors import CheckpointError, StateError
from repsim.storage._atomic import how_to_write
from repsim.storage._lock import not_in_children

__all__ = ["Journal", "entries_of", "line_of", "read_journal"]


class Journal:
    """An append-only log of JSON objects; each line has a checksum and is synced to disk.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> with Journal(Path(folder.name) / "log", operation="count") as journal:
    ...     journal.add({"rows": 3})
    >>> with Journal(Path(folder.name) / "log", operation="count") as journal:
    ...     journal.entries
    [{'rows': 3}]
    >>> folder.cleanup()

    A last line that a kill or a full disk truncated does not count; it is removed when the journal
    is opened again. Damage before the last line is an error. While a journal is open, no other
    process can open it (if the system has file locks).

    Parameters
    ----------
    path : pathlib.Path
        The file; it is created if it does not exist.
    operation : str
        Name of the caller, for error messages.

    Attributes
    ----------
    entries : list of dict
        All entries, of this process and earlier ones.

    Raises
    ------
    StateError
        The file is damaged or not a journal, or another process has it open.
    CheckpointError
        It cannot be read or written.
    """

    def __init__(self, path: Path, *, operation: str) -> None:
        self.path, self.operation = path, operation
        self.entries: list[dict[str, Any]] = []
        self._size = 0
        try:
            # Without a buffer, which would write the rest of a failed line when the file is closed.
            self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 - closed in close()
        except OSError as error:
            raise self._unwritable(error) from error
        not_in_children(self._file)
        try:
            self._lock()
            self._read()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and release its lock."""
        self._file.close()

    def add(self, entry: Mapping[str, Any]) -> None:
        """Append an entry; it is on disk when this returns.

        Raises
        ------
        CheckpointError
            The disk is full or gone. Earlier entries are intact.
        """
        line = line_of(entry)
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                os.truncate(self.path, self._size)
            raise self._unwritable(error) from error
        self._size += len(line)
        self.entries += entries_of(line, self.path, self.operation)

    def _lock(self) -> None:
        if os.name == "nt":
            return
        import fcntl

        try:
            fcntl.flock(self._file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StateError(
                f"{self.operation}: another process is writing here.\n  {self.path} is locked\n"
                f"  Wait until it is done, or write to another place."
            ) from error

    def restart(self) -> None:
        """Delete every entry, because the data that they describe are gone."""
        self.entries.clear()
        self._truncate(0)

    def _read(self) -> None:
        self._file.seek(0)
        written = self._file.read()
        self.entries = entries_of(written, self.path, self.operation)
        whole = written.rfind(b"\n") + 1
        self._size = whole
        if whole < len(written):
            self._truncate(whole)

    def _truncate(self, size: int) -> None:
        try:
            os.truncate(self.path, size)
        except OSError as error:
            raise self._unwritable(error) from error
        self._size = size

    def _unwritable(self, error: OSError) -> CheckpointError:
        return CheckpointError(
            f"{self.operation}: the journal cannot be written.\n"
            f"  {self.path}: {error.strerror or error}\n"
            f"  {how_to_write(error, self.path)}, then call again with the same "
            f"arguments: it goes on from what is there."
        )


def read_journal(path: Path, *, operation: str) -> list[dict[str, Any]]:
    """Return the entries of a journal to which another process may be writing."""
    try:
        return entries_of(path.read_bytes(), path, operation)
    except OSError as error:
        raise CheckpointError(
            f"{operation}: the journal cannot be read.\n  {path}: {error.strerror or error}\n"
            f"  Check the permissions of the file."
        ) from error


def line_of(entry: Mapping[str, Any]) -> bytes:
    """Return an entry as a line with its checksum."""
    text = json.dumps(dict(entry))
    return f"{zlib.crc32(text.encode()):08x} {text}\n".encode()


def entries_of(written: bytes, path: Path | str, operation: str) -> list[dict[str, Any]]:
    """Return the entries of the whole lines of a journal; damage is an error."""
    entries = []
    lines = written.split(b"\n")
    # The text after the last line break is empty or a truncated line.
    for number, line in enumerate(lines[:-1], 1):
        checksum, _, text = line.partition(b" ")
        if checksum != f"{zlib.crc32(text):08x}".encode():
            raise StateError(
                f"{operation}: the journal is damaged, or the file is not a journal.\n"
                f"  {path}, line {number}: its checksum does not fit\n"
                f"  Restore it from a copy; or delete it and what it belongs to, to begin anew."
            )
        entries.append(json.loads(text))
    return entries
