"""repsim.cka_matrix on activations in memory maps: time beside the bare products, and memory.

    python benchmarks/scale.py                                   # print the table
    python benchmarks/scale.py --samples 2000 4000 --layers 6    # something smaller
    python benchmarks/scale.py --json scale.json --write benchmarks/README.md
    python benchmarks/scale.py --shared --write benchmarks/README.md   # two ranks, and Dask

All pairs of 24 layers of 384 features in float32, for 5 000 to 40 000 samples. For each kernel and
size, in a new process: the time of the whole call as a ratio to the floor, which is the same matrix
products on arrays in memory, and the peak of memory above that before the call.
benchmarks/README.md says how each is measured. Seconds count only on a machine that does nothing
else: --write refuses to write them where the load average is above 1.5.

--shared makes a store of 4 GB in the temporary folder and compares one process with two ranks and
with two workers of Dask. It counts processor time, so it may be written on a busy machine too;
there, --beside runs all of them at the same time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import xarray  # noqa: F401 - so the size of a library does not count

import _shared_scale
import repsim
from _measure import cores, forget_peak, peak_mib
from _output import hand_out, listed, parser_of, say, versions

START, END = "<!-- scale:start -->", "<!-- scale:end -->"
START_SHARED, END_SHARED = "<!-- shared:start -->", "<!-- shared:end -->"
BUSY = 1.5
TILE, BLOCK = 2048, 1024
"""Columns of a tile of features and rows of a block of a Gram, as large as in cka_matrix."""


def write_layers(folder: Path, n: int, layers: int, p: int) -> None:
    """Layers that see the same causes, written a block of rows at a time."""
    for layer in range(layers):
        rng = np.random.default_rng([0, layer])
        mixing = rng.standard_normal((16, p)).astype(np.float32)
        out = np.lib.format.open_memmap(
            folder / f"{layer:02}.npy", mode="w+", dtype=np.float32, shape=(n, p)
        )
        for start in range(0, n, 4096):
            stop = min(start + 4096, n)
            causes = np.random.default_rng([1, start]).standard_normal((stop - start, 16))
            noise = rng.standard_normal((stop - start, p), dtype=np.float32)
            out[start:stop] = causes.astype(np.float32) @ mixing + 4 * noise + 3
        out.flush()


def floor(form: str, n: int, layers: int, p: int) -> float:
    """Seconds of the bare matrix products: those of one pair of blocks times the number of pairs.

    Each is timed three times after a first, and the fastest counts.
    """
    rng = np.random.default_rng(0)
    if form == "features":
        width = min(TILE, layers * p)
        a = rng.standard_normal((min(n, 2048), width), dtype=np.float32)
        b = rng.standard_normal((min(n, 2048), width), dtype=np.float32)
        # A tile by itself is half of a pair of tiles.
        count = (layers * p / width) ** 2 / 2 * n / len(a)
        return fastest(lambda: a.T @ b) * count
    block = min(n, BLOCK)
    a = rng.standard_normal((block, p), dtype=np.float32)
    b = rng.standard_normal((block, p), dtype=np.float32)
    flat = rng.standard_normal((layers, block * block), dtype=np.float32)
    blocks = n / block
    pairs = blocks * (blocks + 1) / 2
    return (fastest(lambda: a @ b.T) * layers + fastest(lambda: flat @ flat.T)) * pairs


def fastest(function) -> float:
    function()
    found = []
    for _ in range(3):
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    return min(found)


def worker(folder: Path) -> None:
    """One call in a fresh process; resident pages of the memory maps are counted separately."""
    task = json.loads((folder / "task.json").read_text())
    xs = {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}
    rng = np.random.default_rng(0)
    small = {name: rng.standard_normal((8, 4), dtype=np.float32) for name in list(xs)[:2]}
    repsim.cka_matrix(small, kernel=task["kernel"])  # first use of each function
    before = anonymous_mib()
    forget_peak()
    start = time.perf_counter()
    result = repsim.cka_matrix(xs, kernel=task["kernel"], memory=task["memory"])
    seconds = time.perf_counter() - start
    found = {
        "seconds": seconds,
        "peak_mib": peak_mib(),
        "input_mib": sum(x.nbytes for x in xs.values()) / 2**20,
        "before_mib": before,
        "form": result.attrs["form"],
        "mean": float(result.mean()),
    }
    (folder / "found.json").write_text(json.dumps(found))


def anonymous_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def measure(kernel: str, n: int, layers: int, p: int, memory: int) -> dict:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_layers(folder, n, layers, p)
        (folder / "task.json").write_text(json.dumps({"kernel": kernel, "memory": memory}))
        subprocess.run([sys.executable, __file__, "--worker", name], check=True)
        found = json.loads((folder / "found.json").read_text())
    found |= {"kernel": kernel, "n": n, "floor": floor(found["form"], n, layers, p)}
    return found | {"load": os.getloadavg()[0]}


def exponent(runs: list[dict]) -> float:
    """Slope of log seconds over log n."""
    n, seconds = ([run[key] for run in runs] for key in ("n", "seconds"))
    return float(np.polyfit(np.log(n), np.log(seconds), 1)[0])


def table(runs: list[dict], options: argparse.Namespace) -> str:
    lines = [
        f"{platform.machine()}; {cores()} cores, {options.layers} layers of {options.features} "
        f"features in float32, all pairs, memory={options.memory >> 20} MiB, "
        f"{listed(versions('numpy'))}.",
        "",
        "| kernel | form | n | seconds | time ÷ bare products | peak, MiB | input, MiB "
        "| before, MiB |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {run['kernel']} | {run['form']} | {run['n']} | {run['seconds']:.1f} | "
        f"{run['seconds'] / run['floor']:.2f} | {run['peak_mib']:.0f} | {run['input_mib']:.0f} | "
        f"{run['before_mib']:.0f} |"
        for run in runs
    ]
    for kernel in options.kernels:
        own = [run for run in runs if run["kernel"] == kernel]
        if len(own) > 1:
            lines += ["", f"{kernel}: time grows as n^{exponent(own):.2f}."]
    return "\n".join(lines)


def shared(options: argparse.Namespace) -> None:
    """Compare one process with two ranks and two workers of Dask on a store."""
    task = {"n": options.shared_samples, "layers": 8, "features": 640, "memory": 1 << 29}
    task |= {"chunk": 4096, "share": 0.04}  # the chunks of the store, and the part of the products
    with tempfile.TemporaryDirectory() as name:
        found = _shared_scale.measure(task, Path(name), options.rounds, options.beside)
    hand_out(options, _shared_scale.table(found), (START_SHARED, END_SHARED), found)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--samples", type=int, nargs="+", default=[5000, 10000, 20000, 40000])
    parser.add_argument("--kernels", nargs="+", default=["linear", "rbf"])
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--features", type=int, default=384)
    parser.add_argument("--memory", type=int, default=1 << 30)
    parser.add_argument("--shared", action="store_true", help="two ranks, and Dask")
    parser.add_argument("--shared-samples", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--beside", action="store_true", help="all ways at the same time: processor time alone"
    )
    options = parser.parse_args()
    if options.worker:
        worker(options.worker)
        return
    if options.shared:
        shared(options)
        return
    before = os.getloadavg()[0]
    if options.write and before > BUSY:
        parser.error(f"the load average is {before:.1f}: the machine is not free to be timed on")
    runs = []
    for kernel in options.kernels:
        for n in options.samples:
            runs.append(measure(kernel, n, options.layers, options.features, options.memory))
            say(json.dumps(runs[-1]))
    hand_out(options, table(runs, options), (START, END), runs)


if __name__ == "__main__":
    main()
