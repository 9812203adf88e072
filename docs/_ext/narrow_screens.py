"""Classes for tables and drawn output, from which the style makes them fit a narrow screen.

- ``marks``: a table of many short cells. Its heads stand upright.
- ``cards``: a table whose longest words do not fit side by side. On a narrow screen every row is a
  card, and ``data-label`` of a cell holds the head of its column.
- ``drawn-N``: output with boxes of N characters. It is as small as it needs to be, because a box
  that wraps cannot be read.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.writers.html5 import HTML5Translator

if TYPE_CHECKING:
    from sphinx.application import Sphinx

__all__ = ["setup"]

ROOM = 46
"""Characters of small print beside each other in 390 pixels."""

MARK = 4
"""Characters of the longest mark, as "yes" or "of y"; digits of footnotes do not count."""

BOXES = re.compile("[─━│┃]")
BREAKS = re.compile(r"(?<=[_(=,./])(?=\w)")


class Classes(SphinxPostTransform):
    """Give tables and drawn output their classes."""

    default_priority = 900
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        for table in self.document.findall(nodes.table):
            classify(table)
        for block in self.document.findall(nodes.literal_block):
            drawn = [len(line) for line in block.astext().splitlines() if BOXES.search(line)]
            if drawn:
                columns = max(drawn)
                block["classes"].append(f"drawn-{-(-columns // 10) * 10}")


def classify(table: nodes.table) -> None:
    rows = [list(row.findall(nodes.entry)) for row in table.findall(nodes.row)]
    heads = [row for row in rows if isinstance(row[0].parent.parent, nodes.thead)]
    if len(heads) != 1 or any(len(row) != len(heads[0]) for row in rows):
        return
    labels = [entry.astext() for entry in heads[0]]
    body = [row for row in rows if row is not heads[0]]
    cells = [[entry.astext() for entry in row] for row in body]
    longest = max((len(text.rstrip(" ¹²³⁴⁵")) for row in cells for text in row[1:]), default=0)
    if len(labels) >= 5 and longest <= MARK:
        table["classes"].append("marks")
        return
    words = [
        max(len(word) for row in [labels, *cells] for word in row[column].split() or [""])
        for column in range(len(labels))
    ]
    if len(labels) > 2 and sum(words) > ROOM:
        table["classes"].append("cards")
        for row in body:
            for label, entry in zip(labels[1:], row[1:], strict=True):
                if entry.astext():
                    entry["label"] = label
                else:
                    entry["classes"].append("none")


def visit_entry(translator: HTML5Translator, node: nodes.entry) -> None:
    HTML5Translator.visit_entry(translator, node)
    node["start"] = len(translator.body)
    if "label" in node:
        label = translator.attval(node["label"])
        translator.body[-1] = translator.body[-1].replace(">", f' data-label="{label}">', 1)


def depart_entry(translator: HTML5Translator, node: nodes.entry) -> None:
    """Let code in a cell break after an underscore or a bracket, and nowhere else."""
    inside = "".join(translator.body[node["start"] :])
    translator.body[node["start"] :] = [
        re.sub(r'(?<=<span class="pre">)[^<]+', lambda code: BREAKS.sub("<wbr>", code[0]), inside)
    ]
    HTML5Translator.depart_entry(translator, node)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_post_transform(Classes)
    app.add_node(nodes.entry, override=True, html=(visit_entry, depart_entry))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
