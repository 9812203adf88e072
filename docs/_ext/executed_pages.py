"""Run the Python of a page during the build, and show the output below each block.

A page whose front matter says ``execute: true`` is executed from top to bottom in one namespace,
each fence as a notebook cell. Its output is what it prints and the value of its last line; an Axes
is shown as a picture. A block that raises or warns stops the build.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
import tempfile
import warnings
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from matplotlib import pyplot
from sphinx.errors import ExtensionError

from gallery_axes import figure_of

if TYPE_CHECKING:
    from sphinx.application import Sphinx

__all__ = ["FENCE", "run_cell", "setup"]

ASKED_FOR = re.compile(r"\A---\n(?:.*\n)*?execute: true\n(?:.*\n)*?---\n")
FENCE = re.compile(r"^```python\n(?P<code>.*?)^```$", re.M | re.S)
PICTURES = "_build/pictures"


def run_cell(code: str, name: str, namespace: dict[str, Any]) -> tuple[str, Any]:
    """Run a block and return what it printed, and the value of its last line, if it is one."""
    tree = ast.parse(code, filename=name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, name, "exec"), namespace)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), name, "eval"), namespace)
    return printed.getvalue(), value


def execute(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the output of each block below it, before the page is parsed."""
    if not ASKED_FOR.match(source[0]):
        return
    # A separate module, so classes defined on the page can be pickled.
    namespace = ModuleType(f"page_{docname.replace('/', '_')}").__dict__
    folder = Path(app.srcdir, PICTURES).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    count = 0

    def with_output(found: re.Match[str]) -> str:
        nonlocal count
        count += 1
        where = f"{docname}.md, block {count}"
        try:
            printed, value = run_cell(found["code"], where, namespace)
        except Exception as error:
            raise ExtensionError(
                f"executed_pages: {where} raised.\n{type(error).__name__}: {error}"
            ) from error
        shown = found[0]
        if printed:
            shown += f"\n\n```{{code-block}} text\n:class: output\n{printed.rstrip()}\n```\n"
        if (figure := figure_of(value)) is not None:
            picture = folder / f"{docname.replace('/', '-')}-{count}.png"
            figure.savefig(picture, dpi=144, bbox_inches="tight")
            pyplot.close("all")
            title = next((t for ax in figure.axes if (t := ax.get_title())), "the picture")
            alt, width = " ".join(title.split()), round(100 * figure.get_figwidth())
            options = f":alt: {alt}\n:width: {width}px"
            shown += f"\n\n```{{image}} /{PICTURES}/{picture.name}\n{options}\n```\n"
        elif value is not None:
            shown += f"\n\n```{{code-block}} text\n:class: output\n{value!r}\n```\n"
        return shown

    # Files that a page saves must not remain in the folder of the build.
    with tempfile.TemporaryDirectory() as aside, contextlib.chdir(aside), warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        source[0] = FENCE.sub(with_output, source[0])


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", execute)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
