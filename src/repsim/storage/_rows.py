"""Rows of a store, read on access; whatever is wrong with the store becomes an error of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

from repsim._errors import CheckpointError, RepsimError, StateError
from repsim.storage._chunks import absent_chunk

__all__ = ["StoredRows", "damaged", "reading"]


class StoredRows(BackendArray):
    """The first rows of an array of a store.

    Parameters
    ----------
    array : zarr.Array
        (rows, ...), with at least `rows` rows.
    rows : int
        How many rows count.
    store, folder : pathlib.Path
        The store, and the folder of the array in it.
    label : str
        The array, for errors.
    """

    def __init__(self, array: Any, rows: int, store: Path, folder: Path, label: str) -> None:
        self._array, self._store, self._folder, self._label = array, store, folder, label
        self.shape = (rows, *array.shape[1:])
        self.dtype = np.dtype(object) if array.dtype.kind in "OT" else array.dtype

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> Any:
        rows = key[0]
        wanted = np.arange(self.shape[0])[rows] if isinstance(rows, slice) else np.atleast_1d(rows)
        with reading("open_activations", self._store, self._label):
            if wanted.size:
                first, stop = int(wanted.min()), int(wanted.max()) + 1
                # Zarr reads zeros where a chunk is missing.
                if absent := absent_chunk(self._array, self._folder, stop, first):
                    raise damaged("open_activations", self._store, self._label, absent)
            if isinstance(rows, slice):  # one without an end would reach rows that do not count
                key = (slice(*rows.indices(self.shape[0])), *key[1:])
            basic = all(isinstance(each, int | np.integer | slice) for each in key)
            found = self._array[key] if basic else self._array.oindex[key]
            return np.asarray(found, dtype=self.dtype) if self.dtype == object else found


@contextmanager
def reading(operation: str, store: Path, label: str | None = None) -> Iterator[None]:
    """Turn errors about an unreadable store into errors that name it and the layer."""
    try:
        yield
    except RepsimError:
        raise
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise damaged(operation, store, label, str(error)) from error
        raise CheckpointError(
            f"{operation}: the store cannot be read.\n"
            f"  {_place(store, label)}: {error.strerror or error}\n"
            f"  Check its permissions."
        ) from error
    # Zarr has errors of many types for damaged metadata and chunks, and so has JSON.
    except Exception as error:
        raise damaged(operation, store, label, f"{type(error).__name__}: {error}") from error


def damaged(operation: str, store: Path, label: str | None, why: str) -> StateError:
    """Return the error about a store that is not as it was written."""
    return StateError(
        f"{operation}: the store is damaged.\n  {_place(store, label)}: {why}\n"
        f"  Restore it from a copy; or delete it and {store.name}.journal, and extract again."
    )


def _place(store: Path, label: str | None) -> str:
    return f"{store}" if label is None else f"{store}, layer {label!r}"
