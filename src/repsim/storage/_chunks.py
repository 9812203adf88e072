"""Rows in Zarr: one array per layer, and one object with a checksum per chunk of rows."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["SAMPLE", "make_array", "unlike"]

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
