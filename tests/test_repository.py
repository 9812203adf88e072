"""The files that hosts and citation tools read are complete."""

import subprocess
from pathlib import Path

import pytest

import repsim

ROOT = Path(__file__).parents[1]
yaml = pytest.importorskip("yaml")


def test_the_citation_has_the_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == repsim.__version__
    assert {"cff-version", "message", "title", "authors", "license"} <= set(cited)


def test_every_issue_form_asks_for_what_can_be_printed():
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert len(forms) == 3
    for path in forms:
        form = yaml.safe_load(path.read_text())
        assert {"name", "description", "body"} <= set(form), path.name
        ids = [field["id"] for field in form["body"]]
        assert len(set(ids)) == len(ids)
        assert any(field.get("validations", {}).get("required") for field in form["body"])
        if path.stem != "idea":
            assert "versions" in ids


def test_security_and_conduct_are_told():
    for name in ("SECURITY.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "LICENSE"):
        assert len((ROOT / name).read_text()) > 300


def test_the_repository_holds_text_and_the_pictures_of_the_documentation():
    """Arrays and weights that an example writes into the working folder are easily added."""
    if not (ROOT / ".git").exists():
        pytest.skip("an archive without its history")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    names = listing.stdout.decode().strip("\0").split("\0")
    assert "README.md" in names
    for path in (ROOT / name for name in names if (ROOT / name).exists()):
        if path.parent != ROOT / "docs" / "images":
            assert b"\0" not in path.read_bytes(), path
            path.read_text(encoding="utf-8")
