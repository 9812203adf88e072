"""docs/coverage.md says what happens: every analysis on every family of models."""

import pytest

from analysis.coverage_table import ANALYSES, FAMILIES, PAGE, row

PUBLISHED = PAGE.read_text().splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_what_the_page_says(name):
    line, reasons = row(name)
    assert line in PUBLISHED, "\n".join(f"{a}: {why}" for a, why in reasons.items())


def test_the_page_has_every_family_and_no_other():
    rows = [line for line in PUBLISHED if line.startswith("| ") and "`" not in line]
    assert [line.split(" | ")[0][2:] for line in rows] == list(FAMILIES)
    assert all(line.count("|") == len(ANALYSES) + 2 for line in rows)
