"""Measures of two arrays beside other packages, one thread, in one run.

    pip install -e .[bench]
    python benchmarks/array_measures.py                                  # print the table
    python benchmarks/array_measures.py --json measures.json --write benchmarks/README.md
    python benchmarks/array_measures.py --cases 20000x256 --only mutual_knn --json measures.json

For each measure and each package that has it: the median of the ratios of our time to theirs, over
pairs of alternating calls in one process, and the difference of the two values. From 10 000 samples
on, also the peak memory of both in new processes. Packages that are not installed are named and
left out. benchmarks/README.md says how each is measured.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings

import numpy as np

from _array_peers import PEERS, ArrayPeer
from _measure import forget_peak, peak_mib
from _output import hand_out, listed, parser_of, say, versions

START, END = "<!-- measures:start -->", "<!-- measures:end -->"
CASES = ["1000x64", "1000x512", "5000x64", "5000x512"]
LARGE = 10_000
"""From this many samples on, the memory is measured too."""

EQUAL = 1e-9

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)


def arrays(case: str) -> tuple[np.ndarray, np.ndarray]:
    """Two views of common causes, float64."""
    n, p = map(int, case.split("x"))
    rng = np.random.default_rng(0)
    causes = rng.standard_normal((n, 32))
    x, y = (causes @ rng.standard_normal((32, p)) + 4 * rng.standard_normal((n, p)) for _ in "xy")
    return x, y


def timed(way: object, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    gc.collect()
    start = time.perf_counter()
    value = way(x, y)  # type: ignore[operator]
    return time.perf_counter() - start, value


def beside(peer: ArrayPeer, case: str, args: argparse.Namespace) -> dict:
    """Alternate calls: ours, theirs, ours, theirs, …"""
    for way in (peer.own_value, peer.run):  # loads the package
        way(*arrays("50x4"))
    x, y = arrays(case)
    first = [timed(peer.own_value, x, y), timed(peer.run, x, y)]
    repeats = max(1, min(args.repeats, int(args.budget / (first[0][0] + first[1][0]))))
    seconds: list[list[float]] = [[], []]
    for _ in range(repeats):
        for side, way in enumerate((peer.own_value, peer.run)):
            seconds[side].append(timed(way, x, y)[0])
    theirs = None if peer.convert is None else peer.convert(first[1][1])
    found = {"seconds": seconds, "difference": theirs and abs(first[0][1] - theirs)}
    if len(x) >= LARGE:
        found["mib"] = [alone(peer, side, case) for side in ("ours", "theirs")]
    return found


def alone(peer: ArrayPeer, side: str, case: str) -> float:
    """Peak memory of one call in a new process, above that of the libraries and inputs."""
    command = [sys.executable, __file__, "--worker", side, str(PEERS.index(peer)), case]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def worker(side: str, index: str, case: str) -> None:
    peer = PEERS[int(index)]
    way = peer.own_value if side == "ours" else peer.run
    way(*arrays("50x4"))
    x, y = arrays(case)
    forget_peak()
    before = peak_mib()
    way(x, y)
    print(peak_mib() - before)


def table(cases: dict[str, dict[str, dict]]) -> str:
    memory = any("mib" in row for rows in cases.values() for row in rows.values())
    lines = [
        "| n × p | measure | beside | ours, s | theirs, s | ours ÷ theirs (range) | difference |"
        + (" memory beside the inputs: ours, theirs, MiB |" if memory else ""),
        "|---|---|---|--:|--:|--:|--:|" + ("--:|" if memory else ""),
    ]
    for case, rows in sorted(cases.items(), key=lambda item: [*map(int, item[0].split("x"))]):
        for peer in PEERS:
            row = rows.get(key(peer))
            if row is None:
                continue
            ours, theirs = row["seconds"]
            ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
            spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
            cells = [
                case.replace("x", " × "),
                f"`{peer.ours}`".replace("|", "\\|"),
                f"{peer.package}, `{peer.call}`",
                f"{statistics.median(ours):.3g}",
                f"{statistics.median(theirs):.3g}",
                spread,
                words_of(row["difference"]),
            ]
            if memory:
                cells.append(", ".join(f"{mib:.0f}" for mib in row.get("mib", [])) or "–")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def words_of(difference: float | None) -> str:
    if difference is None:
        return "another estimator"
    return "0" if difference <= EQUAL else f"{difference:.0e}"


def key(peer: ArrayPeer) -> str:
    return f"{peer.package}: {peer.call} / {peer.ours}"


def chosen(args: argparse.Namespace) -> list[ArrayPeer]:
    asked = [peer for peer in PEERS if not args.only or peer.measure in args.only]
    for package in sorted({peer.package for peer in asked if not peer.there}):
        say(f"not installed, left out: {package}")
    return [peer for peer in asked if peer.there]


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--cases", nargs="*", default=CASES, help="sizes, samples x features")
    parser.add_argument("--only", nargs="*", help="measures")
    parser.add_argument("--repeats", type=int, default=7, help="pairs of calls at most (default 7)")
    parser.add_argument("--budget", type=float, default=10, help="seconds of pairs of a row")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    if not ONE_THREAD.items() <= os.environ.items():  # read when the libraries load
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ONE_THREAD})
    warnings.simplefilter("ignore")  # of the other packages, and that CKA is high by chance
    if args.worker:
        worker(*args.worker)
        return
    kept = args.json and args.json.exists()
    cases = json.loads(args.json.read_text())["cases"] if kept else {}
    peers = chosen(args)
    for case in args.cases:
        rows = cases.setdefault(case, {})
        for peer in peers:
            say(f"{case}: {key(peer)}")
            try:
                rows[key(peer)] = beside(peer, case, args)
            except (ValueError, MemoryError, ImportError) as error:
                say(f"  {type(error).__name__}: {error}")
            if args.json:
                args.json.write_text(json.dumps({"cases": cases}, indent=1))
    names = sorted({peer.package for peer in peers} | {"numpy"})
    about = f"{platform.machine()}; 1 thread, float64, {listed(versions(*names))}"
    hand_out(args, f"{about}.\n\n{table(cases)}", (START, END), {"cases": cases})


if __name__ == "__main__":
    main()
