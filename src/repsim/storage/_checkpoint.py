"""A state file that is written atomically and checked when it is read."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from repsim._errors import CheckpointError, StateError
from repsim.storage._atomic import differences, how_to_write, write_whole

__all__ = ["EVERY_SECONDS", "Checkpoint"]

FORMAT = "repsim.checkpoint/1"
HEADER = "__header__"
EVERY_SECONDS = 120.0
"""Seconds between two saves of a computation."""

AGAIN = "Call with the arguments it was made with, or delete it to start afresh."
OTHER = "Name another file, which does not exist yet."
"""What to do about a state of another call, and about a file that was perhaps never a state."""

Arrays = Mapping[str, np.ndarray[Any, Any]]


class Checkpoint:
    """The saved state of one long computation, in one ``.npz`` file without pickles.

    >>> import numpy as np, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> file = Checkpoint(folder.name + "/sums.npz", operation="sums", fingerprint={"n": 3})
    >>> file.load() is None
    True
    >>> file.save({"total": np.arange(3)})
    >>> file.load()["total"].tolist()
    [0, 1, 2]
    >>> folder.cleanup()

    Parameters
    ----------
    path : str or os.PathLike
        The file. It is replaced atomically: a reader finds the old state or the new one.
    operation : str
        Name of the caller, for error messages; the file of another operation raises.
    fingerprint : mapping of str to JSON values
        Description of inputs, options and plan. A file with another fingerprint raises.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, operation: str, fingerprint: Mapping[str, Any]
    ) -> None:
        self.path = Path(path)
        self.operation = operation
        # Convert through JSON, because tuples come back as lists.
        self.fingerprint: dict[str, Any] = json.loads(json.dumps(dict(fingerprint)))
        self._last = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether enough time has passed since the last save (or the start)."""
        return time.monotonic() - self._last >= EVERY_SECONDS

    def save(self, arrays: Arrays) -> None:
        """Replace the file by this state, atomically and durably.

        Raises
        ------
        CheckpointError
            The disk is full, or the folder is missing or read-only. The previous state is intact.
        """
        header = {
            "format": FORMAT,
            "operation": self.operation,
            "fingerprint": self.fingerprint,
            "checksum": _checksum(arrays),
        }
        packed = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
        contents = {HEADER: packed, **arrays}
        try:
            # NumPy types what follows as its own options, which are none of these names.
            write_whole(self.path, lambda file: np.savez(file, **contents))  # type: ignore[arg-type]
        except OSError as error:
            before = (
                "the state saved before is still there, whole"
                if self.path.exists()
                else "nothing had been saved there"
            )
            raise CheckpointError(
                f"{self.operation}: the state of this call cannot be written.\n"
                f"  {self.path}: {error.strerror or error}; {before}\n"
                f"  {how_to_write(error, self.path)}, then call again with the same "
                f"arguments: it goes on from the saved state."
            ) from error
        self._last = time.monotonic()

    def load(self) -> dict[str, np.ndarray[Any, Any]] | None:
        """Return the saved arrays, or ``None`` if there is no file.

        Raises
        ------
        StateError
            The file is truncated, damaged or not a saved state, or belongs to another operation,
            other inputs or other options (the message says which).
        CheckpointError
            The file exists but cannot be read.
        """
        try:
            with open(self.path, "rb") as file:
                stored = np.load(file, allow_pickle=False)
                arrays = {} if isinstance(stored, np.ndarray) else dict(stored)
        except FileNotFoundError:
            return None
        except OSError as error:
            # A damaged archive sends its reader to places before the file.
            if error.errno in (None, errno.EINVAL):
                raise self._refused(f"damaged, or not a saved state: {error}") from error
            repair = "Check the permissions of the file, or name another one."
            if error.errno == errno.EISDIR:
                repair = "Name a file: the state is an .npz."
            raise CheckpointError(
                f"{self.operation}: the saved state cannot be read.\n"
                f"  {self.path}: {error.strerror or error}\n  {repair}"
            ) from error
        except (
            ValueError,
            EOFError,
            zipfile.BadZipFile,
            NotImplementedError,
            AttributeError,
            TypeError,
            KeyError,
            SyntaxError,
            RuntimeError,
            MemoryError,
        ) as error:
            # Errors of NumPy and zipfile for a damaged archive, and for a file that is not an
            # archive. NumPy takes any other file for a pickle, and says how to load it unsafely.
            is_other = "pickle" in str(error)
            why = "another kind of file" if is_other else error
            raise self._refused(
                f"damaged, or not a saved state: {why}", OTHER if is_other else AGAIN
            ) from error
        self._check(arrays)
        del arrays[HEADER]
        return arrays

    def _check(self, arrays: Arrays) -> None:
        try:
            header = json.loads(arrays[HEADER].tobytes())
            kind, checksum = header["format"], header["checksum"]
            operation, fingerprint = header["operation"], header["fingerprint"]
        except (KeyError, ValueError, TypeError) as error:
            raise self._refused("not a saved state: it has no header", OTHER) from error
        if kind != FORMAT:
            raise self._refused(f"of format {kind!r}, expected {FORMAT!r}")
        rest = {name: x for name, x in arrays.items() if name != HEADER}
        if _checksum(rest) != checksum:
            raise self._refused("damaged: its checksum does not fit")
        if operation != self.operation:
            raise self._refused(f"of another operation, {operation}")
        if other := differences(fingerprint, self.fingerprint):
            raise self._refused(f"of other inputs or options ({'; '.join(other)})")

    def _refused(self, why: str, repair: str = AGAIN) -> StateError:
        return StateError(
            f"{self.operation}: the saved state does not belong to this call.\n"
            f"  {self.path} is {why}\n  {repair}"
        )


def _checksum(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        x = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}|{x.dtype.str}|{np.shape(arrays[name])}|".encode())
        digest.update(x.tobytes())
    return digest.hexdigest()
