"""How a command ends: its exit code, and a message instead of a traceback."""

from __future__ import annotations

import errno
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from repsim._errors import RepsimError, RepsimWarning
from repsim._shown import shown_lines
from repsim.cli._session import Session
from repsim.cli._wording import on_the_command_line

__all__ = [
    "FAILED",
    "INTERRUPTED",
    "USAGE",
    "DataError",
    "Interrupted",
    "UsageError",
    "escape_usage",
    "reporting",
]

FAILED, USAGE, INTERRUPTED = 1, 2, 130

ONE_INPUT = (
    "\n  The command passes one input: images, or texts with their mask. If the model needs more, "
    "name a\n  function that returns a module which adds it: package.module:function."
)
"""What to do if a model fails on the data, such as one of images and texts together."""


class UsageError(RepsimError):
    """The typed command is invalid: exit code 2."""


class DataError(RepsimError):
    """The data cannot be read."""


class Interrupted(RepsimError):  # noqa: N818 - an end, not an error
    """The user pressed Ctrl-C, and finished work is saved."""


@contextmanager
def reporting(session: Session) -> Iterator[None]:
    """Turn every end of a command into a message and an exit code."""
    with warnings.catch_warnings():
        # Deprecations of other libraries do not help the user of a command; --debug shows them.
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", RepsimWarning)
        told: set[str] = set()

        def tell(message: Warning | str, *_: object, **__: object) -> None:
            text = f"warning: {message}"
            text += on_the_command_line(text, session.command)
            if text not in told:  # one model may say the same as the other
                told.add(text)
                session.note(text)

        warnings.showwarning = tell
        try:
            yield
        except (typer.Exit, typer.Abort):
            raise
        except (KeyboardInterrupt, Interrupted) as end:
            session.note(_interrupted(session, str(end)))
            raise typer.Exit(INTERRUPTED) from end
        except SystemExit as end:  # of a model or its package: typer ends by errors of its own
            if isinstance(end.__context__, BrokenPipeError):  # of rich: the reader of a pipe ended
                raise
            session.note(
                f"error: the code of a model ended the program with SystemExit({end.code!r}).\n"
                f"  Remove the call of exit or sys.exit from it."
            )
            raise typer.Exit(FAILED) from end
        # Every error ends the command here; --debug shows where it was raised.
        except Exception as error:
            if _is_typers(error):
                escape_usage(error)
                raise
            if session.debug:
                session.note(_indented("".join(traceback.format_exception(error)).rstrip()))
            session.note(f"error: {_message(error, session.command)}")
            raise typer.Exit(USAGE if isinstance(error, UsageError) else FAILED) from error


def _is_typers(error: Exception) -> bool:
    """Whether the error comes from parsing, or from a pipe whose reader has ended."""
    broken_pipe = isinstance(error, OSError) and error.errno == errno.EPIPE
    return broken_pipe or hasattr(error, "format_message")


def _interrupted(session: Session, what: str) -> str:
    first = f"interrupted: {what}" if what else "interrupted."
    if session.resume is None:
        return f"{first}\n  Nothing was saved. With --out FOLDER, the next call resumes the work."
    return f"{first}\n  Finished work is saved. To resume, run the same command again:\n" + (
        f"  {session.resume}"
    )


def _message(error: Exception, command: str) -> str:
    notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", []))
    if isinstance(error, UsageError | DataError):
        return f"{error}{notes}"
    if isinstance(error, RepsimError):
        return f"{error}{notes}{on_the_command_line(str(error), command)}"
    if isinstance(error, ModuleNotFoundError):
        return (
            f"{error}.{notes}\n"
            "  Install it, or install the extras of repsim that contain it: '.[all]'."
        )
    if isinstance(error, OSError) and error.strerror:
        place = f": {error.filename}" if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        repair = "\n  Free some space, then type the same command again." if full else ""
        return f"{error.strerror}{place}{notes}{repair}"
    inputs = ONE_INPUT if "in a forward of" in notes else ""
    return (
        f"{type(error).__name__}: {_indented(str(error))}{notes}{inputs}\n"
        "  Add --debug to see where."
    )


def escape_usage(error: Exception) -> None:
    """Escape what was typed in an error of typer, which typer writes itself."""
    for name in ("message", "option_name", "param_hint"):
        if isinstance(text := getattr(error, name, None), str):
            setattr(error, name, shown_lines(_indented(text)))


def _indented(text: str) -> str:
    """Return a text of other packages with its lines indented as ours are."""
    return "\n  ".join(text.splitlines())
