"""Write results and pages, for tests/kills.py; each start checks the files of the last one."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import xarray as xr

from repsim.report import load_results, write_report
from repsim.report import save_result as save

ROUNDS = 5


def result(version: int, size: int = 60) -> xr.Dataset:
    """A map in which every value is the number of its version."""
    return xr.Dataset(
        {"cka": (("layer_x", "layer_y"), np.full((size, size), float(version)))},
        {"layer_x": list(map(str, range(size))), "layer_y": list(map(str, range(size)))},
        {"version": version},
    )


class Finished:
    """The number of the last version that was written completely, as a kill leaves it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "finished"
        self.last = len(self.path.read_bytes()) - 1 if self.path.exists() else -1

    def add(self) -> None:
        with self.path.open("ab") as file:
            file.write(b"x")

    def check(self, found: int | None) -> None:
        """A kill between the writing and the record of it may leave one version more."""
        expected = {self.last, self.last + 1} if self.last >= 0 else {None, 0}
        assert found in expected, (found, self.last)


def save_result(folder: Path) -> None:
    finished = Finished(folder)
    found = None
    if (folder / "run").exists() and list((folder / "run").glob("*.nc")):
        back = load_results(folder / "run")["maps"]
        found = back.attrs["version"]
        assert back.identical(result(found))
    finished.check(found)
    for version in range(finished.last + 1, ROUNDS):
        save(folder / "run", "maps", result(version))
        finished.add()
    np.save(folder / "last.npy", load_results(folder / "run")["maps"].cka)


def page(folder: Path) -> None:
    finished, path, found = Finished(folder), folder / "report.html", None
    if path.exists():
        text = path.read_text(encoding="utf-8")
        assert text.endswith("</html>") or text.endswith("</html>\n")
        found = int(text.partition("<h1>")[2].partition("</h1>")[0])
    finished.check(found)
    for version in range(finished.last + 1, ROUNDS):
        write_report({"maps": result(version, 8)}, path, title=str(version))
        finished.add()
    np.save(folder / "last.npy", np.frombuffer(path.read_bytes(), dtype=np.uint8))


def warm_up() -> None:
    """Do all of it once before the forks, so a child begins with its work and not with imports."""
    for work in (save_result, page):
        with tempfile.TemporaryDirectory() as folder:
            work(Path(folder))


warm_up()
