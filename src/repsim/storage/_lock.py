"""Locks that one process holds at a time, and that end with this process."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

if sys.platform == "win32":
    import msvcrt

    def _take(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _take(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


__all__ = ["locked", "not_in_children"]

LOCK = ".lock"

_HELD: weakref.WeakSet[IO[Any]] = weakref.WeakSet()
"""Files with a lock. A lock lasts as long as any process has the file open."""


def not_in_children(file: IO[Any]) -> None:
    """Close an open file in every process that is forked from now on, such as a loader's worker.

    Otherwise, a worker that outlives this process, or the call, would keep the lock of the file.
    """
    _HELD.add(file)


def _close_all() -> None:
    for file in list(_HELD):
        file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_all)


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
    # Without a buffer, so that closing it in a child writes nothing.
    with open(folder / LOCK, "ab", buffering=0) as file:
        not_in_children(file)
        try:
            _take(file.fileno())
        except OSError as error:  # Windows says EACCES
            raise BlockingIOError(error.errno, "another process holds the lock") from error
        yield
