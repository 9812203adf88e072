"""Intervals of simulated data: how often they contain the true value, and how wide they are."""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from _output import parser_of, versions

__all__ = ["Ends", "arguments", "cell", "setting_of", "tally", "uncertain"]

Ends = tuple[float, float, float]
"""A true value, and the low and the high end of an interval for it."""


def arguments(
    doc: str | None, argv: list[str] | None, *, draws: bool = True, nulls: int | None = None
) -> argparse.Namespace:
    """The options of a script about intervals, with those of the bootstrap."""
    parser = parser_of(doc)
    parser.add_argument("--datasets", type=int, default=300, help="for each row (default 300)")
    if draws:
        parser.add_argument("--draws", type=int, default=200, help="of the bootstrap (default 200)")
    if nulls is not None:
        text = f"data sets for each test (default {nulls})"
        parser.add_argument("--nulls", type=int, default=nulls, help=text)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def tally(data_sets: Iterable[Mapping[str, Ends]]) -> dict[str, dict[str, float]]:
    """The share of data sets whose interval contains the true value, and the mean width, by way."""
    hits: Counter[str] = Counter()
    widths: dict[str, float] = {}
    number = 0
    for ends in data_sets:
        number += 1
        for way, (truth, low, high) in ends.items():
            hits[way] += low <= truth <= high
            widths[way] = widths.get(way, 0.0) + (high - low)
    return {
        "coverage": {way: hits[way] / number for way in widths},
        "width": {way: width / number for way, width in widths.items()},
    }


def uncertain(share: float, datasets: int) -> str:
    """A share with its own standard error, in percent."""
    error = math.sqrt(max(share * (1 - share), 1 / datasets / 4) / datasets)
    return f"{100 * share:.1f} ± {100 * error:.1f}"


def cell(row: Mapping[str, Any], way: str, datasets: int) -> str:
    """The coverage and the mean width of a way, for a table."""
    if way not in row["coverage"]:
        return "–"
    return f"{uncertain(row['coverage'][way], datasets)} ({row['width'][way]:.2f})"


def setting_of(args: argparse.Namespace, *counts: str) -> dict[str, Any]:
    """The counts, the seed and the versions of a run."""
    asked = {name: getattr(args, name) for name in (*counts, "seed")}
    return {**asked, **versions("repsim", "numpy")}
