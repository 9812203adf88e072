"""Limits for files, functions and folders, and no private names in tests."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import Counter
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "repsim"
FILES = sorted(SOURCE.rglob("*.py"))
ROOT_FILES = {path.stem for path in SOURCE.glob("*.py")}
NOT_CODE = (
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
    tokenize.ENDMARKER,
)  # fmt: skip


def lines_of_code(text: str) -> set[int]:
    """The numbers of the lines that hold more than a comment."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NOT_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines


def bodies(text: str) -> dict[str, int]:
    """Lines of code in the body of each function, its docstring and its arguments left out."""
    code = lines_of_code(text)
    found = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            start = 1 if ast.get_docstring(node) is not None else 0
            body = node.body[start:]
            first = body[0].lineno if body else node.end_lineno + 1
            found[f"{node.name}, line {node.lineno}"] = len(
                [n for n in code if first <= n <= node.end_lineno]
            )
    return found


def test_lines_of_a_body_are_counted_without_docstring_and_comments():
    head = 'def f(\n    a,\n):\n    """One.\n\n    Two.\n    """\n'
    text = head + "    # why\n    b = (\n        a\n    )\n\n    return b\n"
    assert bodies(text) == {"f, line 1": 4}


def test_no_file_is_longer_than_350_lines():
    long = {p.name: n for p in FILES if (n := len(p.read_text().splitlines())) > 350}
    assert not long


def test_no_function_has_more_than_60_lines_of_code():
    long = {
        f"{path.name}:{name}": n
        for path in FILES
        for name, n in bodies(path.read_text()).items()
        if n > 60
    }
    assert not long


def swallowing(text: str) -> list[int]:
    """The lines of handlers of all errors that neither pass the error on nor say why.

    A comment in or above the line says why.
    """
    lines, found = text.splitlines(), []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        passes_on = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
        here = lines[node.lineno - 1], lines[node.lineno - 2]
        says_why = "#" in here[0] or here[1].lstrip().startswith("#")
        if ast.unparse(node.type or ast.Name("BaseException")) in ("Exception", "BaseException"):
            found += [] if passes_on or says_why else [node.lineno]
    return found


def test_handlers_of_all_errors_are_recognised():
    head = "try:\n    f()\n"
    assert swallowing(head + "except Exception:\n    pass") == [3]
    assert swallowing(head + "except:\n    x = 1") == [3]
    assert swallowing(head + "except Exception as error:\n    raise ValueError from error") == [3]
    assert not swallowing(head + "except BaseException:\n    close()\n    raise")
    assert not swallowing(head + "except Exception:  # of any type\n    x = 1")
    assert not swallowing(head + "except ValueError:\n    pass")


def test_every_handler_of_all_errors_passes_them_on_or_says_why():
    found = {path.name: lines for path in FILES if (lines := swallowing(path.read_text()))}
    assert not found


def test_no_folder_has_more_than_14_files():
    """Except `measures`, where every file is one measure."""
    counts = Counter(path.parent.relative_to(SOURCE).as_posix() for path in FILES)
    many = {folder: n for folder, n in counts.items() if n > 14 and folder != "measures"}
    assert not many


def test_the_namespace_of_arrays_has_one_source():
    """Not array-api-compat's: NumPy's is NumPy itself, so that both cannot meet."""
    others = [
        path.name
        for path in FILES
        if "array_api_compat" in (text := path.read_text())
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.module == "array_api_compat"
        if "array_namespace" in {each.name for each in node.names}
    ]
    assert others == ["_namespace.py"]


IN_TEXT = re.compile(r"from (repsim[\w.]*) import (\w+)|(repsim(?:\.\w+)+)")
PRIVATE = re.compile(r"repsim(\.\w+)*\._[a-z]")


def private_names(text: str) -> list[str]:
    """The names of repsim beginning with an underscore that a file imports, asks for or patches."""
    tree, here, found = ast.parse(text), {"repsim": "repsim"}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            here |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
        elif isinstance(node, ast.Import):
            found += [each.name for each in node.names]
    found += here.values()
    for node in ast.walk(tree):
        # Every private part of a chain of names is an attribute, so the others need no look.
        if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            root, _, rest = ast.unparse(node).partition(".")
            found.append(f"{here.get(root)}.{rest}")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found += [whole or f"{a}.{b}" for a, b, whole in IN_TEXT.findall(node.value)]
    return sorted({name for name in found if PRIVATE.match(name)})


def test_private_names_are_recognised():
    for text in (
        "from repsim.storage._journal import Journal",
        "from repsim.storage import _journal",
        "import repsim.storage._journal",
        "repsim.inference._groups.resolve_groups(3)",
        "from repsim import inference as tests\ntests._groups.resolve_groups(3)",
        "monkeypatch.setattr('repsim.streaming._pairs.CHUNK', 3)",
        "subprocess.run('from repsim.storage import _journal')",
    ):
        assert private_names(text), text
    assert not private_names("from repsim import __version__\nself._repsim = repsim.cka")


def test_no_test_and_no_benchmark_knows_a_private_name():
    """Except the tests of the tree itself, which name its files."""
    root = SOURCE.parents[1]
    files = [path for folder in ("tests", "benchmarks") for path in (root / folder).rglob("*.py")]
    about_the_tree = {"test_house.py", "test_imports.py"}
    assert len(files) > 200
    known = {
        path.name: names
        for path in files
        if path.name not in about_the_tree and (names := private_names(path.read_text()))
    }
    assert not known


def private_imports(text: str, package: str) -> list[str]:
    """The private modules and names of other packages of repsim that a file imports."""
    return sorted(
        f"{node.module}.{each.name}"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.module
        for each in node.names
        for owner, *parts in [f"{node.module}.{each.name}".removeprefix("repsim.").split(".")]
        if node.module.startswith("repsim.") and owner not in (package, *ROOT_FILES)
        if any(part.startswith("_") for part in parts)
    )


def test_no_package_imports_what_is_private_to_another():
    """What packages share stands in an ``__init__``; files at the root are there for all."""
    assert private_imports("from repsim.storage._any import name", "capture")
    assert private_imports("from repsim.capture.tokens import _any", "analysis")
    allowed = "from repsim._errors import warn\nfrom repsim.storage import name\n"
    assert not private_imports(f"{allowed}from repsim.capture._any import name", "capture")
    found = {}
    for path in FILES:
        package = path.relative_to(SOURCE).parts[0]
        if names := private_imports(path.read_text(), package):
            found[path.relative_to(SOURCE).as_posix()] = names
    assert not found


def test_no_folder_has_the_name_of_a_public_function():
    import repsim

    folders = {path.parent.relative_to(SOURCE).as_posix() for path in FILES} - {"."}
    names = {folder.rpartition("/")[2] for folder in folders}
    assert not {
        name for name in repsim.__all__ if name in names and callable(getattr(repsim, name))
    }
