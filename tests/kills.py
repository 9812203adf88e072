"""Kill a computation at random moments and start it again, until it finishes.

    python tests/kills.py MODULE:FUNCTION FOLDER KILLS SEED

FUNCTION(folder) computes something resumable in a folder. It first runs once without a kill, in
FOLDER/whole. Then children run it in FOLDER/0, FOLDER/1, ..., and SIGKILL ends them. Each folder is
used until a child finishes, and new folders until KILLS children were killed. The children are
forked from this process, which has imported everything and has no threads, so they start to work
at once.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

TESTS = os.path.dirname(os.path.abspath(__file__))


def kill_until_done(function: str, folder: Path, kills: int, seed: int) -> dict[str, list[int]]:
    """Run this script in a new process; return the number of kills in each folder."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, __file__, function, str(folder), str(kills), str(seed)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout)


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


def main() -> None:
    module, name = sys.argv[1].split(":")
    folder, kills = Path(sys.argv[2]), int(sys.argv[3])
    moment = random.Random(int(sys.argv[4]))
    sys.path.insert(0, TESTS)
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
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
