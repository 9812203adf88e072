"""The time of ``import repsim`` beside that of ``import numpy``, and of the first use of a name.

    python benchmarks/import_time.py                             # print the table
    python benchmarks/import_time.py --write benchmarks/README.md

Fresh interpreters take turns, A B C … A B C …, each importing one thing. The process itself
measures the time of the import, so starting Python does not count. Medians over the
rounds; ratios are taken within a round.
"""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys

from _output import hand_out, listed, parser_of, spread, versions

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


def table(found: dict[str, list[float]]) -> str:
    lines = [
        "| imported | ms | time ÷ numpy (range) |",
        "|---|--:|--:|",
    ]
    for name, values in found.items():
        ratios = [value / floor for value, floor in zip(values, found[FLOOR], strict=True)]
        lines.append(f"| {name} | {statistics.median(values):.0f} | {spread(ratios)} |")
    return "\n".join(lines)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds (default 15)")
    args = parser.parse_args()
    found = interleaved(args.rounds)
    about = f"{platform.machine()}; {args.rounds} rounds, {listed(versions('numpy'))}"
    hand_out(args, f"{about}.\n\n{table(found)}", (START, END), found)


if __name__ == "__main__":
    main()
