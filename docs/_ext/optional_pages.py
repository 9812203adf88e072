"""Optional entries of a contents list: ``name*`` for a page that may not exist.

Sphinx warns about a pattern without a match, and this warning cannot be switched off separately.
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
    """Return the text without the lines that match no page in `folder`."""
    return ENTRY.sub(lambda line: line[0] if any(folder.glob(f"{line[1]}.md")) else "", text)


def setup(app: Sphinx) -> dict[str, Any]:
    def read(app: Sphinx, docname: str, source: list[str]) -> None:
        if docname == app.config.root_doc:
            source[0] = without_missing(source[0], Path(app.srcdir))

    app.connect("source-read", read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
