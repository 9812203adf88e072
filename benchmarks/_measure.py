"""One package in a new process (memory, matrix), and all packages in turn in one process (time).

`python benchmarks/_measure.py FOLDER` is the new process: it reads the task from
`FOLDER/task.json` and writes its results beside it.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from _cases import CASES, Case
from _packages import Layers, Matrix, call


@dataclass(frozen=True)
class Run:
    """One call of one package in a fresh process."""

    seconds: float
    peak_mib: float
    matrix: Matrix | None
    raised: str | None


def peak_mib() -> float:
    """The peak memory of this process, since `forget_peak` if the system supports it."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError):  # not Linux: the peak of the whole life, in bytes on macOS
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 1024)


def forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


@dataclass(frozen=True)
class Setting:
    """The arguments that all packages of a case share."""

    case: str
    layers: Layers
    imports: list[str]
    threads: int
    timeout: float


def alone(name: str, how: str, batches: int, setting: Setting) -> Run:
    """Run `how` of package `name` once in a fresh process.

    Every such process imports the same modules first, those of all packages, so a difference
    of two peaks is memory used by a comparison and never the size of a library. VmHWM is used
    because ru_maxrss is inherited from the parent at fork.
    """
    with tempfile.TemporaryDirectory() as folder:
        task = {"name": name, "how": how, "batches": batches, **asdict(setting)}
        (Path(folder) / "task.json").write_text(json.dumps(task))
        command = [sys.executable, __file__, folder]
        try:
            done = subprocess.run(
                command, timeout=setting.timeout, check=False, capture_output=True, text=True
            )
        except subprocess.TimeoutExpired:
            return Run(
                setting.timeout, float("nan"), None, f"not done after {setting.timeout:.0f} s"
            )
        if done.returncode:
            raise RuntimeError(f"{name} ({how}), case {setting.case}:\n{done.stderr}")
        found = json.loads((Path(folder) / "found.json").read_text())
        matrix = None
        if found["labels"]:
            matrix = Matrix(*found["labels"], np.load(Path(folder) / "values.npy"))
        return Run(found["seconds"], found["peak_mib"], matrix, found["raised"])


def _worker(folder: Path) -> None:
    task = json.loads((folder / "task.json").read_text())
    torch.set_num_threads(task["threads"])
    for module in task["imports"]:
        importlib.import_module(module)
    case = CASES[task["case"]]
    models, batches = case.build(), case.batches(task["batches"])
    with torch.inference_mode():  # first use of each kernel: not the package's memory or time
        for model in models:
            model(batches[0][:1])
    gc.collect()
    forget_peak()
    matrix, raised = None, None
    start = time.perf_counter()
    try:
        matrix = call(task["name"], task["how"], models, batches, Layers(*task["layers"]))
    except Exception as error:  # an error of a package is a result
        raised = f"{type(error).__name__}: {error}"
    found = {
        "seconds": time.perf_counter() - start,
        "peak_mib": peak_mib(),
        "raised": raised,
        "labels": matrix and matrix[:2],
    }
    if matrix:
        np.save(folder / "values.npy", matrix.values)
    (folder / "found.json").write_text(json.dumps(found))


@dataclass(frozen=True)
class Plan:
    """How a package is timed: the way of calling it, and the numbers of batches and repeats."""

    how: str
    batches: int
    repeats: int


def interleaved(
    case: Case, plans: dict[str, Plan], layers: Layers
) -> Iterator[tuple[str, int, float]]:
    """Seconds per batch as (package, round, seconds): A B C … A B C …, not A A … B B ….

    A drift of the machine's speed then affects all packages equally. Each call gets fresh copies of
    the models, because some packages leave their hooks behind.
    """
    original = case.build()
    batches = case.batches(max(plan.batches for plan in plans.values()))
    for name, plan in plans.items():  # a first, untimed call of the quick packages
        if plan.repeats > 1:
            call(name, plan.how, _copies(original), batches[:1], layers)
    for turn in range(max(plan.repeats for plan in plans.values())):
        for name, plan in plans.items():
            if turn >= plan.repeats:
                continue
            models = _copies(original)
            gc.collect()
            start = time.perf_counter()
            call(name, plan.how, models, batches[: plan.batches], layers)
            yield name, turn, (time.perf_counter() - start) / plan.batches


def _copies(models: tuple[nn.Module, nn.Module]) -> tuple[nn.Module, nn.Module]:
    return copy.deepcopy(models[0]), copy.deepcopy(models[1])


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    _worker(Path(sys.argv[1]))
