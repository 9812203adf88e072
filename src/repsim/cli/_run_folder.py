"""A run folder: its command, finished results, and unfinished state."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repsim._version import __version__
from repsim.cli._needs import need
from repsim.cli._outcome import DataError, UsageError
from repsim.cli._session import Session
from repsim.storage import differences, locked, write_whole

if TYPE_CHECKING:
    import xarray

__all__ = ["RunFolder", "record_of", "write_page"]

FORMAT = "repsim.run/1"
RECORD, STATE, PAGE = "run.json", "state.npz", "report.html"
FEATURES = "features.zarr"


class RunFolder:
    """The folder of ``--out``.

    ``run.json`` holds the command, its arguments with digests of data and weights, and the list of
    finished and skipped results. ``<analysis>.nc`` is a finished result, ``state.npz`` the state of
    an unfinished comparison, and ``report.html`` the page.

    Parameters
    ----------
    session : Session
        Gets the command that resumes the run.
    path : pathlib.Path
        The folder; :meth:`begin` creates it if it does not exist.
    command : str
        Its name.
    arguments : mapping of str to JSON values
        All values that determine the results. A folder with other arguments raises.
    data : str
        What ``--data`` names.

    Raises
    ------
    UsageError
        The folder belongs to another command or other arguments, and the message says which;
        another command is at work in it; or it is the folder of the data.
    DataError
        Its record is damaged.
    """

    def __init__(
        self,
        session: Session,
        path: Path,
        command: str,
        arguments: Mapping[str, Any],
        *,
        data: str,
    ) -> None:
        self.path = path
        self._record: dict[str, Any] = {
            "format": FORMAT,
            "command": command,
            "command_line": session.command_line,
            "arguments": json.loads(json.dumps(arguments)),
            "weights": {},
            "begun": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "repsim_version": __version__,
            "analyses": {},
        }
        self._session = session
        self._is_locked = False
        # Path.exists would raise an error below a folder that may not be searched.
        nearest = next(each for each in (path, *path.absolute().parents) if os.path.exists(each))
        if not nearest.is_dir():
            raise UsageError(
                f"--out: must be a folder, not a file.\n  got {path}\n"
                f"  {nearest} is a file; name a folder beside it."
            )
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise _unwritable(path, f"no permission to write in {nearest}")
        if path.exists() and os.path.exists(data) and os.path.samefile(path, data):
            raise UsageError(
                f"--out: the folder holds the data.\n  got {path}\n"
                f"  Name another folder, such as {path.absolute().name}-run."
            )
        if path.exists():
            self._lock()
        if (path / RECORD).exists():
            self._go_on()
        elif any(path.glob("*.nc")):
            raise UsageError(
                "--out: the folder holds results that no command of repsim made.\n"
                f"  got {path}\n"
                f"  Name another folder, or show these results: repsim report {path}"
            )

    @property
    def state(self) -> Path:
        """The state file of an unfinished comparison."""
        return self.path / STATE

    @property
    def features(self) -> Path:
        """The store of features of an unfinished comparison by a measure that keeps them."""
        return self.path / FEATURES

    def discard_state(self) -> None:
        """Remove the state of a comparison that is finished."""
        self.state.unlink(missing_ok=True)
        self.features.with_name(f"{FEATURES}.journal").unlink(missing_ok=True)
        shutil.rmtree(self.features, ignore_errors=True)

    @property
    def skipped(self) -> dict[str, str]:
        """The skipped results and the reasons."""
        return _skipped(self._record)

    def has(self, name: str) -> bool:
        """Whether a result is finished."""
        return (
            self._record["analyses"].get(name, {}).get("status") == "done"
            and (self.path / f"{name}.nc").is_file()
        )

    def load(self, name: str) -> xarray.Dataset:
        """Return a finished result."""
        from repsim.report import load_results

        return load_results(self.path)[name]

    def save(self, name: str, result: xarray.Dataset) -> None:
        """Save a finished result."""
        from repsim.report import save_result

        save_result(self.path, name, result)
        self._record["analyses"][name] = {"status": "done", "file": f"{name}.nc"}
        self._save()

    def skip(self, name: str, reason: str) -> None:
        """Record a skipped result, so the next call need not try it again."""
        self._record["analyses"][name] = {"status": "skipped", "reason": reason}
        self._save()

    def begin(self, digests: Mapping[str, str]) -> None:
        """Write the record, after the arguments are checked, so an error claims no folder.

        Parameters
        ----------
        digests : mapping of str to str
            Digests of the weights of the models, by side.

        Raises
        ------
        UsageError
            The weights differ although the command is the same; or another command has begun to
            work in the folder.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(self.path, str(error.strerror)) from error
        if not self._is_locked:
            self._lock()
            if (self.path / RECORD).exists():  # another command came between
                self._go_on()
        before = self._record["weights"]
        changed = [name for name, now in digests.items() if before.get(name, now) != now]
        if changed:
            raise UsageError(
                f"--out: the folder was started with other weights of {' and '.join(changed)}.\n"
                f"  got {self.path}\n"
                "  The command is the same, but the weights that it names have changed. Name "
                "another folder."
            )
        self._record["weights"] = {**before, **digests}
        self._save()  # an unwritable folder must raise before the work, not after it
        self._session.resume = shlex.join(self._record["command_line"])

    def write_page(self) -> Path:
        """Write the page of all finished results."""
        return write_page(self.path, self._record)

    def _lock(self) -> None:
        """Keep other commands out of the folder until this one ends."""
        try:
            self._session.hold(locked(self.path))
        except BlockingIOError as error:
            raise UsageError(
                "--out: another command is at work in the folder.\n"
                f"  got {self.path}\n"
                "  Wait until it ends, stop it, or name another folder."
            ) from error
        self._is_locked = True

    def _go_on(self) -> None:
        file = self.path / RECORD
        try:
            record = json.loads(file.read_text())
            kind, command, arguments = record["format"], record["command"], record["arguments"]
            record["weights"], record["analyses"], record["command_line"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"--out: the folder's record is damaged.\n  {file}: {error}\n"
                f"  Delete the folder to start again."
            ) from error
        if kind != FORMAT:
            raise UsageError(
                f"--out: the format of the folder is unknown.\n"
                f"  {file}: expected {FORMAT!r}, got {kind!r}"
            )
        differs = differences(arguments, self._record["arguments"])
        if command != self._record["command"]:
            differs = [f"command: was {command}, now {self._record['command']}"]
        if differs:
            listed = "\n  ".join(differs)
            raise UsageError(
                "--out: the folder belongs to another command.\n"
                f"  {self.path} was started with: {shlex.join(record['command_line'])}\n"
                f"  {listed}\n"
                "  Run that command to resume, name another folder, or delete this one."
            )
        self._record = record

    def _save(self) -> None:
        text = json.dumps(self._record, indent=2)
        write_whole(self.path / RECORD, lambda out: out.write(text.encode()))


def record_of(folder: Path) -> dict[str, Any] | None:
    """Return the record of a folder, or None if another program saved its results."""
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text())
        record["command_line"], _skipped(record)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"the folder's record is damaged.\n  {folder / RECORD}: {error}") from error
    return record


def write_page(folder: Path, record: Mapping[str, Any] | None) -> Path:
    """Write the page of a folder's results, and return it."""
    need("jinja2", "the report")
    report: Any = need("repsim.report", "the report")
    page: Path = report.write_report(
        report.load_results(folder),
        folder / PAGE,
        command=None if record is None else shlex.join(record["command_line"]),
        skipped=None if record is None else _skipped(record),
    )
    return page


def _skipped(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the skipped results of a record and the reasons."""
    return {
        name: entry["reason"]
        for name, entry in record["analyses"].items()
        if entry["status"] == "skipped"
    }


def _unwritable(path: Path, reason: str) -> UsageError:
    return UsageError(
        f"--out: the folder cannot be made or written.\n  got {path}: {reason}\n"
        f"  Name a folder that you may write in, on a disk that takes files."
    )
