"""Rows in Zarr: one array per layer, and one file with a checksum per chunk of rows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from repsim.storage._atomic import sync_file, sync_folder

__all__ = ["SAMPLE", "absent_chunk", "make_array", "sync_chunk", "unlike"]

SAMPLE = "sample"
"""The dimension of the samples, and the array of their ids."""


def make_array(
    group: Any, name: str, rows: int, shape: tuple[int, ...], dtype: str, chunk: int
) -> Any:
    """Create the array of a layer, (rows, *shape), in chunks of `chunk` rows.

    An array of this name, which holds no row that counts, is replaced.
    """
    from zarr.codecs import Crc32cCodec

    return group.create_array(
        name,
        shape=(rows, *shape),
        chunks=(chunk, *shape),
        dtype=dtype,
        overwrite=True,
        # A checksum makes a damaged chunk an error. No compression: activations hardly compress.
        compressors=[Crc32cCodec()],
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=(SAMPLE, *(f"{name}[{axis}]" for axis in range(1, len(shape) + 1))),
    )


def sync_chunk(array: Any, folder: Path, index: int) -> None:
    """Wait until a chunk, which Zarr has written aside and renamed, is on disk."""
    sync_file(_file(array, folder, index))
    sync_folder(folder)


def unlike(array: Any, rows: int, shape: tuple[int, ...], dtype: str, chunk: int) -> str | None:
    """Return in what an array differs from the array that was made; None if in nothing."""
    from zarr.codecs import Crc32cCodec

    kind = "str" if array.dtype.kind in "OT" else np.dtype(array.dtype).name
    for what, found, made in (
        ("dtype", kind, dtype if dtype == "str" else np.dtype(dtype).name),
        ("row", tuple(array.shape[1:]), tuple(shape)),
        ("chunk", tuple(array.chunks), (chunk, *shape)),
        ("checksum", [type(each) for each in array.compressors], [Crc32cCodec]),
    ):
        if found != made:
            return f"its {what} is {found}, not {made}"
    return f"it has {array.shape[0]} rows, not {rows}" if array.shape[0] < rows else None


def absent_chunk(array: Any, folder: Path, stop: int, start: int = 0) -> str | None:
    """Describe the first chunk of these rows that is missing or truncated; None if none is."""
    size = None
    if array.dtype.kind in "fiub":
        size = math.prod(array.chunks) * array.dtype.itemsize + 4  # and a checksum
    for index in range(start // array.chunks[0], -(-stop // array.chunks[0])):
        file = _file(array, folder, index)
        if not file.exists():
            return f"{file.relative_to(folder.parent)} is missing"
        if size is not None and file.stat().st_size != size:
            return f"{file.relative_to(folder.parent)} has {file.stat().st_size} bytes, not {size}"
    return None


def _file(array: Any, folder: Path, index: int) -> Path:
    key: str = array.metadata.encode_chunk_key((index,) + (0,) * (array.ndim - 1))
    return folder / key
