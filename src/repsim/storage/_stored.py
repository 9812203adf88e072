"""One store of activations as it lies on disk: its plan, its rows, and whether it is finished."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from repsim._errors import StateError
from repsim.storage._chunks import SAMPLE, unlike
from repsim.storage._names import folders_of
from repsim.storage._plan import columns_of
from repsim.storage.places._address import Place, zarr_for

if TYPE_CHECKING:
    import xarray

    from repsim.storage._rows import StoredRows

__all__ = [
    "FORMAT",
    "SEAL",
    "Stored",
    "as_dataset",
    "group_of",
    "no_store",
    "rows_of_place",
    "sealed",
]

FORMAT = "repsim.activations/2"

SEAL = "repsim_attributes_sha256"
"""The attribute of a store with the checksum of all others."""


@dataclass(frozen=True)
class Stored:
    """What lies at one place.

    Attributes
    ----------
    plan : mapping, optional
        Layers and coordinates, as :func:`plan_of` returned them; None if there was no batch.
    rows : int
        How many rows are safely there.
    attrs : dict
        The attributes of the group.
    columns : dict of str to StoredRows
        Every array, which is read on access.
    """

    plan: Mapping[str, Any] | None
    rows: int
    attrs: dict[str, Any]
    columns: dict[str, StoredRows]

    @property
    def is_finished(self) -> bool:
        """Whether the run that wrote the rows came to its end."""
        return self.attrs.get("format") == FORMAT and self.attrs["n_samples"] == self.rows


def rows_of_place(operation: str, place: Place) -> Stored:
    """Return what lies at a place, after checking that no chunk is missing.

    Parameters
    ----------
    operation : str
        The caller's name, for errors.
    place : Place
        Where.

    Raises
    ------
    StateError
        There is no store of activations, or it or its journal is damaged.
    CheckpointError
        It cannot be read.
    """
    entries = place.entries(operation) if place.has_journal() else []
    group = group_of(operation, place, "r")
    attrs = dict(group.attrs)
    plan = next((entry for entry in entries if "layers" in entry), None)
    rows = next((entry["rows"] for entry in reversed(entries) if "rows" in entry), 0)
    made = entries[0].get("format") if entries else attrs.get("format")
    if made != FORMAT:
        raise no_store(operation, place, made, journal=plan is not None)
    if plan is None and attrs.get("format") == FORMAT:
        plan, rows = attrs.get("plan"), attrs["n_samples"]
    columns = {} if plan is None else _columns(operation, place, group, plan, rows)
    return Stored(plan, rows, attrs, columns)


def no_store(operation: str, place: Place, made: object, *, journal: bool) -> StateError:
    """Return the error about a group that holds no activations."""
    return StateError(
        f"{operation}: this is not a store of activations, or it has no batch.\n"
        f"  {place}: of format {made!r}, expected {FORMAT!r}; "
        f"{'a journal' if journal else 'no journal'} with rows beside it\n"
        f"  Pass what was out= in repsim.extract."
    )


def _columns(
    operation: str, place: Place, group: Any, plan: Mapping[str, Any], rows: int
) -> dict[str, StoredRows]:
    from repsim.storage._rows import StoredRows, damaged, reading

    found, columns = {}, columns_of(plan)
    for name, folder in folders_of(columns).items():
        shape, dtype = columns[name]
        with reading(operation, place, name):
            array = group[folder]
            why = unlike(array, rows, tuple(shape), dtype, plan["chunk"])
            # Zarr reads zeros for a missing chunk.
            why = why or place.absent(array, folder, rows)
            if why:
                raise damaged(operation, place, name, why)
        found[name] = StoredRows(array, rows, place, folder, name)
    return found


def as_dataset(plan: Mapping[str, Any], columns: Mapping[str, Any]) -> xarray.Dataset:
    """Return the layers and coordinates of a store, which are read on access.

    Parameters
    ----------
    plan : mapping
        As :func:`plan_of` returned it.
    columns : mapping of str to array or BackendArray
        Every array by name, (n, ...).
    """
    import numpy as np
    import xarray
    from xarray.core import indexing

    masked = plan.get("masked", {})
    variables = {}
    for name, (shape, _) in columns_of(plan).items():
        dims = [SAMPLE, *(f"{name}[{axis}]" for axis in range(1, len(shape) + 1))]
        if mask := name if name in masked.values() else masked.get(name):
            dims[1] = mask.replace("mask", "token", 1)
        values: Any = columns[name]
        if not isinstance(values, np.ndarray):
            lazy: Any = indexing.LazilyIndexedArray(values)
            values = indexing.CopyOnWriteArray(lazy)
        variables[name] = xarray.Variable(dims, values)
    coords = {name: variables.pop(name) for name in (SAMPLE, *plan.get("coords", ()))}
    return xarray.Dataset(variables, coords)


def group_of(operation: str, place: Place, mode: Literal["r", "a"]) -> Any:
    """Return the Zarr group of a store, after checking its attributes."""
    zarr = zarr_for(operation)

    from repsim.storage._rows import damaged, reading

    with reading(operation, place):
        store, path = place.zarr
        group = zarr.open_group(store, path=path, mode="r" if mode == "r" else "r+", zarr_format=3)
        attrs = dict(group.attrs)
    made = str(attrs.get("format"))
    ours = mode == "a" or made.startswith("repsim.") or place.has_journal()
    if (ours or SEAL in attrs) and sealed(attrs) != attrs:
        raise damaged(operation, place, None, "the checksum of zarr.json does not fit")
    return group


def sealed(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a group with their checksum."""
    attrs = {name: value for name, value in attrs.items() if name != SEAL}
    text = json.dumps(attrs, sort_keys=True)
    return {**attrs, SEAL: hashlib.sha256(text.encode()).hexdigest()}
