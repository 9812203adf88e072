"""What the command loads, and how it does without what is not installed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def python(script: str, *argv: str, cwd: object = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *argv],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        env={**os.environ, "COLUMNS": "160"},
    )


def without(name: str) -> str:
    """A command line in a Python that lacks a package."""
    return f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {name!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from repsim.cli import main
sys.exit(main())
"""


def test_importing_the_command_loads_nothing_heavy():
    ran = python(
        "import sys, repsim.cli; print([n for n in "
        "('torch', 'typer', 'rich', 'xarray', 'pandas', 'matplotlib') if n in sys.modules])"
    )
    assert ran.stdout.strip() == "[]", ran.stderr


def test_help_and_version_load_no_torch():
    script = "import sys; from repsim.cli import main; main(); print('torch' in sys.modules)"
    for argv in (["--version"], ["compare", "--help"]):
        assert python(script, *argv).stdout.splitlines()[-1] == "False"


def test_arrays_need_no_torch(arrays, tmp_path):
    ran = python(without("torch"), "measure", "x.npy", "y.npy", "--test", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "p = 0.001" in ran.stdout


def test_models_say_that_torch_is_missing(tmp_path, inputs):
    argv = ["compare", "timm:resnet18", "timm:resnet34", "--data", str(inputs)]
    ran = python(without("torch"), *argv, cwd=tmp_path)
    assert ran.returncode == 2
    assert "torch, which is not installed" in ran.stderr
    assert "'.[torch]'" in ran.stderr
    assert ran.stdout == ""


@pytest.mark.parametrize("name", ["timm", "torchvision", "transformers"])
def test_a_missing_library_of_models_is_named(repsim_command, monkeypatch, name):
    pytest.importorskip("torch")
    monkeypatch.setitem(sys.modules, name, None)
    ran = repsim_command("layers", f"{name}:resnet18")
    assert ran.code == 2
    assert f"{name}, which is not installed" in ran.err


@pytest.mark.parametrize("name", ["typer", "rich"])
def test_without_the_extra_it_says_so(name):
    ran = python(without(name), "--version")
    assert ran.returncode == 1
    assert "'.[cli]'" in ran.stderr
    assert "Traceback" not in ran.stderr
