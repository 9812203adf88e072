"""Our measures and those of other packages in ten regimes, beside formulas in 60 digits.

    pip install -e .[bench]
    python benchmarks/truth.py                                     # print the tables
    python benchmarks/truth.py --write docs/truth.md docs/coming-from.md

Every row of `_array_peers.py` in every regime: the value of our function and of the package's,
converted to ours, and that of the formula in plain loops (`_truths.py`). Packages that are not
installed are named and left out.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import sys
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from _array_peers import PEERS, ArrayPeer
from _causes import CAUSES, OURS
from _output import say, write_between
from _truths import truth

TOLERANCE = {"float64": 1e-8, "float32": 1e-5}
"""Of |value − truth|, in units of the larger of the truth and one."""


def regimes() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)

    def related(n: int, p: int) -> tuple[np.ndarray, np.ndarray]:
        causes = rng.standard_normal((n, 3))
        x, y = (
            causes @ rng.standard_normal((3, p)) + rng.standard_normal((n, p)) for _ in range(2)
        )
        return x, y

    x, y = related(30, 6)
    low = [rng.standard_normal((30, 3)) @ rng.standard_normal((3, 6)) for _ in range(2)]
    tail = np.random.default_rng(1).standard_cauchy((30, 1))
    fine = related(30, 6)
    single = tuple(z.astype(np.float32) for z in fine)
    return {
        "n > p": (x, y),
        "n < p": related(14, 30),
        "mean 1e4": (x + 1e4, y + 1e4),
        "rank deficient": (low[0], low[1] + low[0]),
        "ties": tied(),
        "float32": single,
        "float32, mean 1e3": tuple(z + np.float32(1e3) for z in single),
        "scale 1e-15": (1e-15 * x, 1e-15 * y),
        "heavy tails": (tail * x, tail * y + y),
        "X, Y": of_the_documentation(),
    }


def tied() -> tuple[np.ndarray, np.ndarray]:
    """Small integers: equal distances and duplicates, but no row without a direction."""
    rng = np.random.default_rng(0)
    x, y = (rng.integers(0, 3, (20, 4)).astype(float) for _ in range(2))
    for z in (x, y):
        flat = z.min(axis=1) == z.max(axis=1)
        z[flat] = [0, 1, 2, 1]
    return x, y


def of_the_documentation() -> tuple[np.ndarray, np.ndarray]:
    """Of other widths; the values of the reference pages."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((10, 3))
    w = np.array([[1.0, 0.5, 0, 0], [-0.3, 0.8, 0, 0], [0, 0, 1, 0]])
    return x, x @ w + 0.5 * rng.standard_normal((10, 4))


@dataclass(frozen=True)
class Cell:
    """A value beside the truth; ``words`` if there is no number."""

    value: float
    truth: float
    dtype: str
    words: str = ""

    @property
    def equal(self) -> bool:
        if self.words or math.isnan(self.value) or math.isnan(self.truth):
            return math.isnan(self.value) and math.isnan(self.truth) and not self.words
        return abs(self.value - self.truth) <= TOLERANCE[self.dtype] * max(1, abs(self.truth))

    def __str__(self) -> str:
        return self.words or f"{self.value:.6g}"


def cell(way: object, x: np.ndarray, y: np.ndarray, expected: float) -> Cell:
    try:
        value, words = float(way(x, y)), ""  # type: ignore[operator]
    except Exception as error:  # an error of a package is a result
        value, words = math.nan, f"raises {type(error).__name__}"
    return Cell(value, expected, str(x.dtype), words)


def compare() -> tuple[dict, dict]:
    """Return the cells of our functions and of the other packages, by regime."""
    ours: dict[str, dict[str, Cell]] = {}
    theirs: dict[ArrayPeer, dict[str, Cell]] = {}
    for peer in PEERS:  # the first import of a package may fail for an optional part alone
        if peer.there:
            cell(peer.run, *regimes()["n > p"], math.nan)
    for name, (x, y) in regimes().items():
        for peer in PEERS:
            if peer.ours not in ours or name not in ours[peer.ours]:
                print(f"{name}: {peer.ours}", file=sys.stderr, flush=True)
                expected = truth(peer.measure, peer.options, x, y)
                ours.setdefault(peer.ours, {})[name] = cell(peer.own_value, x, y, expected)
            if peer.there:
                expected = ours[peer.ours][name].truth
                convert = peer.convert or float
                way = lambda a, b, peer=peer, convert=convert: convert(peer.run(a, b))  # noqa: E731
                theirs.setdefault(peer, {})[name] = cell(way, x, y, expected)
    return ours, theirs


def summary(ours: dict, theirs: dict) -> str:
    names = list(regimes())
    lines = [f"| | {' | '.join(names)} |", "|---|" + "--:|" * len(names)]
    packages = sorted({peer.package for peer in theirs})
    for title in ["repsim", *packages]:
        rows = (
            ours.values()
            if title == "repsim"
            else [row for peer, row in theirs.items() if peer.package == title]
        )
        counts = [f"{sum(row[name].equal for row in rows)}/{len(list(rows))}" for name in names]
        lines.append(f"| {title} | {' | '.join(counts)} |")
    return "\n".join(lines)


def differences(ours: dict, theirs: dict) -> str:
    lines = ["| measure | call | regime | value | truth | why |", "|---|---|---|--:|--:|---|"]
    for call, row in ours.items():
        for name, found in row.items():
            if not found.equal:
                why = OURS.get((call, name)) or OURS.get((call, "")) or "?"
                lines.append(
                    f"| `{call}` | **repsim** | {name} | {found} | {found.truth:.6g} | {why} |"
                )
    for peer, row in theirs.items():
        merged: dict[str, list[str]] = {}
        for name, found in row.items():
            if not found.equal:
                why = CAUSES.get((peer.call, name)) or CAUSES.get((peer.call, "")) or "?"
                merged.setdefault(why, []).append(name)
        for why, those in merged.items():
            first = row[those[0]]
            lines.append(
                f"| `{peer.ours}` | {peer.package}, `{peer.call}` | {', '.join(those)} "
                f"| {first} | {first.truth:.6g} | {why} |"
            )
    return "\n".join(lines)


def conversions(theirs: dict) -> str:
    """The lines of the coming-from page, each with the number of regimes in which it holds."""
    lines = ["| theirs | ours | conversion | holds in |", "|---|---|---|--:|"]
    for peer in PEERS:
        row = theirs.get(peer)
        held = "not run" if row is None else f"{sum(c.equal for c in row.values())} of {len(row)}"
        if peer.convert is None:
            held = "–"
        lines.append(f"| {peer.package}, `{peer.call}` | `{peer.ours}` | {peer.how} | {held} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--write", type=Path, nargs=2, help="the truth page and the coming-from page to write into"
    )
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    for package in sorted({peer.package for peer in PEERS if not peer.there}):
        say(f"not installed, left out: {package}")
    ours, theirs = compare()
    counts = Counter(c.equal for row in ours.values() for c in row.values())
    others = Counter(c.equal for row in theirs.values() for c in row.values())
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in sorted({p.package for p in theirs})
    )
    text = (
        f"repsim: {counts[True]} of {counts.total()} values equal the formula. Others: "
        f"{others[True]} of {others.total()}, with {versions}.\n\n{summary(ours, theirs)}\n\n"
        f"## Every difference\n\n{differences(ours, theirs)}"
    )
    page = conversions(theirs)
    print(text, page, sep="\n\n")
    if args.write:
        write_between(args.write[0], "<!-- truth:start -->", "<!-- truth:end -->", text)
        write_between(args.write[1], "<!-- conversions:start -->", "<!-- conversions:end -->", page)


if __name__ == "__main__":
    main()
