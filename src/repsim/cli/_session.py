"""One run of the command: its messages and its output."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, redirect_stdout
from dataclasses import dataclass, field
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from repsim._shown import shown, shown_lines

__all__ = ["Session", "decimal", "plain"]

HALF = 20
"""Rows at the beginning and at the end of a table that a terminal shows; a file gets all."""

WIDE = 160
"""Columns if the output is not a terminal, so names are not cut."""


@dataclass
class Session:
    """The options common to all commands.

    Attributes
    ----------
    argv : list of str
        The typed arguments.
    debug : bool
        Show tracebacks, and the warnings of other libraries.
    as_json : bool
        The result is one JSON value on standard output; nothing else is written there.
    resume : str or None
        The command line that resumes after an interrupt.
    """

    argv: list[str] = field(default_factory=list)
    debug: bool = False
    as_json: bool = False
    resume: str | None = None
    _stack: ExitStack = field(default_factory=ExitStack)
    _json_to: TextIO | None = None

    @property
    def command(self) -> str:
        """The name of the command."""
        return next((word for word in self.argv if not word.startswith("-")), "")

    @property
    def command_line(self) -> list[str]:
        """The typed command without the path of the program."""
        return ["repsim", *self.argv]

    def only_json(self) -> None:
        """Reserve standard output for the result; output of models goes to standard error."""
        self.as_json, self._json_to = True, sys.stdout
        self._stack.enter_context(redirect_stdout(sys.stderr))

    def hold(self, context: AbstractContextManager[object]) -> None:
        """Enter a context that ends with the session."""
        self._stack.enter_context(context)

    def close(self) -> None:
        """Restore standard output, and leave what is held."""
        self._stack.close()

    def note(self, text: str) -> None:
        """Write a message to standard error, above a progress bar if there is one.

        Lines after the first begin with two spaces; other line breaks belong to names.
        """
        from tqdm import tqdm  # not for --help, because it takes a moment to import

        tqdm.write(shown_lines(text), file=sys.stderr)

    def emit(self, value: Any) -> None:
        """Write the result as JSON."""
        text = json.dumps(plain(value), allow_nan=False).replace("\x7f", "\\u007f")
        print(text, file=self._json_to or sys.stdout)

    def line(self, text: str) -> None:
        """Write a line of text of the result."""
        print(shown(text))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Write a table of the result, numbers aligned right and names left."""
        table = Table()
        for at, column in enumerate(columns):
            numeric = bool(rows) and all(isinstance(row[at], int | float) for row in rows)
            table.add_column(
                Text(shown(column)), justify="right" if numeric else "left", overflow="fold"
            )
        # Made here because standard output may have been replaced before.
        console = Console()
        if not console.is_terminal:
            console.width = WIDE
        for row in _shortened(rows) if console.is_terminal else rows:
            table.add_row(*(Text(shown(_cell(value))) for value in row))
        # Not as the title of the table, which would wrap at the width of the table.
        console.print(Text(shown(title)))
        console.print(table)


def _shortened(rows: Sequence[Sequence[object]]) -> Sequence[Sequence[object]]:
    """Return the first and the last rows of a long table, and how many are between."""
    left_out = len(rows) - 2 * HALF
    if left_out <= 1:
        return rows
    between = [f"… {left_out} more", *[""] * (len(rows[0]) - 1)]
    return [*rows[:HALF], between, *rows[-HALF:]]


def plain(value: Any) -> Any:
    """Return a value in JSON types; non-finite numbers become null."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if hasattr(value, "tolist"):  # NumPy's numbers and arrays
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float) else str(value)


def decimal(value: float, digits: int) -> str:
    """Return a number with this many decimals, or as a power of ten where they would be zeros.

    >>> decimal(0.25, 4), decimal(3.14159e-7, 4)
    ('0.2500', '3.1e-07')
    """
    is_small = 0 < abs(value) < 10.0**-digits
    return f"{value:.{digits - 2}g}" if is_small else f"{value:.{digits}f}"


def _cell(value: object) -> str:
    return decimal(value, 4) if isinstance(value, float) else str(value)
