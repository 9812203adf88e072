"""Every public name is on one page of the reference, and every docstring has the house's form."""

from __future__ import annotations

import collections
import importlib
import re
import sys
from pathlib import Path

import pytest
from numpydoc.validate import validate

import repsim
from repsim.measures import MEASURES

EXTENSIONS = str(Path(__file__).parents[2] / "docs" / "_ext")
sys.path.insert(0, EXTENSIONS)
try:
    import architecture
    import measure_pictures
    import public_names
    import reference_pages
finally:
    sys.path.remove(EXTENSIONS)

NAMES = public_names.all_names()
DOCUMENTED = re.compile(r"^\.\. (?:auto(?:function|class|exception)|py:data):: (\S+)$", re.M)

LEFT_OUT = {
    "ES01",  # a second paragraph may be missing if one sentence is enough
    "SA01",  # cross-references stand in the text
    "PR04",  # "prefix : as in attention_distance" has its type there
    "PR08",  # descriptions may begin with a symbol: "m ≥ 1."
    "RT04",  # and results with their dtype: "float64."
    "EX01",  # examples have no header: they stand directly below the summary
    "SS05",  # takes "Procrustes" for a verb
}
RECORDS = {"PR01"}  # fields of records stand under Attributes


def test_every_public_name_is_documented_once():
    found = collections.Counter(
        path for text in reference_pages.pages().values() for path in DOCUMENTED.findall(text)
    )
    assert found == collections.Counter(n.path for n in NAMES)
    exported = {name for name in repsim.__all__ if name != "__version__"}
    documented = {n.path.split(".")[1] for n in NAMES}
    assert exported <= documented | {"attention", "inference", "kernels", "plot"}


@pytest.mark.parametrize("package", public_names.OPEN)
def test_every_name_of_a_package_is_listed(package):
    module = importlib.import_module(f"repsim.{package}")
    values = {id(n.value) for n in NAMES}
    assert not [name for name in module.__all__ if id(getattr(module, name)) not in values]


@pytest.mark.parametrize("public", NAMES, ids=lambda n: n.path)
def test_docstring_is_in_house_form(public):
    text = public_names.docstring_of(public)
    assert text, "no docstring"
    if public.kind == "data":
        return
    faults = [
        f"{code} {message}"
        for code, message in validate(public.path)["errors"]
        if code not in LEFT_OUT | (RECORDS if public.kind != "function" else set())
    ]
    assert not faults
    if public.kind == "function" and public.path.count(".") == 1:
        for section in ("Parameters", "Returns|Yields", "Raises", "References"):
            assert re.search(rf"^(?:{section})\n---", text, re.M), f"no section {section}"
        assert ">>> " in text, "no example"
    if ">>> " in text:
        below_summary = text.split("\n\n")[1:3]  # a line may introduce the example
        assert any(part.startswith(">>> ") for part in below_summary), "the example is not first"


def test_docstrings_not_in_house_form_are_found():
    codes = {code for code, _ in validate("re.sub")["errors"]}
    assert {"PR01", "RT01"} <= codes


def test_a_page_for_every_measure_with_its_pitfalls():
    pages = reference_pages.pages()
    for m in MEASURES.values():
        page = pages[f"measures/{m.function.__name__}.md"]
        assert "## Before you trust it" in page
        assert m.reference in page
        assert m.cost in page


def test_the_picture_of_a_function_has_a_colour_for_each_row_of_it():
    rows = collections.Counter(m.function for m in MEASURES.values())
    assert max(rows.values()) <= len(set(measure_pictures.COLOURS))


def test_notes_belong_to_pages():
    titles = {Path(name).stem for name in reference_pages.pages()}
    assert {path.stem for path in reference_pages.NOTES.glob("*.md")} <= titles


def test_the_picture_of_the_layers_is_the_contract():
    rules = architecture.contracts()
    source = Path(repsim.__file__).parent
    rows = architecture.layers_of(rules, source)
    assert rows[-1] == ["_errors", "_missing", "_shown", "_typing"]
    packages = {
        p.stem for p in source.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()
    }
    assert {name for row in rows for name in row} == packages - {"__init__", "_version"}
    assert architecture.may_import(rules, "kernels") == []
    assert "torch" in architecture.may_import(rules, "capture")
    svg = architecture.diagram(rules, source)
    assert all(f">{name}</text>" in svg for row in rows for name in row)


def test_the_page_of_the_folders_names_what_there_is():
    source = Path(repsim.__file__).parent
    page = Path(EXTENSIONS).parent / "developers" / "architecture.md"
    listing, _, text = page.read_text().partition("src/repsim/\n")[2].partition("```")
    listed, above = set(), ""
    for indent, name in re.findall(r"^( +)(\w+)/ ", listing, re.M):
        above = above if len(indent) > 2 else name
        listed.add(name if above == name else f"{above}/{name}")
    folders = (path.parent.relative_to(source) for path in source.rglob("__init__.py"))
    assert listed == {path.as_posix() for path in folders if 0 < len(path.parts) < 3}
    for name in re.findall(r"`((?!tests|docs)[\w/]+\.py)`", text):
        assert (source / name).is_file() or name.startswith("coverage_"), name
