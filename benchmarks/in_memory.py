"""repsim.cka of two arrays in memory beside the bare matrix products, and beside other packages.

    pip install -e .[bench]
    python benchmarks/in_memory.py                                    # print the table
    python benchmarks/in_memory.py --json memory.json --write benchmarks/README.md
    python benchmarks/in_memory.py --cases 20000x10000 --only bare repsim --json memory.json

Linear CKA of two float32 arrays of n samples and p features each. For each size and way: the time
as a ratio to the bare products, the peak memory beside the inputs, and the error against the same
quantity in float64. Cases that are in the JSON file already are kept, so long ones can be
measured separately. On two cores all cases take a few minutes and at most 10 GiB.
benchmarks/README.md says how each is measured.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import cka as pytorch_cka
import ckatorch
import numpy as np
import torch

import repsim
from _measure import cores, forget_peak, peak_mib
from _output import hand_out, listed, parser_of, processor, say, spread, versions

START, END = "<!-- in-memory:start -->", "<!-- in-memory:end -->"
CASES = [
    "1000x256",
    "1000x768",
    "1000x10000",
    "10000x256",
    "10000x768",
    "20000x768",
    "10000x10000",
]
LONG = 10_000
"""From this many samples on, other packages are called once."""

SHORT = 0.02
"""Seconds within which calls are repeated, so that calls of a millisecond are measured too."""

MEMORY = 10 << 30
"""Bytes that one call may take, with the inputs; a package that needs more has no time."""

Way = Callable[[np.ndarray, np.ndarray], float]


def bare(x: np.ndarray, y: np.ndarray) -> float:
    """The floor: only the matrix products of the form that takes fewer operations."""
    n, p = x.shape
    # NumPy makes half of a product of a matrix with itself.
    products = [x.T @ x, x.T @ y, y.T @ y] if 2 * p < n else [x @ x.T, y @ y.T]
    return float(products[0][0, 0])


def of_torch(estimator: str) -> Way:
    return lambda x, y: float(
        repsim.cka(torch.from_numpy(x), torch.from_numpy(y), estimator=estimator)
    )


def other(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Way:
    return lambda x, y: float(function(torch.from_numpy(x), torch.from_numpy(y)))


WAYS: dict[str, tuple[Way, str]] = {
    "bare products": (bare, ""),
    "repsim, numpy, biased": (lambda x, y: float(repsim.cka(x, y)), "biased"),
    "repsim, numpy, unbiased": (
        lambda x, y: float(repsim.cka(x, y, estimator="unbiased")),
        "unbiased",
    ),
    "repsim, torch, biased": (of_torch("biased"), "biased"),
    "repsim, torch, unbiased": (of_torch("unbiased"), "unbiased"),
    "pytorch-cka, cka_from_features": (other(pytorch_cka.cka_from_features), "unbiased"),
    "ckatorch, cka_base": (other(ckatorch.cka_base), "biased"),
}
FLOOR = next(iter(WAYS))
PEERS = {"pytorch-cka, cka_from_features": "pytorch-cka", "ckatorch, cka_base": "ckatorch"}


def arrays(n: int, p: int) -> tuple[np.ndarray, np.ndarray]:
    """Two views of common causes, with means of a few standard deviations."""
    rng = np.random.default_rng(0)
    causes = rng.standard_normal((n, 32), dtype=np.float32)
    out = []
    for _ in range(2):
        x = rng.standard_normal((n, p), dtype=np.float32)
        x *= 2
        x += causes @ rng.standard_normal((32, p), dtype=np.float32)
        x += 10
        out.append(x)
    return out[0], out[1]


def truth(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Both estimators in float64, from features or Grams, a tile of columns at a time."""
    n, p = x.shape
    means = [z.mean(0, dtype=np.float64) for z in (x, y)]
    squares = [np.zeros(n), np.zeros(n)]
    sums = np.zeros((2, 2))
    width = 1024

    def tile(side: int, start: int) -> np.ndarray:
        columns = slice(start, start + width)
        return (x, y)[side][:, columns] - means[side][columns]

    tiles = [(side, start) for side in (0, 1) for start in range(0, p, width)]
    grams = [np.zeros((n, n)) for _ in (x, y)] if n <= p else None
    for index, (i, start) in enumerate(tiles):
        a = tile(i, start)
        squares[i] += np.einsum("ij,ij->i", a, a)
        if grams is not None:
            grams[i] += a @ a.T
            continue
        for j, other_start in tiles[index:]:
            b = a if (i, start) == (j, other_start) else tile(j, other_start)
            weight = 2 if i == j and start != other_start else 1
            sums[i, j] += weight * np.square(a.T @ b).sum()
    if grams is not None:
        sums[:] = [[np.vdot(k, l) for l in grams] for k in grams]  # noqa: E741
    out = {}
    for estimator in ("biased", "unbiased"):
        h = sums.copy()
        if estimator == "unbiased":
            for i, j in ((0, 0), (0, 1), (1, 1)):
                a, b = squares[i], squares[j]
                h[i, j] += a.sum() * b.sum() / ((n - 1) * (n - 2)) - n / (n - 2) * (a @ b)
        out[estimator] = float(h[0, 1] / np.sqrt(h[0, 0]) / np.sqrt(h[1, 1]))
    return out


def worker(args: argparse.Namespace) -> None:
    """Some ways once each in a fresh process: the peak memory above that before each call."""
    (case,) = args.cases
    n, p = map(int, case.split("x"))
    for name in args.worker:
        WAYS[name][0](*arrays(64, 8))
    x, y = arrays(n, p)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    found = {}
    for name in args.worker:
        gc.collect()
        # Memory that was freed before must not be reused.
        ctypes.CDLL(None).malloc_trim(0)
        before = resident_mib()
        forget_peak()
        start = time.perf_counter()
        value = WAYS[name][0](x, y)
        seconds = time.perf_counter() - start
        found[name] = {"value": value, "mib": peak_mib() - before, "seconds": seconds}
    print(json.dumps(found))


def resident_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def alone(names: list[str], case: str, args: argparse.Namespace) -> dict[str, dict]:
    """Call these ways in one fresh process; other packages may fail, each in its own."""
    command = [sys.executable, __file__, "--worker", *names, "--cases", case]
    command += ["--threads", str(args.threads)]
    limit = args.limit if names[0] in PEERS else None
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {names[0]: {"failed": f"not done in {args.limit:.0f} s"}}
    if not done.returncode:
        found: dict[str, dict] = json.loads(done.stdout.splitlines()[-1])
        return found
    if limit and ("allocate" in done.stderr or "MemoryError" in done.stderr):
        return {names[0]: {"failed": f"more than {MEMORY >> 30} GiB"}}
    raise RuntimeError(f"{names}, {case}:\n{done.stderr}")


def measure(case: str, args: argparse.Namespace) -> dict:
    n, p = map(int, case.split("x"))
    names = [name for name in WAYS if name == FLOOR or name.startswith(tuple(args.only))]
    found = alone([name for name in names if name not in PEERS], case, args)
    for name in names:
        if name in PEERS:
            found |= alone([name], case, args)
    x, y = arrays(n, p)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    turns = [name for name in names if (name not in PEERS or n < LONG) and "value" in found[name]]
    total = sum(found[name]["seconds"] for name in turns)
    # Calls of many seconds differ little, so the one of each alone counts.
    repeats = min(args.repeats, int(args.budget / max(total, 1e-3)))
    for turn in range(-1, repeats):
        if turn < 0 and total > args.budget / 3:
            continue  # the first call counts
        for name in turns:
            gc.collect()
            taken = seconds_of_a_call(WAYS[name][0], x, y)
            if turn >= 0:
                seconds[name].append(taken)
    for name in names:
        if "value" in found[name]:
            found[name]["seconds"] = seconds[name] or [found[name]["seconds"]]
    return {"ways": found, "truth": truth(x, y)}


def seconds_of_a_call(way: Way, x: np.ndarray, y: np.ndarray) -> float:
    """The mean time of the calls that begin within SHORT seconds; of one call at least.

    A single call of a millisecond mostly measures what the call before left in the caches.
    """
    calls, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < SHORT or not calls:
        way(x, y)
        calls += 1
    return passed / calls


def table(cases: dict[str, dict]) -> str:
    lines = [
        "| n × p | | seconds | time ÷ bare products (range) | memory beside the inputs, MiB "
        "| largest error |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for case, result in sorted(cases.items(), key=lambda item: [*map(int, item[0].split("x"))]):
        floor = result["ways"][FLOOR]["seconds"]
        shape = case.replace("x", " × ")
        for name, way in result["ways"].items():
            if "failed" in way:
                lines.append(
                    f"| {case.replace('x', ' × ')} | {name} | {way['failed']} | – | – | – |"
                )
                continue
            seconds = way["seconds"]
            middle = statistics.median(floor)
            paired = floor if len(floor) == len(seconds) else [middle] * len(seconds)
            ratios = [a / b for a, b in zip(seconds, paired, strict=True)]
            kind = WAYS[name][1]
            error = f"{abs(way['value'] - result['truth'][kind]):.0e}" if kind else "–"
            lines.append(
                f"| {shape} | {name} | {statistics.median(seconds):.3g} | "
                f"{spread(ratios)} | {way['mib']:.0f} | {error} |"
            )
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--cases", nargs="*", default=CASES, help="sizes, samples x features")
    parser.add_argument("--only", nargs="+", default=[""], help="ways whose names begin so")
    parser.add_argument("--repeats", type=int, default=7, help="timed rounds at most (default 7)")
    parser.add_argument("--budget", type=float, default=10, help="seconds of rounds of a case")
    parser.add_argument("--limit", type=float, default=60, help="seconds another package may take")
    parser.add_argument("--threads", type=int, default=cores(), help="default: all cores")
    parser.add_argument("--worker", nargs="+", choices=list(WAYS), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    warnings.simplefilter("ignore", repsim.ChanceWarning)  # biased values are measured on purpose
    args = arguments()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", str(args.threads))  # of processes to come
    torch.set_num_threads(args.threads)
    if args.worker:
        worker(args)
        return
    cases = json.loads(args.json.read_text())["cases"] if args.json and args.json.exists() else {}
    for case in args.cases:
        cases[case] = measure(case, args)
        say(f"{case} {json.dumps(cases[case])}")
        if args.json:
            args.json.write_text(json.dumps({"cases": cases}, indent=1))
    setting = {"threads": args.threads, **versions("numpy", "torch", "pytorch-cka", "ckatorch")}
    text = f"{processor()}; {listed(setting)}.\n\n{table(cases)}"
    hand_out(args, text, (START, END), {"cases": cases})


if __name__ == "__main__":
    main()
