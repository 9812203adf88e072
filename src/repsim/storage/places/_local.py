"""A store in a folder on disk."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from repsim.storage._atomic import sync_file, sync_folder
from repsim.storage.places._journal import Journal, read_journal

__all__ = ["LocalPlace"]


class LocalPlace:
    """A folder on disk with a Zarr group, and the journal beside it.

    Zarr writes a file aside and renames it. The file, its folder and the journal are synced, so a
    power failure does not undo them. A lock of the operating system keeps a second writer out.

    Parameters
    ----------
    path : pathlib.Path
        The folder of the group.

    Attributes
    ----------
    zarr : (str, str)
        What Zarr opens, and the path of the group in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.zarr = str(path), ""

    def __str__(self) -> str:
        return str(self.path)

    @property
    def parts_to_delete(self) -> str:
        """What must be deleted to begin anew, for messages."""
        return f"it and {self._journal.name}"

    def part(self, name: str) -> LocalPlace:
        """Return the place of a group inside this one."""
        return LocalPlace(self.path / name)

    def is_taken(self) -> bool:
        """Whether anything is here."""
        return self.path.exists()

    def is_empty(self) -> bool:
        """Whether a kill left nothing here but a folder."""
        remains = os.listdir(self.path) if self.path.is_dir() else [self.path.name]
        return all(name.endswith(".partial") for name in remains)

    def is_group(self) -> bool:
        """Whether there may be a group here: a damaged one may lack its zarr.json."""
        if not os.path.isdir(self.path):  # unlike Path, False for a name that is too long
            return False
        return (self.path / "zarr.json").exists() or self._journal.exists()

    def create(self, attributes: dict[str, Any]) -> None:
        """Create an empty group, in place of one without rows that count."""
        import zarr

        zarr.create_group(self.zarr[0], overwrite=True, zarr_format=3, attributes=attributes)

    def tidy(self) -> None:
        """Remove the remains of chunks and of attributes after a kill."""
        for pattern in ("*.partial", "*/*.partial"):
            for partial in self.path.glob(pattern):
                partial.unlink()

    # -- chunks ----------------------------------------------------------------------------------

    def sync(self, array: Any, folder: str, index: int) -> None:
        """Wait until a chunk, which Zarr has written aside and renamed, is on disk."""
        sync_file(self._file(array, folder, index))
        sync_folder(self.path / folder)

    def absent(self, array: Any, folder: str, stop: int, start: int = 0) -> str | None:
        """Describe the first chunk of these rows that is missing or truncated; None if none is."""
        size = None
        if array.dtype.kind in "fiub":
            size = math.prod(array.chunks) * array.dtype.itemsize + 4  # and a checksum
        for index in range(start // array.chunks[0], -(-stop // array.chunks[0])):
            file = self._file(array, folder, index)
            if not file.exists():
                return f"{file.relative_to(self.path)} is missing"
            if size is not None and file.stat().st_size != size:
                return f"{file.relative_to(self.path)} has {file.stat().st_size} bytes, not {size}"
        return None

    def lost(self, array: Any, folder: str, stop: int, start: int) -> str | None:
        """Describe a chunk that is not here any more; Zarr would read zeros in its place."""
        return self.absent(array, folder, stop, start)

    def _file(self, array: Any, folder: str, index: int) -> Path:
        key: str = array.metadata.encode_chunk_key((index,) + (0,) * (array.ndim - 1))
        return self.path / folder / key

    # -- the journal -----------------------------------------------------------------------------

    @property
    def _journal(self) -> Path:
        # Beside the group, which so remains plain Zarr.
        return self.path.with_name(self.path.name + ".journal")

    def has_journal(self) -> bool:
        """Whether there is a journal."""
        return os.path.exists(self._journal)

    def journal(self, operation: str) -> Journal:
        """Open the journal to add to it; nobody else can until it is closed."""
        return Journal(self._journal, operation=operation)

    def entries(self, operation: str) -> list[dict[str, Any]]:
        """Return the entries of the journal, to which another process may be writing."""
        return read_journal(self._journal, operation=operation)
