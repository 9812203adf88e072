"""Every command of ``docs/command-line.md`` is run, and its output is that of the page."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "command-line.md"
TEXT = PAGE.read_text()
BLOCKS = re.findall(r"^```console\n(.*?)^```", TEXT, re.M | re.S)


def commands():
    """The commands in the order of the page, each with what it prints."""
    for block in BLOCKS:
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, printed = part.partition("\n")
            yield shlex.split(command)[1:], printed


def lines(text):
    """The lines without digits and widths of columns, which differ between machines."""
    text = re.sub(r"-?\d[\d.]*(e-?\d+)?", "#", text)
    text = re.sub(r"[─━]+", "─", text)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def test_the_page_has_every_command():
    shown = {argv[0] for argv, _ in commands()}
    assert shown == {"--version", "measure", "compare", "attention", "analyse", "layers", "report"}


@pytest.mark.slow
def test_printed_output_matches_the_page(repsim_command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    (setup,) = re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)
    exec(setup, {})
    for argv, printed in commands():
        ran = repsim_command(*argv)
        assert ran.code == (2 if "error: " in printed else 0), ran.err
        found = lines(ran.err + ran.out)
        assert lines(printed) == [line for line in found if "%|" not in line], argv
