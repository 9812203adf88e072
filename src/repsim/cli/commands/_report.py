"""``repsim report RUN``: the page of a run folder, written again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from repsim.cli._outcome import UsageError
from repsim.cli._session import Session
from repsim.cli.commands._options import NoProgress
from repsim.cli.commands._signature import command

__all__ = ["report"]


@command
def report(
    session: Session,
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    *,
    progress: NoProgress = True,
) -> None:
    """Write the page of a run folder again, report.html, from all results in it."""
    if not folder.is_dir():
        raise UsageError(
            f"report: there is no such folder.\n  got {folder}\n  Name the folder that --out named."
        )
    from repsim.cli._run_folder import record_of, write_page

    page = write_page(folder, record_of(folder))
    if session.as_json:
        session.emit({"command": "report", "files": {"folder": str(folder), "report": str(page)}})
    else:
        session.line(f"the page is {page}")
