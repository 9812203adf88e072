"""docs/measures.md agrees with the registry."""

from measures.measures_table import NAMES, PAGE, page
from repsim.measures import INVARIANCES


def test_the_page_is_that_of_the_registry():
    text = PAGE.read_text()
    assert page(text) == text


def test_every_invariance_has_a_column():
    assert tuple(NAMES) == INVARIANCES
