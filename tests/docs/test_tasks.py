"""The how-tos of ten tasks: their lines are counted, and the one of notebooks runs in a kernel."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HOWTO = Path(__file__).parents[2] / "docs" / "howto"
ROW = re.compile(
    r"^\| (?P<task>.*) \| \[.*\]\((?P<page>[\w-]+\.md)(?:#(?P<part>[\w-]+))?\) "
    r"\| (?P<lines>\d+) lines \|$",
    re.M,
)
FENCE = re.compile(r"^```python\n(?P<code>.*?)^```$", re.M | re.S)
HEADING = re.compile(r"^#+ (?P<title>.*)\n", re.M)
STAND_IN = "# Stand-in"

PAGE = """# Title

```python
# Stand-ins for your data
x = 3
```

```python
# A comment

y = (
    x
)
# Another heading, if this were no code
print(y)
```

```py
not_run()
```

## The rest, in short

```python
print(x)
```
"""


def lines_of_code(text, part=None):
    """Count the lines of Python before the second heading of a page, or below the heading `part`.

    Empty lines, comments, and blocks that stand for the reader's models and data do not count.
    """
    # Comments in code look like headings.
    plain = FENCE.sub(lambda block: re.sub("^#", " ", block[0], flags=re.M), text)
    headings = [*HEADING.finditer(plain)]
    names = [re.sub(r"[^\w -]", "", each["title"].lower()).replace(" ", "-") for each in headings]
    chosen = 0 if part is None else names.index(part)
    below = text[headings[chosen].end() :]
    if chosen + 1 < len(headings):
        below = text[headings[chosen].end() : headings[chosen + 1].start()]
    blocks = [found["code"] for found in FENCE.finditer(below)]
    own = "".join(code for code in blocks if not code.startswith(STAND_IN))
    lines = [line.strip() for line in own.splitlines()]
    return sum(bool(line) and not line.startswith("#") for line in lines)


def test_lines_are_those_of_the_code_that_a_task_needs():
    assert lines_of_code(PAGE) == 4
    assert lines_of_code(PAGE, "the-rest-in-short") == 1


def test_the_table_of_tasks_has_the_numbers_of_their_pages():
    rows = [*ROW.finditer((HOWTO / "index.md").read_text())]
    assert len(rows) == 10
    said = {row["task"]: int(row["lines"]) for row in rows}
    counted = {
        row["task"]: lines_of_code((HOWTO / row["page"]).read_text(), row["part"]) for row in rows
    }
    assert said == counted
    assert all(1 < number <= 30 for number in counted.values())


def test_pages_of_the_table_say_what_stands_for_the_readers_own():
    for row in ROW.finditer((HOWTO / "index.md").read_text()):
        assert f"```python\n{STAND_IN}" in (HOWTO / row["page"]).read_text(), row["page"]


@pytest.mark.slow
def test_the_notebook_runs_in_a_kernel(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", (HOWTO / "notebook.md").read_text(), re.M | re.S)
    cells = [nbformat.v4.new_code_cell(code) for code in blocks]
    notebook = nbformat.v4.new_notebook(cells=cells)
    client.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    shown = [
        {kind for output in cell["outputs"] for kind in output.get("data", ())}
        for cell in notebook.cells
    ]
    assert "image/png" in shown[1]
    assert "text/html" in shown[2]
    assert "<iframe" in str(notebook.cells[3]["outputs"])
    assert "compare: pass 1 of 1" in str(notebook.cells[5]["outputs"])
    assert (tmp_path / "results" / "report.html").is_file()
    assert (tmp_path / "state.npz").is_file()
