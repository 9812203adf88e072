"""Kill a computation at each place where it changes files, and start it again, until it finishes.

A function of a folder computes something resumable in it. It first runs once without a kill, in
the folder "whole". There, each call that may open, write, rename or remove a file is noted with
its place in the code, if the files are not what they were at the call before. Then children run
it in the folders "0", "1", ..., and each is killed by SIGKILL right before such a call, at a place
of its own. Between two calls the files stay as they are. So the kills leave all kinds of states
that a kill at any moment can leave, and each of them in every run of the tests. A folder is used
until a child finishes before it reaches its place.

The children are forked from a process that has imported everything and has no threads, so they
start to work at once. They do not sync: this waits for the disk, and a kill loses nothing that is
written.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import os
import pickle
import random
import signal
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import repsim
from forks import run_forked

CALLS = {
    *("open", "write", "writelines", "flush", "close", "truncate", "ftruncate"),
    *("replace", "rename", "unlink", "remove", "rmdir", "mkdir", "link"),
}
LEAST = 12
"""Kills of a computation with few places, where a second round kills at other calls."""

SOURCE = os.path.dirname(repsim.__file__)
STORAGE = os.path.join(SOURCE, "storage")

Place = tuple[tuple[str, Any], ...]
"""The call and its file; the line of repsim that leads to it, and that outside its storage."""


def kill_at_each_place(function: str, folder: Path, seed: int) -> list[int]:
    """Kill "module:function" in processes of its own; return the number of kills in each folder."""
    (run,) = run_forked("kills:killed", [(function, folder, seed)], limit=300.0)
    assert run.code == 0, run.stderr[-3000:]
    return run.value


class Steps:
    """A profile function that counts the calls at each place, and kills at one of them.

    Without a place, it notes at which of the calls of each place the files had changed.
    """

    def __init__(self, folder: Path, place: Place = (), number: int = 0) -> None:
        self.folder, self.place, self.number = folder, place, number
        self.seen: Counter[Place] = Counter()
        self.changed: dict[Place, list[int]] = {}
        self.files = state(folder)

    def __call__(self, frame: FrameType, event: str, called: Any) -> None:
        if event != "c_call" or called.__name__ not in CALLS or not touches_files(called):
            return
        place = place_of(frame, called.__name__)
        self.seen[place] += 1
        if self.place:
            if place == self.place and self.seen[place] == self.number:
                os.kill(os.getpid(), signal.SIGKILL)
        elif (files := state(self.folder)) != self.files:
            self.files = files
            self.changed.setdefault(place, []).append(self.seen[place])


def state(folder: Path) -> dict[str, tuple[int, ...]]:
    """What distinguishes the files of a folder from those before a change."""
    found = {}
    for entry in os.scandir(folder):
        try:
            about = entry.stat()
            inside = state(Path(entry.path)) if entry.is_dir() else {}
        except FileNotFoundError:  # another thread of Zarr has renamed it meanwhile
            continue
        found[entry.path] = about.st_ino, about.st_size, about.st_mtime_ns
        found |= inside
    return found


def touches_files(called: Any) -> bool:
    """Whether it is a function of a module or a method of a file, unlike `str.replace`."""
    owner = called.__self__
    in_memory = isinstance(owner, io.BytesIO | io.StringIO)
    return isinstance(owner, ModuleType | io.IOBase) and not in_memory


def place_of(frame: FrameType, name: str) -> Place:
    """Where a thread of Zarr calls, the main thread waits in repsim."""
    lines: list[tuple[str, Any]] = [(frame.f_code.co_filename, name)]
    caller: FrameType | None = sys._current_frames()[threading.main_thread().ident]
    while caller is not None and len(lines) < 3:
        file = caller.f_code.co_filename
        if file.startswith(SOURCE) and (len(lines) == 1 or not file.startswith(STORAGE)):
            lines.append((file, caller.f_lineno))
            if not file.startswith(STORAGE):
                break
        caller = caller.f_back
    return tuple(lines)


def child(work: Callable[[Path], None], folder: Path, steps: Steps) -> int:
    """Fork a process that works; one that is not killed leaves its steps beside the folder."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.fsync = lambda handle: None
        threading.setprofile(steps)
        sys.setprofile(steps)
        work(folder)
        sys.setprofile(None)
        found = steps.changed, sorted(sys.modules)
        folder.with_suffix(".steps").write_bytes(pickle.dumps(found))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def finishes(
    work: Callable[[Path], None], folder: Path, place: Place = (), number: int = 0
) -> bool:
    """Whether the work finishes in a process of its own, or is killed."""
    _, status = os.waitpid(child(work, folder, Steps(folder, place, number)), 0)
    assert status == 0 or os.WIFSIGNALED(status), "the computation failed by itself"
    return status == 0


def killed(function: str, folder: Path, seed: int) -> list[int]:
    moment = random.Random(seed)
    module, name = function.split(":")
    work = getattr(importlib.import_module(module), name)
    for whole in (folder / "first", folder / "whole"):
        whole.mkdir()
        assert finishes(work, whole)
        places, modules = pickle.loads(whole.with_suffix(".steps").read_bytes())
        for each in modules:  # that the first use loads
            with contextlib.suppress(ImportError):
                importlib.import_module(each)
    gc.freeze()  # or the children would look through all that is loaded

    counts: list[int] = []

    def kills(place: Place, number: int) -> bool:
        if finishes(work, folder / str(len(counts) - 1), place, number):
            return False
        counts[-1] += 1
        return True

    def begin() -> None:
        counts.append(0)
        (folder / str(len(counts) - 1)).mkdir()

    begin()
    wanted = [(place, numbers) for place, numbers in places.items() if len(place) > 1]
    while sum(counts) < max(LEAST, len(wanted)):
        for place, numbers in wanted:
            # Early, so the others are left for later kills and none takes long.
            number = moment.choice(numbers[: max(len(numbers) // 4, 1)])
            if not kills(place, number):
                begin()
                assert kills(place, number), place
    while not finishes(work, folder / str(len(counts) - 1)):
        pass
    return counts
