"""Tables of the command: shortened for a terminal, whole for a file."""

from __future__ import annotations

import io
import re
import sys

import pytest

pytest.importorskip("rich")
pytest.importorskip("timm")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def listed(monkeypatch):
    """What `repsim layers` prints of a model, without frame."""
    from repsim.cli import main

    def run(stream, *argv):
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["layers", "timm:test_vit", "--size", "32", *argv]) == 0
        text = re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue())
        return [line.split()[1] for line in text.splitlines() if line[:1] in "│┃"]

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    return run


def test_a_terminal_shows_both_ends_of_a_long_table(listed):
    whole = listed(io.StringIO(), "--layers", "*")
    assert len(whole) == 1 + 143
    short = listed(Terminal(), "--layers", "*")
    assert short[: 1 + 20] == whole[: 1 + 20]
    assert short[-20:] == whole[-20:]
    assert len(short) == 1 + 20 + 1 + 20
    assert short[21] == "…"


def test_a_table_that_fits_is_whole(listed):
    assert listed(Terminal()) == listed(io.StringIO())
