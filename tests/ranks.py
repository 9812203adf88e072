"""Run the processes of one group, and collect the result of each."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import time

WORKER = """
import datetime, pickle, sys
import torch
import torch.distributed as dist
sys.path.insert(0, {tests!r})
import importlib
torch.set_num_threads(1)
rank, size = int(sys.argv[1]), int(sys.argv[2])
dist.init_process_group("gloo", init_method="file://" + sys.argv[3], rank=rank, world_size=size,
                        timeout=datetime.timedelta(seconds=20))
module, name = sys.argv[5].split(":")
result = getattr(importlib.import_module(module), name)(rank, size)
with open(sys.argv[4], "wb") as file:
    pickle.dump(result, file)
dist.destroy_process_group()
"""


def run_ranks(function: str, size: int, limit: float = 90.0) -> list[object]:
    """Run "module:function"(rank, size) in `size` processes; None for one that died on purpose."""
    tests = os.path.dirname(os.path.abspath(__file__))
    with tempfile.TemporaryDirectory() as folder:
        outputs = [os.path.join(folder, f"out{rank}") for rank in range(size)]
        children = [
            subprocess.Popen(
                [
                    *(sys.executable, "-c", WORKER.format(tests=tests), str(rank), str(size)),
                    *(os.path.join(folder, "store"), output, function),
                ],
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank, output in enumerate(outputs)
        ]
        end = time.monotonic() + limit
        try:
            errors = [
                child.communicate(timeout=max(0.1, end - time.monotonic()))[1] for child in children
            ]
        finally:
            for child in children:
                child.kill()
        results: list[object] = []
        for child, output, error in zip(children, outputs, errors, strict=True):
            if child.returncode == 7:  # died on purpose
                results.append(None)
                continue
            assert os.path.exists(output), error[-3000:]
            with open(output, "rb") as file:
                results.append(pickle.load(file))
        return results
