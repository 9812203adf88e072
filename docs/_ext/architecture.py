"""The picture of the layers, drawn from the import contract that the build checks.

This file names no package. The rows are the layers of the contract. Beside a package stand the
frameworks that it may import and others may not.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from sphinx.application import Sphinx

__all__ = ["diagram", "layers_of", "may_import", "setup"]

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
WIDTH, ROW, GAP, BOX = 640, 40, 18, 26


def contracts(pyproject: Path = PYPROJECT) -> list[dict[str, Any]]:
    tool = tomllib.loads(pyproject.read_text(encoding="utf-8"))["tool"]
    return list(tool["importlinter"]["contracts"])


def layers_of(rules: list[dict[str, Any]], source: Path) -> list[list[str]]:
    """Return the packages of each layer, from the top; optional ones only if they exist."""
    (contract,) = (rule for rule in rules if rule["type"] == "layers")
    rows = []
    for layer in contract["layers"]:
        row = []
        for part in layer.split("|"):
            name = part.strip()
            optional = name.startswith("(")
            name = name.strip("()")
            there = (source / name).is_dir() or (source / f"{name}.py").is_file()
            if there or not optional:
                row.append(name)
        if row:
            rows.append(row)
    return rows


def may_import(rules: list[dict[str, Any]], package: str) -> list[str]:
    """Return the frameworks that this package may import although others may not."""
    allowed: list[str] = []
    for rule in rules:
        if rule["type"] != "forbidden" or rule["source_modules"] == ["repsim"]:
            continue
        if f"repsim.{package}" not in rule["source_modules"]:
            allowed += (m for m in rule["forbidden_modules"] if not m.startswith("repsim."))
    return allowed


def diagram(rules: list[dict[str, Any]], source: Path) -> str:
    """Return the layers as SVG, one row per layer; arrows point in the direction of imports."""
    rows = layers_of(rules, source)
    height = len(rows) * (ROW + GAP) - GAP + 8
    described = escape("; ".join(map(", ".join, rows)))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="The layers of repsim, top to bottom: {described}">',
        "<style>rect{fill:#8a2b68;fill-opacity:.1;stroke:#8a2b68}"
        "text{font:15px system-ui,sans-serif;fill:#7a7a7a}.n{fill:#a0417d;font-weight:600}"
        ".s{font-size:11.5px}path{stroke:#8a8a8a;fill:none}</style>",
    ]
    for number, row in enumerate(rows):
        y = 4 + number * (ROW + GAP)
        each = (WIDTH - 8 - 12 * (len(row) - 1)) / len(row)
        for place, name in enumerate(row):
            x = 4 + place * (each + 12)
            extra = ", ".join(may_import(rules, name))
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{each:.1f}" height="{ROW}" rx="5"/>'
                f'<text class="n" x="{x + 14:.1f}" y="{y + BOX}">{escape(name)}</text>'
            )
            if extra:
                parts.append(
                    f'<text class="s" text-anchor="end" x="{x + each - 12:.1f}" y="{y + BOX - 1}">'
                    f"{escape(extra)}</text>"
                )
        if number + 1 < len(rows):
            top, bottom = y + ROW + 2, y + ROW + GAP - 3
            parts.append(f'<path d="M{WIDTH / 2} {top}V{bottom}m-4 -5l4 5l4 -5"/>')
    return "\n".join([*parts, "</svg>", ""])


def write(app: Sphinx) -> None:
    folder = Path(app.srcdir, "reference")
    folder.mkdir(exist_ok=True)
    source = PYPROJECT.parent / "src" / "repsim"
    (folder / "architecture.svg").write_text(diagram(contracts(), source), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
