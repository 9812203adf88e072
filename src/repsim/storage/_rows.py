"""Rows of a store, read on access; whatever is wrong with the store becomes an error of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

from repsim._errors import CheckpointError, RepsimError, StateError
from repsim.storage.places._address import Place

__all__ = ["StoredRows", "damaged", "reading", "writing"]


class StoredRows(BackendArray):
    """The first rows of an array of a store.

    Parameters
    ----------
    array : zarr.Array
        (rows, ...), with at least `rows` rows.
    rows : int
        How many rows count.
    place : Place
        The store.
    folder : str
        The folder of the array in it.
    label : str
        The array, for errors.
    """

    def __init__(self, array: Any, rows: int, place: Place, folder: str, label: str) -> None:
        self._array, self._place, self._folder, self._label = array, place, folder, label
        self.shape = (rows, *array.shape[1:])
        self.dtype = np.dtype(object) if array.dtype.kind in "OT" else array.dtype

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self.read
        )

    def read(self, key: tuple[Any, ...]) -> Any:
        """Return the values at a number, slice or array of numbers for each axis."""
        rows = key[0]
        wanted = np.arange(self.shape[0])[rows] if isinstance(rows, slice) else np.atleast_1d(rows)
        with reading("open_activations", self._place, self._label):
            if wanted.size:
                first, stop = int(wanted.min()), int(wanted.max()) + 1
                # Zarr reads zeros where a chunk is missing.
                if lost := self._place.lost(self._array, self._folder, stop, first):
                    raise damaged("open_activations", self._place, self._label, lost)
            if isinstance(rows, slice):  # one without an end would reach rows that do not count
                key = (slice(*rows.indices(self.shape[0])), *key[1:])
            basic = all(isinstance(each, int | np.integer | slice) for each in key)
            found = self._array[key] if basic else self._array.oindex[key]
            return np.asarray(found, dtype=self.dtype) if self.dtype == object else found


@contextmanager
def reading(operation: str, place: Place, label: str | None = None) -> Iterator[None]:
    """Turn errors about an unreadable store into errors that name it and the layer."""
    try:
        yield
    except RepsimError:
        raise
    except MemoryError as error:
        raise StateError(
            f"{operation}: there is too little memory to read these values.\n"
            f"  {_place(place, label)}: {str(error) or 'MemoryError'}\n"
            f"  Read fewer rows or layers at a time. If these are few, the store is damaged."
        ) from error
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise damaged(operation, place, label, str(error)) from error
        raise CheckpointError(
            f"{operation}: the store cannot be read.\n"
            f"  {_place(place, label)}: {error.strerror or error}\n"
            f"  Check its permissions."
        ) from error
    # Zarr has errors of many types for damaged metadata and chunks, and so has JSON.
    except Exception as error:
        raise damaged(operation, place, label, f"{type(error).__name__}: {error}") from error


@contextmanager
def writing(operation: str, place: Place, there: str) -> Iterator[None]:
    """Turn errors of a disk or an object store into a CheckpointError that says what is stored."""
    try:
        yield
    except OSError as error:
        if isinstance(error, RepsimError):
            raise
        raise CheckpointError(
            f"{operation}: the store cannot be written.\n"
            f"  {place}: {error.strerror or error}; {there}\n"
            f"  Free some space or make the place writable, then call again with the same "
            f"arguments: it goes on from there."
        ) from error


def damaged(operation: str, place: Place, label: str | None, why: str) -> StateError:
    """Return the error about a store that is not as it was written."""
    return StateError(
        f"{operation}: the store is damaged.\n  {_place(place, label)}: {why}\n"
        f"  Restore it from a copy; or delete {place.parts_to_delete}, and extract again."
    )


def _place(place: Place, label: str | None) -> str:
    return f"{place}" if label is None else f"{place}, layer {label!r}"
