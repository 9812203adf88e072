"""What the command loads, and how it runs if optional packages are missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = """
import contextlib, io, json, sys

class Missing:
    names = ()
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

def ran(missing, *argv):
    Missing.names = missing
    from repsim.cli import main
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(argv)
    heavy = ("torch", "typer", "rich", "numpy", "xarray", "pandas", "matplotlib")
    loaded = [name for name in heavy if name in sys.modules]
    return {"code": code, "out": out.getvalue(), "err": err.getvalue(), "loaded": loaded}

sys.meta_path.insert(0, Missing())
import repsim.cli
found = {"import": {"loaded": [n for n in ("torch", "typer", "rich", "numpy") if n in sys.modules]}}
for name in ("typer", "rich"):
    found[name] = ran([name], "--version")
for argv in (["--version"], ["--help"], ["measure", "--help"], ["compare", "--help"]):
    found[" ".join(argv)] = ran(["torch"], *argv)
found["arrays"] = ran(["torch"], "measure", "x.npy", "y.npy", "--test")
found["models"] = ran(["torch"], "compare", "timm:a", "timm:b", "--data", "inputs.npz")
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What commands did one after the other in a Python without torch."""
    folder = tmp_path_factory.mktemp("light")
    x = np.random.default_rng(0).standard_normal((40, 5))
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", x**3)
    np.savez(folder / "inputs.npz", inputs=x)
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
        env={**os.environ, "COLUMNS": "160"},
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_importing_the_command_loads_nothing_heavy(found):
    assert found["import"]["loaded"] == []


def test_a_missing_extra_is_reported(found):
    for name in ("typer", "rich"):
        assert found[name]["code"] == 1
        assert f"needs {name}" in found[name]["err"]
        assert f"Install it: pip install '{name}" in found[name]["err"]


def test_help_and_version_load_only_the_command_line_packages(found):
    for argv in ("--version", "--help", "measure --help", "compare --help"):
        assert found[argv]["code"] == 0
        assert found[argv]["loaded"] == ["typer", "rich"], argv


def test_arrays_need_no_torch(found):
    assert found["arrays"]["code"] == 0, found["arrays"]["err"]
    assert "p = 0.001" in found["arrays"]["out"]


def test_a_missing_torch_is_reported(found):
    assert found["models"]["code"] == 2
    assert "torch, which is not installed" in found["models"]["err"]
    assert "pip install 'torch>=" in found["models"]["err"]
    assert found["models"]["out"] == ""
