"""``repsim compare --out`` on little data, for tests/kills.py: state after every batch."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from analysis.killed import often
from repsim.cli import main
from repsim.report import load_results


def compare_out(folder: Path) -> None:
    often()
    os.chdir(folder)
    rng = np.random.default_rng(0)
    if not Path("inputs.npz").exists():
        np.savez("begun.npz", inputs=rng.standard_normal((80, 6)).astype(np.float32))
        os.replace("begun.npz", "inputs.npz")
    argv = ["compare", "cli.tiny_models:mlp", "cli.tiny_models:mlp", "--data", "inputs.npz"]
    with contextlib.redirect_stdout(io.StringIO()):
        code = main([*argv, "--batch-size", "8", "--no-progress", "--out", "run"])
    assert code == 0
    assert "</html>" in Path("run/report.html").read_text(encoding="utf-8")
    back = load_results("run")["compare"]
    np.save("cka.npy", back.cka)
    np.save("error.npy", back.standard_error)


def warm_up() -> None:
    """Do all of it once before the forks, so a child begins with its work and not with imports."""
    before, clock = os.getcwd(), time.monotonic
    with tempfile.TemporaryDirectory() as folder:
        compare_out(Path(folder))
        os.chdir(before)
    time.monotonic = clock


# tqdm's own lock is shared between processes: a child that is killed while it writes would hold it
# for ever.
tqdm.set_lock(threading.RLock())
warm_up()
