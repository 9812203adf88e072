"""The time of ``import repsim`` beside that of ``import numpy``, and of the first use of a name.

    python benchmarks/import_time.py                             # print the table
    python benchmarks/import_time.py --write benchmarks/README.md

Fresh interpreters take turns, A B C … A B C …, each importing one thing. The process itself
measures the time of the import, so starting Python does not count. Medians over the
rounds; ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from _markers import write_between

START, END = "<!-- import:start -->", "<!-- import:end -->"

SCRIPTS = {
    "numpy": "import numpy",
    "numpy and array-api-compat": "import numpy, array_api_compat",
    "repsim": "import repsim",
    "repsim, and cka looked up": "import repsim; repsim.cka",
    "repsim, and cka of two arrays": (
        "import repsim, numpy; x = numpy.ones((5, 2)); x[0] = 0; repsim.cka(x, x)"
    ),
    "numpy and scipy": "import numpy, scipy",
    "numpy, scipy.spatial and scipy.optimize": "import numpy, scipy.spatial, scipy.optimize",
    "repsim, and every measure and test": (
        "import repsim; dict(repsim.measures.MEASURES); repsim.inference.permutation_test"
    ),
}
FLOOR = "numpy"


def once(script: str) -> float:
    """Milliseconds of a script in a fresh interpreter."""
    timed = (
        "import time\nstart = time.perf_counter()\n"
        f"{script}\n"
        "print((time.perf_counter() - start) * 1e3)"
    )
    done = subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, check=True)
    return float(done.stdout)


def interleaved(rounds: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in SCRIPTS}
    for turn in range(-1, rounds):  # the first writes the byte code, and is not counted
        for name, script in SCRIPTS.items():
            milliseconds = once(script)
            if turn >= 0:
                found[name].append(milliseconds)
    return found


def table(found: dict[str, list[float]], rounds: int) -> str:
    lines = [
        f"{platform.machine()}; {rounds} rounds, python {platform.python_version()}, "
        f"numpy {version('numpy')}.",
        "",
        "| imported | ms | time ÷ numpy (range) |",
        "|---|--:|--:|",
    ]
    for name, values in found.items():
        ratios = [value / floor for value, floor in zip(values, found[FLOOR], strict=True)]
        lines.append(
            f"| {name} | {statistics.median(values):.0f} | {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f}–{max(ratios):.2f}) |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds (default 15)")
    parser.add_argument("--write", type=Path, help="put the table between this file's comments")
    args = parser.parse_args()
    text = table(interleaved(args.rounds), args.rounds)
    print(text)
    if args.write:
        write_between(args.write, START, END, text)


if __name__ == "__main__":
    main()
