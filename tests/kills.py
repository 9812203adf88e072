"""Kill a computation at random moments and start it again, until it finishes.

A function of a folder computes something resumable in it. It first runs once without a kill, in
the folder "whole". Then children run it in the folders "0", "1", ..., and SIGKILL ends them. Each
folder is used until a child finishes, and new folders until enough children were killed. The
children are forked from a process that has imported everything and has no threads, so they start
to work at once.
"""

from __future__ import annotations

import importlib
import os
import random
import signal
import time
import traceback
from pathlib import Path

from forks import run_forked


def kill_until_done(function: str, folder: Path, kills: int, seed: int) -> list[int]:
    """Kill "module:function" in a process of its own; return the number of kills in each folder."""
    (run,) = run_forked("kills:killed", [(function, folder, kills, seed)], limit=300.0)
    assert run.code == 0, run.stderr[-3000:]
    return run.value


def child(work, folder: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work(folder)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def killed(function: str, folder: Path, kills: int, seed: int) -> list[int]:
    module, name = function.split(":")
    moment = random.Random(seed)
    work = getattr(importlib.import_module(module), name)

    (folder / "whole").mkdir()
    start = time.monotonic()
    _, status = os.waitpid(child(work, folder / "whole"), 0)
    assert status == 0
    seconds = time.monotonic() - start
    counts: list[int] = []
    while sum(counts) < kills:
        counts.append(0)
        place = folder / str(len(counts) - 1)
        place.mkdir()
        while True:
            pid = child(work, place)
            # Late enough that something has been done, because a child that is always killed at
            # its beginning would never finish.
            if counts[-1] < 8:
                time.sleep(moment.uniform(0, seconds))
                os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            if status == 0:
                break
            assert os.WIFSIGNALED(status), "the computation failed by itself"
            counts[-1] += 1
    return counts
