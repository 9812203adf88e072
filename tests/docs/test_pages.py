"""The code on the pages runs: each page from top to bottom, as a reader would type it."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import os
import re
import runpy
import socket
import warnings
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.myst import PythonCodeBlockParser

import repsim
from forks import run_forked

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
OWN_TEST = {"howto/ddp.md", "howto/notebook.md", "imagenet-scale.md"}
QUICK = {"errors.md"}
LEFT_OUT = {"_build", "auto_gallery", "reference", "notes"}

SYBIL = Sybil(parsers=[PythonCodeBlockParser()], path=str(DOCS))


def with_python() -> list[str]:
    """All pages that hold Python, new ones included."""
    names = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
    return [
        name
        for name in names
        if name.split("/")[0] not in LEFT_OUT and "```python\n" in (DOCS / name).read_text()
    ]


PAGES = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in with_python()
    if name not in OWN_TEST
]


# As in the build of the pages, where a warning is an error.
pytestmark = pytest.mark.filterwarnings("error::repsim.ChanceWarning")


def test_the_pages_are_found():
    assert OWN_TEST | QUICK | {"tutorial.md", "howto/vit-resnet.md"} <= set(with_python())


@pytest.mark.parametrize("name", PAGES)
def test_page_runs(name, tmp_path, monkeypatch):
    if name == "howto/experiment-trackers.md":
        pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    document = SYBIL.parse(DOCS / name)
    examples = list(document.examples())
    assert len(examples) == (DOCS / name).read_text().count("```python\n")
    for example in examples:
        example.evaluate()


def printed_by_rank(script: str, folder: Path, rank: int, port: int) -> str:
    """Run a script as torchrun does: one of two ranks, which it tells by its environment."""
    os.chdir(folder)
    os.environ |= {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        runpy.run_path(script, run_name="__main__")
    return printed.getvalue()


@pytest.mark.slow
def test_several_ranks(tmp_path):
    """The page on several ranks, run with two ranks as it describes."""
    compare, extract, trained = map(
        str, (e.parsed for e in SYBIL.parse(DOCS / "howto" / "ddp.md").examples())
    )
    end = "dist.destroy_process_group()\n"
    assert compare.endswith(end)
    stored = f"{extract}\nassert len(stored['sample']) == 250\n"
    whole = f"{compare.removesuffix(end)}\n{stored}\n{trained}\n{end}"
    (tmp_path / "ranks.py").write_text(whole)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ranks = [("ranks.py", tmp_path, rank, port) for rank in range(2)]
    first, second = run_forked("docs.test_pages:printed_by_rank", ranks, limit=120.0)
    assert (first.code, second.code) == (0, 0), first.stderr + second.stderr
    assert "250 samples, 2 ranks" in first.value
    assert second.value == ""


def test_the_calls_over_imagenet_are_valid():
    """The page needs eight GPUs, so only its names and its options are checked."""
    called = set()
    for example in SYBIL.parse(DOCS / "imagenet-scale.md").examples():
        for node in ast.walk(ast.parse(str(example.parsed))):
            if isinstance(node, ast.Call) and re.fullmatch(r"repsim\.\w+", ast.unparse(node.func)):
                name = ast.unparse(node.func).removeprefix("repsim.")
                called.add(name)
                parameters = inspect.signature(getattr(repsim, name)).parameters
                assert {keyword.arg for keyword in node.keywords} <= set(parameters), name
    assert {"compare", "extract", "cka_matrix", "open_activations"} <= called


def test_errors_explained_are_those_that_there_are():
    page = (DOCS / "errors.md").read_text()
    source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    quoted = re.findall(r'^\*\*"([^"]+)"', page, re.M)
    assert len(quoted) >= 6
    assert not [message for message in quoted if message not in source]
    errors = {name for name in repsim.__all__ if name.endswith(("Error", "Warning"))}
    assert not [name for name in errors if f"`{name}`" not in page]


def test_optional_pages_are_listed_where_they_are(tmp_path, extensions):
    from optional_pages import without_missing

    (tmp_path / "there.md").write_text("# There\n")
    text = "```{toctree}\nthere*\nmissing*\nplain\n```\n"
    assert without_missing(text, tmp_path) == "```{toctree}\nthere*\nplain\n```\n"


def test_an_executed_page_shows_its_output_and_stops_at_errors(tmp_path, extensions):
    from sphinx.errors import ExtensionError

    import executed_pages

    class App:
        srcdir = tmp_path

    page = "---\nexecute: true\n---\n\n```python\nx = 3\nprint('seen')\nx + 4\n```\n"
    source = [page + "\n```python\nx * 10\n```\n"]
    executed_pages.execute(App(), "page", source)
    assert "seen" in source[0]
    assert "\n7\n" in source[0]
    assert "\n30\n" in source[0]  # one namespace

    plain = ["```python\n1 / 0\n```\n"]
    executed_pages.execute(App(), "page", plain)
    assert plain == ["```python\n1 / 0\n```\n"]

    with pytest.raises(ExtensionError, match=r"page.md, block 1 raised.\nZeroDivisionError"):
        executed_pages.execute(App(), "page", ["---\nexecute: true\n---\n" + plain[0]])
    warns = "---\nexecute: true\n---\n```python\nimport warnings\nwarnings.warn('no')\n```\n"
    with warnings.catch_warnings(), pytest.raises(ExtensionError, match="UserWarning: no"):
        executed_pages.execute(App(), "page", [warns])
