"""One run of the command: what it says, where, and how."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass, field
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["Session", "plain"]

WIDE = 160
"""Columns where the output is no terminal: names stay whole."""


@dataclass
class Session:
    """What the options common to all commands ask for.

    Attributes
    ----------
    argv : list of str
        The arguments as they were typed.
    debug : bool
        Show tracebacks, and the warnings of other libraries.
    as_json : bool
        The result is one JSON value on standard output, where nothing else then goes.
    resume : str or None
        The command line that goes on after an interrupt.
    """

    argv: list[str] = field(default_factory=list)
    debug: bool = False
    as_json: bool = False
    resume: str | None = None
    _stack: ExitStack = field(default_factory=ExitStack)
    _json_to: TextIO | None = None

    @property
    def command_line(self) -> list[str]:
        """The command as it was typed, but for the path of the program."""
        return ["repsim", *self.argv]

    def only_json(self) -> None:
        """Keep standard output for the result: what models print goes to standard error."""
        self.as_json, self._json_to = True, sys.stdout
        self._stack.enter_context(redirect_stdout(sys.stderr))

    def close(self) -> None:
        """Give standard output back."""
        self._stack.close()

    def note(self, text: str) -> None:
        """Say something on standard error, above a progress bar if there is one."""
        from tqdm import tqdm  # not for --help, because it takes a moment to import

        tqdm.write(text, file=sys.stderr)

    def emit(self, value: Any) -> None:
        """Write the result as JSON."""
        print(json.dumps(plain(value), allow_nan=False), file=self._json_to or sys.stdout)

    def line(self, text: str) -> None:
        """Write a line of the result for a person."""
        print(text)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Write a table of the result for a person: numbers to the right, names to the left."""
        table = Table()
        for at, column in enumerate(columns):
            numeric = bool(rows) and all(isinstance(row[at], int | float) for row in rows)
            table.add_column(Text(column), justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(_cell(value)) for value in row))
        # Made here, not before: standard output may have been exchanged.
        console = Console()
        if not console.is_terminal:
            console.width = WIDE
        console.print(Text(title))  # not the table's own title, which wraps at its width
        console.print(table)


def plain(value: Any) -> Any:
    """Return a value as JSON has it; what is not finite is null."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if hasattr(value, "tolist"):  # NumPy's numbers and arrays
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _cell(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
