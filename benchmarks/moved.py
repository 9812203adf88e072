"""The bytes that move when R ranks write one store and read it: measured, beside the formulas.

    python benchmarks/moved.py                                    # print the table
    python benchmarks/moved.py --ranks 2 4 8 --samples 50000
    python benchmarks/moved.py --write docs/imagenet-scale.md

Each number of ranks is a gloo group of processes on this machine. Written and read bytes are those
that a process passed to the system (/proc/self/io: wchar and rchar), so the table needs Linux; some
of them may come from the cache of the system. Exchanged bytes are the pickled values that a rank
gets from all ranks. They do not depend on the speed of the machine or on what else it does.
docs/imagenet-scale.md says how to read the table.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DistributedSampler

import repsim
from _output import hand_out, parser_of

START, END = "<!-- moved:start -->", "<!-- moved:end -->"
BATCH = 256
TILE, BLOCK = 2048, 1024
"""Columns of a tile of features and rows of a block of a Gram, as in cka_matrix."""

TASKS, LEAST_COLUMNS, LEAST_ROWS = 6, 256, 128
"""On several ranks, tiles shrink until each rank has three tasks, but not below the least size."""

FEW = 4096
"""Samples for the kernel that needs Grams."""


class Moved:
    """What one process wrote, read and got from all ranks, in bytes, step by step."""

    def __init__(self) -> None:
        self.steps: dict[str, dict[str, float]] = {}
        self._got = self._exchanges = 0
        gather = dist.all_gather_object

        def counting(found: list[object], value: object, group: object = None) -> None:
            gather(found, value, group=group)
            self._got += sum(len(pickle.dumps(each)) for each in found)
            self._exchanges += 1

        dist.all_gather_object = counting

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        read, written = passed()
        self._got = self._exchanges = 0
        yield
        read_now, written_now = passed()
        self.steps[name] = {
            "read": read_now - read,
            "written": written_now - written,
            "got": self._got,
            "exchanges": self._exchanges,
        }


def passed() -> tuple[int, int]:
    """Return the bytes that this process has read and written, sockets not included on Linux."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["rchar"]), int(lines["wchar"])


def net(layers: int, p: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(p, p) for _ in range(layers))).eval()


def worker(folder: Path, rank: int, size: int, n: int, layers: int, p: int) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/group{size}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=size)
    out, moved = folder / f"run{size}.zarr", Moved()
    ids = torch.tensor(list(DistributedSampler(range(n), size, rank, shuffle=False)))
    base = torch.randn(1009, p, generator=torch.Generator().manual_seed(1))
    data = ((base[part % 1009] * (1 + part[:, None] / n), part) for part in ids.split(BATCH))
    with moved.step("extract"):
        repsim.extract(
            net(layers, p), data, out=out, sample_ids=lambda batch: batch[1], group="world",
            progress=False,
        )  # fmt: skip
    part = out / f"rank{rank}of{size}"
    moved.steps["extract"]["on disk"] = sum(
        file.stat().st_size for file in part.rglob("*") if file.is_file()
    )
    with moved.step("open"):
        stored = repsim.open_activations(out)
    if rank == 0:
        with moved.step("cka_matrix"):
            repsim.cka_matrix(stored)
    dist.barrier()
    with moved.step("shared"):
        repsim.cka_matrix(stored, group="world")
    with moved.step("shared, rbf"):
        repsim.cka_matrix(stored.isel(sample=slice(0, FEW)), kernel="rbf", group="world")
    (folder / f"{size}.{rank}.json").write_text(json.dumps(moved.steps))
    dist.barrier()


def measured(size: int, n: int, layers: int, p: int) -> list[dict[str, dict[str, float]]]:
    """Return what each rank of a group moved."""
    with tempfile.TemporaryDirectory() as folder:
        children = [
            subprocess.Popen(
                [
                    sys.executable,
                    __file__,
                    "--worker",
                    folder,
                    *map(str, (rank, size, n, layers, p)),
                ]
            )
            for rank in range(size)
        ]
        codes = [child.wait() for child in children]  # of all, before the folder goes
        if any(codes):
            sys.exit("A rank failed.")
        return [json.loads(Path(folder, f"{size}.{rank}.json").read_text()) for rank in range(size)]


def shown(size: float) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size:.0f} B"


def passes(size: int, layers: int, p: int) -> tuple[int, int]:
    """Return how often cka_matrix reads the layers from features, and how many tiles there are.

    It reads them twice for means and sizes of columns; then each tile with each other one, and
    each layer for each tile that it lies in.
    """
    columns = layers * p
    width = min(columns, TILE)
    if size > 1:
        width = min(
            width, max(LEAST_COLUMNS, math.ceil(columns / math.ceil(math.sqrt(TASKS * size))))
        )
    tiles, room = 0, 0
    for _ in range(layers):
        for start in range(0, p, width):
            panel = min(width, p - start)
            if panel > room:
                tiles, room = tiles + 1, width
            room -= panel
    return 2 + tiles * math.ceil(p / width), tiles


def blocks(size: int, n: int) -> int:
    """Return how many blocks of rows cka_matrix makes of n samples for a group."""
    most = math.ceil(n / math.ceil(math.sqrt(4 * TASKS * size)))
    return math.ceil(n / min(BLOCK, max(LEAST_ROWS, most)))


def row(what: str, formula: str, expected: float | None, found: list[float]) -> str:
    low, high = shown(min(found)), shown(max(found))
    between = low if low == high else f"{low} to {high}"
    return f"| {what} | {formula} | {'' if expected is None else shown(expected)} | {between} |"


def table(size: int, n: int, layers: int, p: int) -> str:
    """Return the table of one group."""
    ranks = measured(size, n, layers, p)
    share = math.ceil(n / size)
    whole = n * layers * p * 4
    few = blocks(size, FEW)
    (alone, tiles), (shared, more) = passes(1, layers, p), passes(size, layers, p)

    def of(step: str, what: str) -> list[float]:
        return [each[step][what] for each in ranks if step in each]

    exchanges = int(of("extract", "exchanges")[0])
    each = f"{shown(of('extract', 'got')[0] / exchanges)} in each of {exchanges} exchanges"
    lines = [
        f"**{size} ranks**",
        "",
        "| on each rank | formula | bytes by it | measured |",
        "|---|---|--:|--:|",
        row("`extract`: on disk", "n/R·(4Σp + 8)", share * (layers * p * 4 + 8),
            of("extract", "on disk")),
        row(f"`extract`: got from all ranks, {each}", "23·R for each batch, and the options", None,
            of("extract", "got")),
        row("`open_activations`: read", "8n", 8 * n, of("open", "read")),
        row(f"`cka_matrix` in one process, T = {tiles}: read", "4nΣp·(2 + cT)", whole * alone,
            of("cka_matrix", "read")),
        row(f"`cka_matrix(group=)`, T = {more}: read", "4nΣp·(2 + cT)/R", whole * shared / size,
            of("shared", "read")),
        row("`cka_matrix(group=)`: got from all ranks", "8nL", 8 * n * layers,
            of("shared", "got")),
        row(f"the same with `kernel='rbf'`, n = {FEW}, B = {few}: read", "4nΣp·(5 + B)/R",
            FEW * layers * p * 4 * (5 + few) / size, of("shared, rbf", "read")),
        row(f"the same with `kernel='rbf'`, n = {FEW}: got from all ranks", "8nL·(2 + R)",
            8 * FEW * layers * (2 + size), of("shared, rbf", "got")),
    ]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = parser_of(__doc__, tables="tables", keeps=False)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--features", type=int, default=768)
    parser.add_argument("--worker", nargs=6, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        folder, *numbers = asked.worker
        worker(Path(folder), *map(int, numbers))
        return
    n, layers, p = asked.samples, asked.layers, asked.features
    head = (
        f"n = {n:,} samples, L = {layers} layers of p = {p} features in float32: "
        f"4nΣp = {shown(n * layers * p * 4)}. Batches of "
        f"{BATCH} on each rank; torch {torch.__version__}."
    )
    text = "\n\n".join([head, *(table(size, n, layers, p) for size in asked.ranks)])
    hand_out(asked, text, (START, END))


if __name__ == "__main__":
    main()
