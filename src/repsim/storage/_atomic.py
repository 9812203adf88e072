"""Atomic writing of files, and differences between two descriptions of a computation."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from repsim._shown import shortened

__all__ = ["differences", "how_to_write", "sync_file", "sync_folder", "write_whole"]

OLD = 86_400.0
"""Seconds after which nobody writes to a file any more."""

LONGEST = 60
"""Characters of a value in a message; a longer one is cut."""


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Replace a file atomically: a reader finds the old content or the whole new content.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "x"
    ...     write_whole(path, lambda file: file.write(b"all of it"))
    ...     path.read_bytes()
    b'all of it'

    The new content is written to a file beside `path` and synced, the file is renamed, and the
    folder is synced. After that, a power failure does not undo it. If writing fails, `path` is
    unchanged, and no file remains beside it. A kill leaves the file beside it, which a later call
    removes when it is a day old.

    Parameters
    ----------
    path : pathlib.Path
        The file. Its folder must exist.
    write : callable
        Called once with a binary file that is open for writing.

    Raises
    ------
    OSError
        The disk is full, or the folder is missing or read-only.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    if not path.parent.is_dir():  # the error of open would name the file beside it
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", str(path.parent))
    with contextlib.suppress(OSError):
        _remove_remains(path)
    try:
        with open(aside, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        if isinstance(error, OSError) and error.errno is not None:
            # The error names the file, and not the one beside it. One of `write` may name another.
            names = error.filename, error.filename2
            own = names[0] in (None, str(aside))
            error.filename, error.filename2 = (str(path), None) if own else names
        raise
    sync_folder(path.parent)


def _remove_remains(path: Path) -> None:
    """Remove what kills left beside a file; a younger one may be of a process that still writes."""
    remains = re.compile(re.escape(f".{path.name}.") + r"\d+\.tmp")
    with os.scandir(path.parent) as entries:
        for entry in entries:
            old = remains.fullmatch(entry.name) and time.time() - entry.stat().st_mtime > OLD
            if old:
                os.unlink(entry.path)


def how_to_write(error: OSError, path: Path) -> str:
    """Say what makes a file writable that could not be written."""
    if error.errno == errno.ENOENT:
        return f"Make the folder {path.parent}"
    return "Free some space or make the folder writable"


def sync_file(path: Path) -> None:
    """Wait until the contents of a file are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Make creations and renamings durable, if folders can be opened (not on Windows)."""
    if os.name != "nt":
        sync_file(folder)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describe the entries in which two nested mappings of JSON values differ, one text each.

    >>> differences({"n": 3, "model": {"seed": 0}}, {"n": 3, "model": {"seed": 1}, "limit": 5})
    ['model seed: was 0, now 1', 'limit: was not given, now 5']

    An entry that is ``None`` counts as missing.
    """
    return _differences(before, now, ())


def _differences(before: Any, now: Any, where: tuple[str, ...]) -> list[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        return [
            line
            for name in dict.fromkeys((*before, *now))
            for line in _differences(before.get(name), now.get(name), (*where, name))
        ]
    if before == now:
        return []
    return [f"{' '.join(where)}: was {_text(before)}, now {_text(now)}"]


def _text(value: Any) -> str:
    if value is None:
        return "not given"
    return shortened(json.dumps(value, ensure_ascii=False), LONGEST)
