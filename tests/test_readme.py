"""Every Python block of the README runs separately, in an empty folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(
    r"^## ([^\n]+)\n(?:(?!^## ).)*?```python\n(.*?)```", README.read_text(), re.M | re.S
)


def test_every_python_block_is_found():
    assert len(BLOCKS) == README.read_text().count("```python")


def test_pictures_are_in_full_colour_and_small():
    files = re.findall(r"\((docs/images/[^)]+)\)", README.read_text())
    assert len(files) == 2
    for file in files:
        with Image.open(README.parent / file) as picture:
            assert picture.mode in ("RGB", "RGBA"), file
            assert picture.width <= 1100, file
        assert (README.parent / file).stat().st_size <= 200_000, file


@pytest.mark.slow
@pytest.mark.parametrize(("title", "code"), BLOCKS, ids=[title for title, _ in BLOCKS])
def test_readme_block_runs(title, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, f"README.md, {title}", "exec"), {})
    pictures = set(re.findall(r'savefig\("([^"]+)"\)', code))
    assert {path.name for path in tmp_path.iterdir()} == pictures
