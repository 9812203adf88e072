"""Arrays in files: ``.npy`` as one array, ``.npz`` as named layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repsim.cli._outcome import DataError, UsageError

__all__ = ["read_each", "read_layers"]


def read_layers(name: str) -> dict[str, Any]:
    """Return the arrays of a file by name, in its order; ``.npy`` as a memory map.

    The array of an ``.npy`` has the name of the file. Nothing is unpickled.

    Raises
    ------
    UsageError
        There is no such file.
    DataError
        It is not a file of numbers.
    """
    path = Path(name)
    if not path.is_file():
        raise UsageError(f"there is no such file.\n  got {name}")
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(found, np.ndarray):
            return {path.stem: found}
        with found:
            layers = {key: found[key] for key in found.files}
    except MemoryError:
        raise
    # Errors of NumPy and zipfile for a damaged file, and for a file of another kind.
    except Exception as error:
        raise DataError(
            f"the file cannot be read as arrays of numbers.\n  {name}: {error}\n"
            f"  Write it with numpy.save, or numpy.savez(path, layer1=x1, layer2=x2)."
        ) from error
    if not layers:
        raise DataError(f"the file holds no array.\n  got {name}")
    return layers


def read_each(files: Sequence[str]) -> dict[str, Any]:
    """Return the one array of each file, named as the file, or by its path if names repeat.

    Raises
    ------
    UsageError
        There is no such file, it holds several arrays, or it is named twice.
    DataError
        It is not a file of numbers.
    """
    arrays = {}
    for name in files:
        layers = read_layers(name)
        if len(layers) > 1:
            raise UsageError(
                "measure: each of more than two files must hold a single array.\n"
                f"  {name} holds {len(layers)}: {', '.join(list(layers)[:4])}"
                f"{', ...' if len(layers) > 4 else ''}\n"
                "  Write all arrays to one .npz, or each to an .npy."
            )
        if name in arrays:
            raise UsageError(
                f"measure: a file is named twice.\n  got {name}\n  Name each file once."
            )
        (arrays[name],) = layers.values()
    stems = [Path(name).stem for name in files]
    if len(set(stems)) < len(stems):
        stems = [str(Path(name).with_suffix("")) for name in files]
    return dict(zip(stems, arrays.values(), strict=True))
