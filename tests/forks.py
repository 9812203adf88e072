"""Run functions in processes of their own, forked from one that has loaded torch and repsim.

Loading them takes seconds in each process that starts anew. The process that forks has no threads
and has computed nothing, so its children begin as new processes do.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = os.path.dirname(os.path.abspath(__file__))


@dataclass
class Ended:
    """The exit code of a process, what its function returned, and what it wrote to stderr."""

    code: int
    value: Any
    stderr: str


def run_forked(function: str, arguments: list[tuple[Any, ...]], limit: float) -> list[Ended]:
    """Run "module:function" with each tuple of arguments, side by side, for `limit` seconds."""
    with tempfile.TemporaryDirectory() as folder:
        for number, each in enumerate(arguments):
            Path(folder, f"arguments{number}").write_bytes(pickle.dumps(each))
        wanted = {
            "function": function,
            "count": len(arguments),
            "folder": folder,
            "limit": limit,
            "environment": dict(os.environ),
        }
        server = _server()
        server.stdin.write(json.dumps(wanted) + "\n")
        server.stdin.flush()
        codes = json.loads(server.stdout.readline())
        return [
            Ended(
                code,
                pickle.loads(value.read_bytes()) if value.exists() else None,
                Path(folder, f"stderr{number}").read_text(errors="replace"),
            )
            for number, code in enumerate(codes)
            for value in [Path(folder, f"value{number}")]
        ]


@functools.cache
def _server() -> subprocess.Popen[str]:
    """The process that forks, one for each process of pytest."""
    started = subprocess.Popen(
        [sys.executable, __file__],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def end() -> None:
        started.stdin.close()
        started.stdout.close()
        started.wait()

    atexit.register(end)
    return started


def _child(wanted: dict[str, Any], number: int) -> int:
    """Fork a process that calls the function, and return its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        folder = Path(wanted["folder"])
        stderr = os.open(folder / f"stderr{number}", os.O_WRONLY | os.O_CREAT)
        nothing = os.open(os.devnull, os.O_RDWR)
        for there, here in ((nothing, 0), (nothing, 1), (stderr, 2)):
            os.dup2(there, here)
        os.environ.clear()
        os.environ.update(wanted["environment"])
        module, name = wanted["function"].split(":")
        arguments = pickle.loads((folder / f"arguments{number}").read_bytes())
        value = getattr(importlib.import_module(module), name)(*arguments)
        (folder / f"value{number}").write_bytes(pickle.dumps(value))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _codes(pids: list[int], limit: float) -> list[int]:
    """Wait for processes, kill those that take too long, and return the exit codes."""
    end = time.monotonic() + limit
    codes: dict[int, int] = {}
    while len(codes) < len(pids):
        for pid in set(pids) - set(codes):
            if time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                codes[pid] = os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return [codes[pid] for pid in pids]


def _serve() -> None:
    sys.path.insert(0, TESTS)
    import torch
    import torch._dynamo  # DistributedDataParallel loads it

    import repsim

    assert repsim.compare is not None
    for name in ("dask.array", "numpy.testing", "pytest"):  # these are loaded by the first use
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    torch.set_num_threads(1)
    gc.freeze()  # or the children would look through all that is loaded, and copy it
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        wanted = json.loads(line)
        pids = [_child(wanted, number) for number in range(wanted["count"])]
        answers.write(json.dumps(_codes(pids, wanted["limit"])) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
