"""docs/coverage.md says what happens: every analysis on every family of models."""

import pytest

from analysis import coverage_table, coverage_text
from analysis.coverage_table import PAGE

HALVES = {"images": coverage_table, "text": coverage_text}
CELLS = [
    pytest.param(half, name, id=f"{kind}-{name}")
    for kind, half in HALVES.items()
    for name in half.FAMILIES
]


def published(half):
    """The lines of a half of the page: head, rule, and one a family."""
    _, _, rest = PAGE.read_text().partition(half.START)
    return rest.partition(half.END)[0].strip().splitlines()


@pytest.mark.slow
@pytest.mark.parametrize(("half", "name"), CELLS)
def test_each_line_of_the_page_is_measured(half, name):
    line, reasons = half.row(name)
    assert line in published(half), "\n".join(f"{a}: {why}" for a, why in reasons.items())


def test_the_page_has_every_family_and_no_other():
    for half in HALVES.values():
        head, _, *rows = published(half)
        assert head == f"| family | {' | '.join(half.HEADS)} |"
        assert [line.split(" | ")[0][2:] for line in rows] == list(half.FAMILIES)
        assert all(line.count("|") == len(half.HEADS) + 2 for line in rows)
