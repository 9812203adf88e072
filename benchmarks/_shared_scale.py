"""One activations store, and cka_matrix on it by one process, two ranks and two workers of Dask.

`python benchmarks/_shared_scale.py ROLE FOLDER` is one of the processes: it reads
`FOLDER/task.json` and writes `FOLDER/found-ROLE.json`. It imports torch only where it must, so that
the peak of memory is that of the work.
"""

from __future__ import annotations

import datetime
import functools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import repsim

BATCH = 1000


def peak_mib() -> float:
    """The peak of memory of this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def start(role: str, folder: Path) -> subprocess.Popen[str]:
    """Start a process of this file, with one thread of BLAS."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return subprocess.Popen(
        [sys.executable, __file__, role, str(folder)],
        env={**os.environ, **threads},
        stderr=subprocess.PIPE,
        text=True,
    )


def run(roles: list[str], folder: Path) -> list[dict[str, Any]]:
    """Run processes beside each other, and return what they found."""
    children = [start(role, folder) for role in roles]
    for child in children:
        _, error = child.communicate()
        if child.returncode:
            raise RuntimeError(error[-2000:])
    return [json.loads((folder / f"found-{role}.json").read_text()) for role in roles]


class Samples:
    """Batches of inputs that see the same causes; any slice of them without the others."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __iter__(self) -> Any:
        import torch

        for at in range(0, self.n, BATCH):
            generator = torch.Generator().manual_seed(at)
            yield torch.randn(min(BATCH, self.n - at), 64, generator=generator)


def extract(task: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Store the layers of a network of random weights."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(0)
    widths = [64, *[task["features"]] * task["layers"]]
    pairs = zip(widths[:-1], widths[1:], strict=True)
    blocks = [nn.Sequential(nn.Linear(p, q), nn.Tanh()) for p, q in pairs]
    names = [str(number) for number in range(task["layers"])]
    begin = time.perf_counter()
    repsim.extract(
        nn.Sequential(*blocks), Samples(task["n"]), names, out=folder / "run.zarr", progress=False
    )
    return {"seconds": time.perf_counter() - begin}


def group_of(rank: int, folder: Path) -> None:
    """Join the group of two ranks."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/group",
        rank=rank,
        world_size=2,
        timeout=datetime.timedelta(minutes=30),
    )


def timed(task: dict[str, Any], layers: Any, **options: Any) -> dict[str, Any]:
    begin = time.perf_counter()
    result = repsim.cka_matrix(layers, memory=task["memory"], **options)
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "peak_mib": peak_mib(), "values": result.values.tolist()}


def bare(task: dict[str, Any]) -> dict[str, Any]:
    """The matrix products of one process, over blocks of rows from memory; a part of them.

    `share` of the rows is multiplied, and the seconds are divided by it.
    """
    rng = np.random.default_rng(0)
    columns, width = task["layers"] * task["features"], 2048
    block = rng.standard_normal((2048, columns), dtype=np.float32)
    edges = [*range(0, columns, width), columns]
    tiles = [block[:, a:b].copy() for a, b in zip(edges[:-1], edges[1:], strict=True)]
    count = max(1, round(task["n"] / 2048 * task["share"]))
    seconds = 0.0
    for number in range(count + 1):
        begin = time.perf_counter()
        for i, a in enumerate(tiles):
            for b in tiles[i:]:
                a.T @ b
        seconds += (time.perf_counter() - begin) * (number > 0)  # the first is a warm-up
    return {"seconds": seconds * task["n"] / 2048 / count}


def in_dask(task: dict[str, Any], folder: Path) -> dict[str, Any]:
    from distributed import Client, LocalCluster

    stored = repsim.open_activations(folder / "run.zarr").chunk(sample=task["chunk"])
    with (
        LocalCluster(2, threads_per_worker=1, dashboard_address=None, memory_limit="1.5GB") as one,
        Client(one) as client,
    ):
        client.run(functools.partial(__import__, "repsim"))
        found = timed(task, stored)
        return {**found, "workers_mib": list(client.run(peak_mib).values())}


def main() -> None:
    role, folder = sys.argv[1], Path(sys.argv[2])
    task = json.loads((folder / "task.json").read_text())
    if role == "extract":
        found = extract(task, folder)
    elif role == "bare":
        found = bare(task)
    elif role == "dask":
        found = in_dask(task, folder)
    elif role == "one":
        found = timed(task, repsim.open_activations(folder / "run.zarr"))
    else:
        group_of(int(role[-1]), folder)
        found = timed(task, repsim.open_activations(folder / "run.zarr"), group="world")
    (folder / f"found-{role}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
