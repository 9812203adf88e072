"""Intervals of simulated data: how often they contain the true value, and how wide they are."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import platform
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from _markers import write_between

__all__ = ["Ends", "cell", "hand_out", "parser_of", "setting_of", "tally", "uncertain"]

Ends = tuple[float, float, float]
"""A true value, and the low and the high end of an interval for it."""


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


def parser_of(doc: str | None, *, tables: str = "table") -> argparse.ArgumentParser:
    """A parser with the options that simulations share."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write everything that was found here")
    parser.add_argument("--write", type=Path, help=f"put the {tables} between this file's comments")
    return parser


def setting_of(args: argparse.Namespace, *counts: str) -> dict[str, Any]:
    """The counts, the seed and the versions of a run."""
    return {
        **{name: getattr(args, name) for name in (*counts, "seed")},
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("repsim", "numpy")},
    }


def hand_out(
    args: argparse.Namespace,
    setting: Mapping[str, Any],
    tables: str,
    comments: tuple[str, str],
    **found: Any,
) -> str:
    """Print the tables below their setting, write what the options ask for, and return the text."""
    about = ", ".join(f"{key} {value}" for key, value in setting.items())
    text = f"{about}.\n\n{tables}"
    print(text)
    if args.json:
        args.json.write_text(json.dumps({"setting": setting, **found}, indent=1))
    if args.write:
        write_between(args.write, *comments, text)
    return text
