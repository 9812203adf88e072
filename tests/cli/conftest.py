"""Running the command as a user would, in this process."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from repsim.cli import main


@dataclass
class Ran:
    """The exit code, the output and the files of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which has to be one JSON value and nothing else."""
        return json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.fixture
def repsim_command(capsys, tmp_path, monkeypatch):
    """A function that runs ``repsim`` with these arguments in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.syspath_prepend(str(tmp_path))  # and take back what the command puts there

    def run(*argv: object) -> Ran:
        capsys.readouterr()
        code = main([str(each) for each in argv])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def arrays(tmp_path):
    """``x.npy``, ``y.npy`` of the same samples, and what is in them."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 5))
    y = x @ rng.standard_normal((5, 7)) + 0.5 * rng.standard_normal((40, 7))
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    return x, y


@pytest.fixture
def layers(tmp_path, arrays):
    """``layers.npz``: two layers of the same samples, and what is in them."""
    x, y = arrays
    found = {"early": x, "late": np.tanh(y)}
    np.savez(tmp_path / "layers.npz", **found)
    return found


@pytest.fixture
def inputs(tmp_path) -> Path:
    """``inputs.npz``: 40 samples that models get as they are, and labels."""
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "inputs.npz",
        inputs=rng.standard_normal((40, 6)).astype(np.float32),
        labels=np.arange(40) % 2,
    )
    return tmp_path / "inputs.npz"


@pytest.fixture
def tiny():
    """The models that a command line names ``cli.tiny_models:...``."""
    pytest.importorskip("torch")
    from cli import tiny_models

    return tiny_models


@pytest.fixture
def counted(monkeypatch):
    """The file in which ``cli.tiny_models:counted`` writes a line for each of its forwards."""
    monkeypatch.setenv("COUNTED", "forwards")
    return Path("forwards")


@pytest.fixture
def greys(tmp_path) -> Path:
    """``greys``: images 0 to 11 of cats and 12 to 23 of dogs; all pixels of image k are 10 k."""
    for name, first in (("cat", 0), ("dog", 12)):
        (tmp_path / "greys" / name).mkdir(parents=True)
        for at in range(first, first + 12):
            image = Image.new("RGB", (9 + at, 12), (10 * at,) * 3)
            image.save(tmp_path / "greys" / name / f"{at:02}.png")
    return tmp_path / "greys"


@pytest.fixture
def seen(repsim_command, tmp_path, monkeypatch):
    """A function that runs ``repsim compare`` on models that keep what they get.

    It returns the outcome of the command, and the inputs in the order of the forwards.
    """
    monkeypatch.setenv("SEEN", "seen")

    def run(*argv: object, models: tuple[str, ...] = ("seeing",)) -> tuple[Ran, list[Any]]:
        import torch

        shutil.rmtree("seen", ignore_errors=True)
        Path("seen").mkdir()
        names = [f"cli.tiny_models:{name}" for name in models]
        ran = repsim_command("compare", *names, "--layers", "1", "--no-progress", *argv)
        return ran, [torch.load(path) for path in sorted(Path("seen").iterdir())]

    return run


@pytest.fixture
def folder(tmp_path) -> Path:
    """``photos``: 24 images of two classes, of different sizes, and a file that is none."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for at in range(12):
            pixels = rng.integers(0, 255, (36 + at, 44, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{at:02}.png")
    (tmp_path / "photos" / "notes.txt").write_text("not an image")
    return tmp_path / "photos"
