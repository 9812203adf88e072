"""Tables in pages, between two comments; only the script that made a table rewrites it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

__all__ = ["write_between"]


def write_between(path: Path, start: str, end: str, text: str) -> None:
    """Replace the text between the two comments of a page."""
    page = path.read_text(encoding="utf-8")
    if page.count(start) != 1 or page.count(end) != 1:
        sys.exit(f"{path}: expected one {start} and one {end} to write between.")
    pattern = re.escape(start) + ".*" + re.escape(end)
    page = re.sub(pattern, lambda _: f"{start}\n{text}\n{end}", page, flags=re.DOTALL)
    path.write_text(page, encoding="utf-8")
