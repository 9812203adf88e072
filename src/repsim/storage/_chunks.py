"""Rows in Zarr: one array per layer, and one file with a checksum per chunk of rows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from repsim.storage._atomic import sync_file, sync_folder

__all__ = ["SAMPLE", "absent_chunk", "make_array", "sync_chunk"]

SAMPLE = "sample"
"""The dimension of the samples, and the array of their ids."""


def make_array(
    group: Any, name: str, rows: int, shape: tuple[int, ...], dtype: str, chunk: int
) -> Any:
    """Create the array of a layer, (rows, *shape), in chunks of `chunk` rows."""
    from zarr.codecs import Crc32cCodec

    return group.create_array(
        name,
        shape=(rows, *shape),
        chunks=(chunk, *shape),
        dtype=dtype,
        # A checksum makes a damaged chunk an error. No compression: activations hardly compress.
        compressors=[Crc32cCodec()],
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=(SAMPLE, *(f"{name}[{axis}]" for axis in range(1, len(shape) + 1))),
    )


def sync_chunk(array: Any, folder: Path, index: int) -> None:
    """Wait until a chunk, which Zarr has written aside and renamed, is on disk."""
    sync_file(_file(array, folder, index))
    sync_folder(folder)


def absent_chunk(array: Any, folder: Path, rows: int) -> str | None:
    """Describe the first chunk of these rows that is missing or truncated; None if none is."""
    size = None
    if array.dtype.kind in "fiub":
        size = math.prod(array.chunks) * array.dtype.itemsize + 4  # and a checksum
    for index in range(-(-rows // array.chunks[0])):
        file = _file(array, folder, index)
        if not file.exists():
            return f"{file.relative_to(folder.parent)} is missing"
        if size is not None and file.stat().st_size != size:
            return f"{file.relative_to(folder.parent)} has {file.stat().st_size} bytes, not {size}"
    return None


def _file(array: Any, folder: Path, index: int) -> Path:
    key: str = array.metadata.encode_chunk_key((index,) + (0,) * (array.ndim - 1))
    return folder / key
