"""Lines of code in a table of how-tos: ``{lines}`` is counted on the page that its row links to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sphinx.errors import ExtensionError

from executed_pages import FENCE

if TYPE_CHECKING:
    from sphinx.application import Sphinx

__all__ = ["ROW", "lines_of_code", "setup", "with_numbers"]

PAGE = "howto/index"
ROW = re.compile(
    r"^\|.*\]\((?P<page>[\w-]+\.md)(?:#(?P<part>[\w-]+))?\) \| \{lines\} lines \|$", re.M
)
HEADING = re.compile(r"^#+ (?P<title>.*)\n", re.M)
STAND_IN = "# Stand-in"


def lines_of_code(text: str, part: str | None = None) -> int:
    """Return the lines of Python before the second heading of a page, or below the heading `part`.

    Empty lines, comments, and blocks that stand for the reader's models and data do not count.
    """
    blocks = [found["code"] for found in FENCE.finditer(_part(text, part))]
    own = "".join(code for code in blocks if not code.startswith(STAND_IN))
    lines = [line.strip() for line in own.splitlines()]
    return sum(bool(line) and not line.startswith("#") for line in lines)


def with_numbers(text: str, folder: Path) -> str:
    """Return the table with the numbers of the pages in `folder`."""

    def counted(row: re.Match[str]) -> str:
        found = lines_of_code((folder / row["page"]).read_text(), row["part"])
        if not found:
            raise ExtensionError(f"lines_of_code: there is no code at {row['page']}#{row['part']}.")
        return row[0].replace("{lines}", str(found))

    return ROW.sub(counted, text)


def setup(app: Sphinx) -> dict[str, Any]:
    def read(app: Sphinx, docname: str, source: list[str]) -> None:
        if docname == PAGE:
            source[0] = with_numbers(source[0], Path(app.srcdir, PAGE).parent)

    app.connect("source-read", read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _part(text: str, part: str | None) -> str:
    """Return what stands below a heading, by default the title, up to the next of any level."""
    # Comments in code look like headings.
    plain = FENCE.sub(lambda block: re.sub("^#", " ", block[0], flags=re.M), text)
    headings = [*HEADING.finditer(plain)]
    for heading, after in zip(headings, [*headings[1:], None], strict=True):
        slug = re.sub(r"[^\w -]", "", heading["title"].lower()).replace(" ", "-")
        if part in (None, slug):
            return text[heading.end() : None if after is None else after.start()]
    raise ExtensionError(f"lines_of_code: there is no heading #{part}.")
