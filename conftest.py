"""For all tests and the examples in docstrings: figures of pyplot do not outlive a test."""

from __future__ import annotations

import sys

import pytest

pytest_plugins = ("browsers",)  # one browser for all tests of pages


@pytest.fixture(autouse=True)
def figures_are_closed():
    """Close what pictures without ``ax=`` opened; pyplot warns of more than twenty figures."""
    yield
    if (pyplot := sys.modules.get("matplotlib.pyplot")) is not None:
        pyplot.close("all")
