"""repsim.compare beside the other packages for CKA of two torch models, in one run.

    pip install -e .[bench]
    python benchmarks/peers.py                                # all cases, a Markdown table each
    python benchmarks/peers.py --case a --repeats 3 --only repsim pytorch-cka
    python benchmarks/peers.py --json peers.json --write benchmarks/README.md

All layers of one model against all layers of the other; in case c, 120 by name. For each package:
its time as a ratio to the two forward passes that every method needs, its peak memory above
theirs, and the error of its numbers against a float64 reference. benchmarks/README.md says how each
is measured.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

os.environ.setdefault("TQDM_DISABLE", "1")  # here and in every process started from here

import numpy as np
import torch

from _cases import CASES, Reference, locate, names_that_ran, reference
from _measure import Plan, Run, Setting, alone, cores, interleaved
from _output import hand_out, listed, parser_of, processor, say, spread, versions
from _packages import ALL, FLOORS, PACKAGES, RAN, Layers, Matrix, callers

OFF = 1e-3  # an entry further than this from the reference would be seen on a map
START, END = "<!-- peers:start -->", "<!-- peers:end -->"


@dataclass
class Row:
    """The results of one package in one case."""

    package: str
    version: str | None
    how: str | None = None
    batches: int = 0
    seconds_per_batch: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)  # to the two forward passes
    extra_mib: float | None = None
    shape: tuple[int, int] | None = None
    max_error: float | None = None  # over the entries that are numbers
    nan: float | None = None  # share of entries that are not
    off: float | None = None  # share of entries further than OFF from the reference, or NaN
    remarks: list[str] = field(default_factory=list)


def errors(matrix: Matrix, truth: Reference, n_batches: int) -> tuple[float, float, float]:
    """Largest absolute error, the share of NaN, and the share of entries off by more than OFF."""
    rows, columns = locate(matrix.labels_x, truth.keys_x), locate(matrix.labels_y, truth.keys_y)
    error = np.abs(matrix.values - truth.cka(n_batches)[np.ix_(rows, columns)])
    nan = np.isnan(error)
    return (
        float(error[~nan].max(initial=0.0)),
        float(nan.mean()),
        float((nan | (error > OFF)).mean()),
    )


def measure(case: str, names: list[str], args: argparse.Namespace) -> list[Row]:
    say(f"case {case}: float64 reference")
    truth = reference(CASES[case], args.batches)
    layers = Layers(names_that_ran(truth.keys_x), names_that_ran(truth.keys_y))
    imports = [m for name in names if (m := PACKAGES[name].module)]

    def run(name: str, how: str, batches: int) -> Run:
        say(f"case {case}: {name}, {how}, {count(batches, 'batch', 'batches')}")
        setting = Setting(case, layers, imports, args.threads, args.timeout)
        return alone(name, how, batches, setting)

    rows = {name: Row(name, version(name), remarks=list(PACKAGES[name].notes)) for name in names}
    plans: dict[str, Plan] = {}
    bare = 0.0
    for name, row in rows.items():
        how, trial = first_that_returns(run, row, by_name=CASES[case].layers is not None)
        if trial is None:
            continue
        # If there is time for only one batch, the trial is the measurement.
        plan = affordable(name, how, trial.seconds, args)
        runs = [trial]
        if plan.batches > 1:
            runs = [run(name, how, plan.batches) for _ in range(min(plan.repeats, args.memory))]
        peaks = [r.peak_mib for r in runs]
        if name == FLOORS[0]:
            bare = statistics.median(peaks)
            row.remarks.append(
                f"Peak of {min(peaks):.0f} to {max(peaks):.0f} MiB over "
                f"{count(len(peaks), 'process', 'processes')}, libraries and weights included."
            )
        row.how, row.batches, row.extra_mib = how, plan.batches, statistics.median(peaks) - bare
        if matrix := runs[0].matrix:
            row.shape = (len(matrix.labels_x), len(matrix.labels_y))
            row.max_error, row.nan, row.off = errors(matrix, truth, plan.batches)
        if trial.seconds > args.budget and name not in FLOORS:
            row.seconds_per_batch = [trial.seconds]
            row.remarks.append("Too slow to take turns: one batch, timed once in its own process.")
        else:
            plans[name] = plan

    for name, turn, seconds in interleaved(CASES[case], plans, layers):
        say(f"case {case}, round {turn + 1}: {name}, {seconds:.2f} s a batch")
        rows[name].seconds_per_batch.append(seconds)
    floor = rows[FLOORS[0]].seconds_per_batch
    for name, row in rows.items():
        # Each round has its own floor; packages timed elsewhere are compared with the median.
        per_round = floor if name in plans else [statistics.median(floor)]
        row.ratios = [s / f for s, f in zip(row.seconds_per_batch, per_round, strict=False)]
        if name in plans and (plans[name].batches, plans[name].repeats) != (
            args.batches,
            args.repeats,
        ):
            row.remarks.append(
                f"Slow: {count(plans[name].batches, 'batch', 'batches')} of {args.batches}, "
                f"timed {count(len(row.ratios), 'time', 'times')}."
            )
    return list(rows.values())


def first_that_returns(
    run: Callable[[str, str, int], Run], row: Row, *, by_name: bool
) -> tuple[str, Run | None]:
    """The first way of calling the package that does not raise, and one batch of it."""
    how = ""
    for how in callers(row.package, by_name=by_name):
        trial = run(row.package, how, 1)
        if trial.raised is None:
            if how not in ((ALL, RAN) if by_name else (ALL,)):
                row.remarks.append(f"Measured as: {how}.")
            return how, trial
        row.remarks.append(f"{how}: {trial.raised}")
        say(f"  {trial.raised}")
    return how, None


def affordable(name: str, how: str, seconds: float, args: argparse.Namespace) -> Plan:
    """The plan that fits in `--budget` at `seconds` a batch: fewer repeats, then fewer batches."""
    if name in FLOORS:
        return Plan(how, args.batches, args.repeats)
    batches = int(min(args.batches, max(1, args.budget // seconds)))
    repeats = int(min(args.repeats, max(1, args.budget // (batches * seconds))))
    return Plan(how, batches, repeats)


def table(case_name: str, rows: list[Row]) -> str:
    lines = [
        f"**{case_name}. {CASES[case_name].title}**",
        "",
        "| package | time ÷ forward (range) | memory above forward, MiB | layers "
        "| largest error | entries off by > 0.001 | notes |",
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    remarks: list[str] = []
    for row in rows:
        marks = []
        for remark in row.remarks:
            remark = remark.replace("\n", " ")
            if remark not in remarks:
                remarks.append(remark)
            marks.append(str(remarks.index(remark) + 1))
        title = f"{row.package} {row.version}" if row.version else f"*{row.package}*"
        cells = [
            title,
            spread(row.ratios),
            "–" if row.extra_mib is None else f"{row.extra_mib:.0f}",
            "–" if row.shape is None else f"{row.shape[0]} × {row.shape[1]}",
            worst(row),
            "–" if row.off is None else f"{row.off:.1%}",
            ", ".join(marks),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [""] + [f"{i}. {remark}" for i, remark in enumerate(remarks, 1)]
    return "\n".join(lines)


def worst(row: Row) -> str:
    if row.max_error is None:
        return "–"
    error = f"{row.max_error:.0e}" if row.max_error < OFF else f"{row.max_error:.2g}"
    return f"{error}, and {row.nan:.1%} NaN" if row.nan else error


def count(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"


def version(name: str) -> str | None:
    distribution = PACKAGES[name].distribution
    return distribution and importlib.metadata.version(distribution)


def check(names: list[str]) -> None:
    """Stop unless every package is installed, because a table without one looks complete."""
    missing = []
    for name in names:
        try:
            version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        sys.exit(
            f"Not installed: {', '.join(missing)}.\n"
            "  Repair: pip install -e .[bench]\n"
            "  or name the packages to compare: --only repsim pytorch-cka"
        )


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__, tables="tables")
    peers = [name for name in PACKAGES if name not in FLOORS]
    parser.add_argument("--case", choices=[*CASES, "all"], default="all")
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds (default 5)")
    parser.add_argument("--batches", type=int, default=4, help="batches a call (default 4)")
    parser.add_argument("--memory", type=int, default=3, help="processes for memory (default 3)")
    parser.add_argument("--threads", type=int, default=cores(), help="default: all cores")
    parser.add_argument(
        "--budget",
        type=float,
        default=120,
        help="seconds for all timed calls of a package in a case, before it gets fewer repeats "
        "and then fewer batches; the two floors are always timed in full (default 120)",
    )
    parser.add_argument(
        "--timeout", type=float, default=1800, help="seconds until a call is given up"
    )
    parser.add_argument("--only", nargs="+", choices=peers, default=peers, metavar="PACKAGE")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    names = [*FLOORS, *(name for name in PACKAGES if name in args.only)]
    check(names)
    torch.set_num_threads(args.threads)
    setting = {name: getattr(args, name) for name in ("threads", "batches", "repeats")}
    setting |= versions("torch", "torchvision", "timm", "numpy")
    cases = list(CASES) if args.case == "all" else [args.case]
    found = {case: measure(case, names, args) for case in cases}
    tables = [table(case, rows) for case, rows in found.items()]
    text = "\n\n".join([f"{processor()}; {listed(setting)}.", *tables])
    kept = {case: [asdict(row) for row in rows] for case, rows in found.items()}
    kept = {"setting": {"processor": processor(), **setting}, "cases": kept}
    hand_out(args, text, (START, END), kept)


if __name__ == "__main__":
    main()
