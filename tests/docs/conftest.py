"""The extensions that the documentation's build uses."""

import sys
from pathlib import Path

import pytest


@pytest.fixture
def extensions(monkeypatch):
    """Their folder on the path, as conf.py has it."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "docs" / "_ext"))
    yield
    for name in (
        "architecture",
        "executed_pages",
        "gallery_axes",
        "optional_pages",
    ):
        sys.modules.pop(name, None)
