"""Entries of a contents list that name a page only some versions have: ``name*``.

Sphinx warns of a pattern without a match, and that warning cannot be switched off by itself.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

__all__ = ["setup", "without_missing"]

ENTRY = re.compile(r"^([\w/-]+\*)\n", re.M)


def without_missing(text: str, folder: Path) -> str:
    """Return the text without those lines that match no page below `folder`."""
    return ENTRY.sub(lambda line: line[0] if any(folder.glob(f"{line[1]}.md")) else "", text)


def setup(app: Sphinx) -> dict[str, Any]:
    def read(app: Sphinx, docname: str, source: list[str]) -> None:
        if docname == app.config.root_doc:
            source[0] = without_missing(source[0], Path(app.srcdir))

    app.connect("source-read", read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
