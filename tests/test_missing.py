"""A package that is not installed is named, with a line that installs it from any index."""

from __future__ import annotations

import subprocess
import sys

import pytest
from packaging.requirements import Requirement

NAMES = {
    "torch": ["repsim.compare", "repsim.Recorder", "repsim.trajectory", "repsim.extract"],
    "matplotlib": ["repsim.plot"],
    "xarray": ["repsim.report"],
}


@pytest.mark.parametrize("package", NAMES)
def test_of_a_name_of_the_library(package):
    code = f"""
import sys
sys.modules[{package!r}] = None
import repsim
for name in {NAMES[package]}:
    try:
        eval(name)
    except ModuleNotFoundError as error:
        print(str(error).replace(chr(10), ' | '), '|', error.name)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = run.stdout.splitlines()
    assert len(lines) == len(NAMES[package])
    for name, line in zip(NAMES[package], lines, strict=True):
        what, install, missing = map(str.strip, line.split("|"))
        assert what == f"{name} needs {package}, which is not installed."
        command, requirement = install.removeprefix("Install it: ").split(" '")
        assert command == "pip install"
        # No extra of a checkout: repsim itself may come from a file.
        assert Requirement(requirement.rstrip("'")).name == package
        assert missing.partition(".")[0] == package


def test_of_the_store_of_activations(tmp_path, monkeypatch):
    import repsim

    repsim.open_activations  # noqa: B018 - loads the module
    monkeypatch.setitem(sys.modules, "zarr", None)
    (tmp_path / "run.zarr").mkdir()
    (tmp_path / "run.zarr" / "zarr.json").write_text("{}")
    with pytest.raises(ModuleNotFoundError, match="(?s)open_activations needs zarr.*'zarr>=3"):
        repsim.open_activations(tmp_path / "run.zarr")


def test_another_missing_module_is_told_as_it_is(monkeypatch):
    import repsim

    monkeypatch.setitem(sys.modules, "repsim.analysis", None)
    vars(repsim).pop("compare", None)
    with pytest.raises(ModuleNotFoundError, match="import of repsim.analysis halted"):
        repsim.compare  # noqa: B018
