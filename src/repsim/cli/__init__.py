"""The command ``repsim``: arrays, models and run folders from a shell.

Importing this loads neither torch nor typer; a command imports what it needs when it runs.
"""

from __future__ import annotations

import io
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    >>> main(["--version"]) == 0
    repsim ...
    True

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments after the command's name; by default those of this process.

    Returns
    -------
    int
        0 done, 1 failed, 2 wrong arguments, 130 interrupted.
    """
    try:
        from repsim.cli._app import app
    except ModuleNotFoundError as error:
        from repsim._missing import missing_package

        known = missing_package("repsim: the command line", error)
        if known is None:
            raise
        print(known, file=sys.stderr)
        return 1
    with _terminated_as_interrupted(), _any_encoding():
        try:
            app(args=None if argv is None else list(argv), prog_name="repsim")
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


@contextmanager
def _any_encoding() -> Iterator[None]:
    """Escape characters that the encoding of the terminal lacks, such as é in ASCII."""
    streams = [each for each in (sys.stdout, sys.stderr) if isinstance(each, io.TextIOWrapper)]
    before = [each.errors for each in streams]
    for each in streams:
        each.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for each, errors in zip(streams, before, strict=True):
            each.reconfigure(errors=errors)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C, so the time limit of a batch system loses no work.

    It raises SIGINT instead of a separate exception, because SIGINT waits while a batch is counted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
