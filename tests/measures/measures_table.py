"""docs/measures.md, made from the registry of measures.

``python tests/measures/measures_table.py`` writes the page, with ``src`` on the path;
``test_measures_page.py`` compares it with the registry.
"""

from __future__ import annotations

import math
from pathlib import Path

from repsim.measures import MEASURES, Measure

PAGE = Path(__file__).parents[2] / "docs" / "measures.md"
START, END = "<!-- {}:start -->", "<!-- {}:end -->"

NAMES = {
    "orthogonal": "rotation",
    "permutation": "permutation",
    "isotropic_scale": "scale",
    "translation": "translation",
    "invertible_linear": "any invertible map",
}
BOUNDS = {
    math.inf: "∞",
    -math.inf: "−∞",
    math.pi: "π",
    math.pi / 2: "π/2",
    math.sqrt(2): "√2",
}


def bound(value: float) -> str:
    return BOUNDS.get(value, f"{value:g}".replace("-", "−"))


def call(measure: Measure) -> str:
    options = ", ".join(
        f'{key}="{value}"' if isinstance(value, str) else f"{key}={value}"
        for key, value in measure.preset.items()
    )
    return f"`{measure.function.__name__}({options})`" if options else f"`{measure.name}`"


def properties() -> str:
    lines = [
        "| measure | family | range | | metric | symmetric | fewest samples | source |",
        "|---|---|---|---|:-:|:-:|--:|---|",
    ]
    for m in sorted(MEASURES.values(), key=lambda m: m.family):
        units = {"1": "", "rad": " rad"}.get(m.units, f", in units {m.units}")
        kind = "similarity" if m.similarity else "dissimilarity"
        lines.append(
            f"| {call(m)} | {m.family} | {bound(m.range[0])} to {bound(m.range[1])}{units} "
            f"| {kind} | {'yes' if m.metric else ''} | {'yes' if m.symmetric else ''} "
            f"| {m.minimum_samples} | {m.reference} |"
        )
    return "\n".join(lines)


def invariances() -> str:
    lines = [f"| measure | {' | '.join(NAMES.values())} |", "|---" + "|:-:" * len(NAMES) + "|"]
    for m in sorted(MEASURES.values(), key=lambda m: m.family):
        cells = []
        for each in NAMES:
            of_x = each in m.invariances
            of_y = each in (m.invariances if m.invariances_y is None else m.invariances_y)
            cells.append(
                {(True, True): "yes", (False, True): "of y", (True, False): "of x"}.get(
                    (of_x, of_y), ""
                )
            )
        lines.append(f"| {call(m)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def costs() -> str:
    lines = [
        "| measure | cost of an array and of a pair | one pass | ceiling |",
        "|---|---|:-:|:-:|",
    ]
    for m in sorted(MEASURES.values(), key=lambda m: m.family):
        one_pass = "yes" if m.prepare_contrasts is not None else ""
        ceiling = "yes" if m.entries is not None else ""
        lines.append(f"| {call(m)} | {m.cost} | {one_pass} | {ceiling} |")
    return "\n".join(lines)


def page(before: str) -> str:
    """Return the page with its tables made anew."""
    for name, table in {
        "properties": properties(),
        "invariances": invariances(),
        "costs": costs(),
    }.items():
        head, _, rest = before.partition(START.format(name))
        _, _, tail = rest.partition(END.format(name))
        before = f"{head}{START.format(name)}\n{table}\n{END.format(name)}{tail}"
    return before


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
