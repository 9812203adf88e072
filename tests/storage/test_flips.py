"""If one bit of a file changes, the file is refused by name, or the same data come back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import repsim
from repsim.report import load_results, save_result
from repsim.storage import Checkpoint

FLIPS = 200


def flips(folder: Path, count: int, seed: int):
    """Change one random bit of a random file at a time."""
    rng = np.random.default_rng(seed)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for _ in range(count):
        file = files[rng.integers(len(files))]
        whole = file.read_bytes()
        changed = bytearray(whole)
        changed[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        file.write_bytes(changed)
        yield file
        file.write_bytes(whole)


def attempt(load):
    """Return what is loaded, or the error of ours."""
    try:
        return load(), None
    except repsim.StateError as error:
        return None, str(error)


def outcomes(folder, load, same, named, count=FLIPS):
    """Count the flips that were refused and those that changed nothing."""
    refused = unchanged = 0
    for file in flips(folder, count, seed=0):
        found, said = attempt(load)
        if said is None:
            same(found)
            unchanged += 1
        else:
            assert named(file) in said, file
            refused += 1
    return refused, unchanged


def test_a_checkpoint(tmp_path):
    path = tmp_path / "sums.npz"
    saved = Checkpoint(path, operation="sums", fingerprint={"n": 3, "layers": ["norm", "head"]})
    arrays = {"sums": np.random.default_rng(0).standard_normal((3, 5)), "n": np.array(3)}
    saved.save(arrays)

    def same(found):
        assert found.keys() == arrays.keys()
        for name, values in arrays.items():
            assert found[name].dtype == values.dtype
            np.testing.assert_array_equal(found[name], values)

    refused, unchanged = outcomes(tmp_path, saved.load, same, lambda _: str(path))
    assert refused > unchanged  # bytes of the archive without meaning: dates, flags


def test_a_result_file(tmp_path):
    result = xr.Dataset(
        {"cka": (("layer_x", "layer_y"), [[1.0, 0.25]], {"units": "1"})},
        {"layer_x": ["norm"], "layer_y": ["norm", "tête"]},
        {"kernel": "Linear()", "n_samples": 512},
    )
    path = save_result(tmp_path, "run", result)

    def load():
        return load_results(tmp_path)["run"]

    assert outcomes(tmp_path, load, result.identical, lambda _: str(path)) == (FLIPS, 0)


@pytest.fixture(scope="module", params=["finished", "copied", "ids of text"])
def store(request, tmp_path_factory):
    """A store of several chunks; a copied one has no journal."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    data = [
        {"input": torch.randn(5, 3).double(), "id": [f"é{k}{i}" for i in range(5)]} for k in "ab"
    ]
    out = tmp_path_factory.mktemp("flips") / "run.zarr"
    options = {"sample_ids": lambda batch: batch["id"]} if request.param == "ids of text" else {}
    options |= {"forward": lambda model, batch: model(batch["input"]), "memory": 512}
    repsim.extract(net, data, out=out, progress=False, **options)
    if request.param == "copied":
        out.with_name("run.zarr.journal").unlink()
    return out


@pytest.mark.parametrize("count", [30, pytest.param(FLIPS, marks=pytest.mark.slow)])
def test_a_store(store, count):
    whole = repsim.open_activations(store).load()

    def load():
        return repsim.open_activations(store).load()

    def same(found):
        assert found.identical(whole), json.dumps(found.attrs)

    def named(file):
        if file.parent.parent != store:  # the journal, or the metadata of the whole store
            return str(store)
        return f"{store}, layer {file.parent.name!r}"

    refused, unchanged = outcomes(store.parent, load, same, named, count)
    assert refused > unchanged


@pytest.mark.slow
def test_going_on_with_a_damaged_store(tmp_path):
    """An unfinished run is refused by name, or goes on to the same bits."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    data = [torch.randn(5, 3).double() for _ in range(3)]

    def stopping():
        yield from data[:2]
        raise OSError("loader")

    begun = tmp_path / "begun" / "run.zarr"
    begun.parent.mkdir()
    with pytest.raises(OSError, match="loader"):
        repsim.extract(net, stopping(), out=begun, progress=False, memory=512)
    with torch.no_grad():
        expected = torch.cat([net(x) for x in data]).numpy()
    for number, file in enumerate(flips(begun.parent, 60, seed=1)):
        again = tmp_path / str(number)
        shutil.copytree(begun.parent, again)

        def load(out=again / "run.zarr"):
            return repsim.extract(net, data, out=out, progress=False, memory=512).load()

        found, said = attempt(load)
        if said is None:
            np.testing.assert_array_equal(found["2"].values, expected)
        else:
            assert str(again / "run.zarr") in said, file
