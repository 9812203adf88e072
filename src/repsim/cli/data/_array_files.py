"""Arrays in files: ``.npy`` as one array, ``.npz`` and stores of activations as named layers."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repsim.cli._outcome import DataError, UsageError

__all__ = ["read_each", "read_layers"]

NPY, ZIP = b"\x93NUMPY", b"PK"
"""How the two kinds of files begin."""

MATLAB_73 = b"MATLAB 7.3"
"""How a ``.mat`` of HDF5 begins, which SciPy does not read; h5py has its axes reversed."""

REPAIRS = {
    ".csv": "numpy.save('x.npy', numpy.loadtxt('x.csv', delimiter=','))",
    ".tsv": "numpy.save('x.npy', numpy.loadtxt('x.tsv', delimiter='\\t'))",
    ".txt": "numpy.save('x.npy', numpy.loadtxt('x.txt'))",
    ".pt": "numpy.save('x.npy', torch.load('x.pt').numpy())",
    ".pth": "numpy.save('x.npy', torch.load('x.pth').numpy())",
    ".safetensors": "numpy.savez('x.npz', **safetensors.numpy.load_file('x.safetensors'))",
    ".mat": "numpy.save('x.npy', scipy.io.loadmat('x.mat')['x'])",
    ".h5": "numpy.save('x.npy', h5py.File('x.h5')['x'][:])",
    ".hdf5": "numpy.save('x.npy', h5py.File('x.hdf5')['x'][:])",
    ".zarr": "numpy.save('x.npy', zarr.open_array('x.zarr')[:])",
}
"""How arrays of other files are written as a file that is read here."""


def read_layers(name: str) -> dict[str, Any]:
    """Return the arrays of a file by name, in its order; ``.npy`` as a memory map.

    The array of an ``.npy`` has the name of the file. Nothing is unpickled. The layers of a store
    of :func:`repsim.extract` keep the ids of their samples.

    Raises
    ------
    UsageError
        The file does not exist, or the folder is no store.
    DataError
        It is not a file of numbers.
    StateError, CheckpointError
        The store is damaged, or cannot be read.
    """
    path = Path(name).expanduser()
    if not path.exists():
        raise UsageError(f"there is no such file.\n  got {name}")
    if _is_store(path):
        from repsim import open_activations

        return {str(key): layer for key, layer in open_activations(path).data_vars.items()}
    try:
        _require_arrays(path, name)
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(found, np.ndarray):
            return {path.stem: found}
        with found:
            layers = {key: found[key] for key in found.files}
    except (MemoryError, DataError, UsageError):
        raise
    # Errors of reading, and of NumPy and zipfile for damaged files and files of another kind.
    except Exception as error:
        raise DataError(
            f"the file cannot be read as arrays of numbers.\n  {name}: {error}\n"
            f"  {_repair(str(error))}"
        ) from error
    if not layers:
        raise DataError(f"the file holds no array.\n  got {name}")
    return layers


def _repair(said: str) -> str:
    """Return what to do about an error of NumPy."""
    if "objects in dtype" in said or "Object arrays" in said:
        return (
            "Write numbers: numpy.save(path, x.astype('float32')), or for several arrays "
            "numpy.savez(path, layer1=x1, layer2=x2)."
        )
    if "mmap length" in said:
        return "The file ends too early: copy it or write it again."
    return "Write it with numpy.save, or numpy.savez(path, layer1=x1, layer2=x2)."


def _is_store(path: Path) -> bool:
    """Whether a folder is a store of activations, by the format that it names."""
    about = path / "zarr.json"
    if not about.is_file():
        return False
    try:
        attributes = json.loads(about.read_bytes()).get("attributes", {})
    except ValueError:
        return False
    return str(attributes.get("format", "")).startswith("repsim.activations")


def _require_arrays(path: Path, name: str) -> None:
    """Raise if a file is neither .npy nor .npz by its first bytes, or holds other things too.

    NumPy takes any other file for a pickle, and says how to load it unsafely.
    """
    kind = "a folder" if path.is_dir() else "another kind of file"
    if path.is_dir() and path.suffix != ".zarr":
        raise UsageError(
            f"measure takes files, not folders.\n  {name}: a folder\n"
            f"  Name its files, for example {path / '*.npy'}, or a store of repsim.extract."
        )
    repair = REPAIRS.get(path.suffix.lower(), "numpy.save('x.npy', x)")
    if path.is_file():
        with path.open("rb") as file:
            begin = file.read(len(MATLAB_73))
        if begin.startswith(NPY):
            return
        if begin == MATLAB_73:
            repair = "numpy.save('x.npy', h5py.File('x.mat')['x'][:].T)"
        if begin.startswith(ZIP) and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as file:
                others = [each for each in file.namelist() if not each.endswith(".npy")]
            if not others:
                return
            kind = f"an archive with {others[0]!r}"
    raise DataError(
        f"the file must be an .npy or .npz of NumPy.\n  {name}: {kind}\n"
        f"  Write its arrays with NumPy first, for example {repair}."
    )


def read_each(files: Sequence[str]) -> dict[str, Any]:
    """Return the one array of each file, named as the file, or by its path where names repeat.

    Raises
    ------
    UsageError
        There is no such file, it holds several arrays, or it is named twice.
    DataError
        It is not a file of numbers.
    """
    arrays: dict[str, Any] = {}
    for name in files:
        layers = read_layers(name)
        if len(layers) > 1:
            raise UsageError(
                "measure: each of more than two files must hold a single array.\n"
                f"  {name} holds {len(layers)}: {', '.join(list(layers)[:4])}"
                f"{', ...' if len(layers) > 4 else ''}\n"
                "  Write all arrays to one .npz, or each to an .npy."
            )
        if os.path.abspath(name) in map(os.path.abspath, arrays):
            raise UsageError(
                f"measure: a file is named twice.\n  got {name}\n  Name each file once."
            )
        (arrays[name],) = layers.values()
    labels = [Path(name).stem for name in files]
    if len(set(labels)) < len(labels):
        labels = [str(Path(name).with_suffix("")) for name in files]
    if len(set(labels)) < len(labels):  # x.npy and x.npz
        labels = list(files)
    return dict(zip(labels, arrays.values(), strict=True))
