"""docs/measures.md agrees with the registry."""

from measures.measures_table import NAMES, PAGE, page
from repsim.measures import INVARIANCES, MEASURES


def test_the_page_is_that_of_the_registry():
    text = PAGE.read_text()
    assert page(text) == text


def test_every_invariance_has_a_column():
    assert tuple(NAMES) == INVARIANCES


def test_the_number_of_measures_is_that_of_the_registry():
    others = len({measure.function for measure in MEASURES.values()}) - 1  # all but cka
    for name in ("README.md", "docs/index.md"):
        assert f"{others} more measures" in (PAGE.parents[1] / name).read_text(), name
