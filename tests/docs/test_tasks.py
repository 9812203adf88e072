"""The how-tos of ten tasks: their lines are counted, and the one of notebooks runs in a kernel."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HOWTO = Path(__file__).parents[2] / "docs" / "howto"

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


def test_lines_are_those_of_the_code_that_a_task_needs(extensions):
    from sphinx.errors import ExtensionError

    from lines_of_code import lines_of_code

    assert lines_of_code(PAGE) == 4
    assert lines_of_code(PAGE, "the-rest-in-short") == 1
    with pytest.raises(ExtensionError, match="no heading #another"):
        lines_of_code(PAGE, "another")


def test_ten_tasks_have_their_numbers(extensions):
    from lines_of_code import ROW, with_numbers

    text = (HOWTO / "index.md").read_text()
    assert len(ROW.findall(text)) == 10
    numbers = re.findall(r"^\|.* \| (\d+) lines \|$", with_numbers(text, HOWTO), re.M)
    assert len(numbers) == 10
    assert all(1 < int(number) <= 30 for number in numbers)


def test_pages_of_the_table_say_what_stands_for_the_readers_own(extensions):
    from lines_of_code import ROW, STAND_IN

    for page, _ in ROW.findall((HOWTO / "index.md").read_text()):
        assert f"```python\n{STAND_IN}" in (HOWTO / page).read_text(), page


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
