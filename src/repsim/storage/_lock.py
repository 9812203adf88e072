"""A lock on a folder that one process holds at a time, and that ends with the process."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform == "win32":
    import msvcrt

    def _take(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _take(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


__all__ = ["locked"]

LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of an existing folder.

    The operating system releases it when the process ends, however it ends. The empty file
    ``.lock`` stays, because removing it would let two processes lock two files of one name.

    Raises
    ------
    BlockingIOError
        Another process holds it.
    """
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            _take(handle)
        except OSError as error:  # Windows says EACCES
            raise BlockingIOError(error.errno, "another process holds the lock") from error
        yield
    finally:
        os.close(handle)
