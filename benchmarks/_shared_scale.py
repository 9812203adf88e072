"""One activations store, and cka_matrix on it by one process, two ranks and two workers of Dask.

`python benchmarks/_shared_scale.py ROLE FOLDER` is one of the processes: it reads
`FOLDER/task.json` and writes `FOLDER/found-ROLE.json`. It imports torch only where it must, so that
the peak of memory is that of the work.
"""

from __future__ import annotations

import datetime
import itertools
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
    """Batches of inputs and their ids: every second sample, from the rank on."""

    def __init__(self, n: int, rank: int) -> None:
        self.n, self.rank = n, rank

    def __iter__(self) -> Any:
        import torch

        for at in range(0, self.n, 2 * BATCH):
            generator = torch.Generator().manual_seed(at + self.rank)
            ids = torch.arange(at + self.rank, min(at + 2 * BATCH, self.n), 2)
            yield torch.randn(len(ids), 64, generator=generator), ids


def extract(task: dict[str, Any], folder: Path, rank: int) -> dict[str, Any]:
    """Store the layers of a network of random weights, as one of two ranks."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(0)
    widths = [64, *[task["features"]] * task["layers"]]
    blocks = [nn.Sequential(nn.Linear(p, q), nn.Tanh()) for p, q in itertools.pairwise(widths)]
    names = [str(number) for number in range(task["layers"])]
    group_of(rank, folder)
    begin, used = time.perf_counter(), time.process_time()
    repsim.extract(
        nn.Sequential(*blocks),
        Samples(task["n"], rank),
        names,
        out=folder / "run.zarr",
        sample_ids=lambda batch: batch[1],
        group="world",
        progress=False,
    )
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "cpu": [time.process_time() - used], "peak_mib": [peak_mib()]}


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
    begin, used = time.perf_counter(), time.process_time()
    result = repsim.cka_matrix(layers, memory=task["memory"], **options)
    return {
        "seconds": time.perf_counter() - begin,
        "cpu": [time.process_time() - used],
        "peak_mib": [peak_mib()],
        "values": result.values.tolist(),
    }


def bare(task: dict[str, Any]) -> dict[str, Any]:
    """The matrix products of one process, over blocks of rows from memory; a part of them.

    `share` of the rows is multiplied, and the seconds are divided by it.
    """
    rng = np.random.default_rng(0)
    columns, width = task["layers"] * task["features"], 2048
    block = rng.standard_normal((2048, columns), dtype=np.float32)
    edges = [*range(0, columns, width), columns]
    tiles = [block[:, a:b].copy() for a, b in itertools.pairwise(edges)]
    count = max(1, round(task["n"] / 2048 * task["share"]))
    for number in range(count + 1):
        if number == 1:  # the first is a warm-up
            begin, used = time.perf_counter(), time.process_time()
        for i, a in enumerate(tiles):
            for b in tiles[i:]:
                a.T @ b
    parts = task["n"] / 2048 / count
    seconds, cpu = time.perf_counter() - begin, time.process_time() - used
    return {"seconds": seconds * parts, "cpu": [cpu * parts]}


def in_dask(task: dict[str, Any], folder: Path) -> dict[str, Any]:
    from distributed import Client, LocalCluster

    stored = repsim.open_activations(folder / "run.zarr").chunk(sample=task["chunk"])
    with (
        LocalCluster(2, threads_per_worker=1, dashboard_address=":0", memory_limit="1.5GB") as one,
        Client(one) as client,
    ):
        timed(task, stored.isel(sample=slice(0, 64)).chunk(sample=4))  # first use of everything
        before = client.run(time.process_time)
        found = timed(task, stored)
        used = [after - before[name] for name, after in client.run(time.process_time).items()]
        found["cpu"] += used
        found["peak_mib"] += client.run(peak_of_process).values()
        return found


def peak_of_process() -> float:
    """As `peak_mib`, for a worker, which does not have this file."""
    with open("/proc/self/status") as file:
        return int(file.read().split("VmHWM:")[1].split()[0]) / 1024


def measure(task: dict[str, Any], folder: Path, rounds: int, beside: bool) -> dict[str, Any]:
    """Make the store, and run each way in turn or all beside each other."""
    (folder / "task.json").write_text(json.dumps(task))
    found: dict[str, Any] = {"task": task, "beside": beside, "runs": []}
    found["extract"] = run(["extract0", "extract1"], folder)
    store = folder / "run.zarr"
    found["store_bytes"] = sum(p.stat().st_size for p in store.rglob("*") if p.is_file())
    together = [WAYS] if beside else [{way: roles} for way, roles in WAYS.items()]
    for _ in range(rounds):
        for ways in together:
            (floor,) = run(["bare"], folder)
            (folder / "group").unlink(missing_ok=True)
            each = iter(run([role for roles in ways.values() for role in roles], folder))
            for way, roles in ways.items():
                found["runs"].append(one_run(way, [next(each) for _ in roles], floor))
    return found


def one_run(way: str, each: list[dict[str, Any]], floor: dict[str, Any]) -> dict[str, Any]:
    """Return what the processes of one way found together."""
    values = [one["values"] for one in each]
    assert all(value == values[0] for value in values)  # the same bits on every rank
    return {
        "way": way,
        "seconds": max(one["seconds"] for one in each),
        "cpu": [cpu for one in each for cpu in one["cpu"]],
        "peak_mib": [peak for one in each for peak in one["peak_mib"]],
        "values": values[0],
        "bare": floor,
        "load": os.getloadavg()[0],
    }


WAYS = {"one process": ["one"], "two ranks": ["rank0", "rank1"], "Dask, two workers": ["dask"]}


def table(found: dict[str, Any]) -> str:
    """Return the table of what was measured, in Markdown."""
    task, runs = found["task"], found["runs"]
    first = runs[0]
    apart = max(abs(np.array(one["values"]) - np.array(first["values"])).max() for one in runs[1:])
    loads = [one["load"] for one in runs]
    lines = [
        f"{task['n']:,} samples, {task['layers']} layers of {task['features']} features in "
        f"float32: a store of {found['store_bytes'] / 1e9:.1f} GB, written by `extract` on two "
        f"ranks (peak {max(one['peak_mib'][0] for one in found['extract']):.0f} MiB). "
        f"One thread of BLAS for each process, "
        f"memory={task['memory'] >> 20} MiB. Load average {min(loads):.1f} to {max(loads):.1f} on "
        f"{os.cpu_count()} cores. Greatest difference of two results: {apart:.0e}.",
        "",
        "| | processor time of the busiest process ÷ one process | ÷ bare products | all processes "
        "÷ one process | time ÷ one process | peak of a process, MiB |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    ones = [one for one in runs if one["way"] == "one process"]
    for way in WAYS:
        own = [one for one in runs if one["way"] == way]
        pairs = list(zip(own, ones, strict=True))
        columns = [
            [max(mine["cpu"]) / other["cpu"][0] for mine, other in pairs],
            [max(mine["cpu"]) / mine["bare"]["cpu"][0] for mine in own],
            [sum(mine["cpu"]) / other["cpu"][0] for mine, other in pairs],
            [mine["seconds"] / other["seconds"] for mine, other in pairs],
        ]
        cells = " | ".join(f"{np.median(column):.2f}" for column in columns)
        if found["beside"]:  # they slow each other down
            cells = cells.rpartition(" | ")[0] + " | –"
        peak = max(peak for mine in own for peak in mine["peak_mib"])
        lines.append(f"| {way} | {cells} | {peak:.0f} |")
    return "\n".join(lines)


def main() -> None:
    role, folder = sys.argv[1], Path(sys.argv[2])
    task = json.loads((folder / "task.json").read_text())
    if role.startswith("extract"):
        found = extract(task, folder, int(role[-1]))
    elif role == "bare":
        found = bare(task)
    elif role == "dask":
        found = in_dask(task, folder)
    else:
        options = {}
        if role != "one":
            group_of(int(role[-1]), folder)
            options = {"group": "world"}
        stored = repsim.open_activations(folder / "run.zarr")
        timed(task, stored.isel(sample=slice(0, 64)), **options)
        found = timed(task, stored, **options)
    (folder / f"found-{role}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
