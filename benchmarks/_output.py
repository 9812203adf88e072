"""What all scripts share: options, the setting of a run, and its table between two comments."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "hand_out",
    "listed",
    "parser_of",
    "processor",
    "say",
    "spread",
    "versions",
    "write_between",
]


def parser_of(
    doc: str | None, *, tables: str = "table", keeps: bool = True
) -> argparse.ArgumentParser:
    """A parser with the options of `hand_out`; without --json if there is nothing else to keep."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if keeps:
        parser.add_argument("--json", type=Path, help="write everything that was found here")
    parser.add_argument("--write", type=Path, help=f"put the {tables} between this file's comments")
    return parser


def versions(*packages: str) -> dict[str, str]:
    """The versions of Python and of these packages."""
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version(), **found}


def processor() -> str:
    """The name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def listed(setting: Mapping[str, Any]) -> str:
    """The setting of a run as the words above its table."""
    return ", ".join(f"{key} {value}" for key, value in setting.items())


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median of values and their range."""
    if not values:
        return "–"
    middle, least, most = (
        f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values))
    )
    return middle if len(values) == 1 else f"{middle} ({least}–{most})"


def hand_out(
    args: argparse.Namespace, text: str, comments: tuple[str, str], found: Any = None
) -> str:
    """Print a text, write it and what was found where the options ask for it, and return it."""
    print(text)
    if getattr(args, "json", None):
        args.json.write_text(json.dumps(found, indent=1))
    if args.write:
        write_between(args.write, *comments, text)
    return text


def write_between(path: Path, start: str, end: str, text: str) -> None:
    """Replace the text between the two comments of a page."""
    page = path.read_text(encoding="utf-8")
    if page.count(start) != 1 or page.count(end) != 1:
        sys.exit(f"{path}: expected one {start} and one {end} to write between.")
    pattern = re.escape(start) + ".*" + re.escape(end)
    page = re.sub(pattern, lambda _: f"{start}\n{text}\n{end}", page, flags=re.DOTALL)
    path.write_text(page, encoding="utf-8")


def say(text: str) -> None:
    """Print progress, apart from the table."""
    print(text, file=sys.stderr, flush=True)
