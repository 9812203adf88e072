"""Opening stored activations, and checking that they are complete."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from repsim._errors import StateError
from repsim._missing import missing_package
from repsim._options import as_path, require_choice
from repsim.storage._chunks import SAMPLE, absent_chunk, unlike
from repsim.storage._journal import read_journal
from repsim.storage._names import folders_of
from repsim.storage._plan import columns_of

if TYPE_CHECKING:
    import xarray

__all__ = ["FORMAT", "group_of", "journal_of", "open_activations", "sealed", "zarr_for"]

FORMAT = "repsim.activations/2"

SEAL = "repsim_attributes_sha256"
"""The attribute of a store with the checksum of all others."""


def open_activations(
    path: str | PathLike[str], *, transform: Literal["mean", "first", "last"] | None = None
) -> xarray.Dataset:
    """Open the activations that :func:`repsim.extract` stored, without reading them.

    >>> import tempfile, torch, repsim
    >>> from torch import nn
    >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU())
    >>> data = [torch.randn(10, 8) for _ in range(3)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = repsim.extract(net, data, out=folder + "/run.zarr", progress=False)
    ...     stored = repsim.open_activations(folder + "/run.zarr")
    ...     stored["1"].shape, repsim.cka_matrix(stored).shape
    ((30, 16), (2, 2))

    It needs neither torch nor the model. You can copy the store to another machine.

    Parameters
    ----------
    path : path
        The store that was ``out`` in :func:`repsim.extract`. An unfinished store has the rows that
        are safely on disk.
    transform : {"mean", "first", "last"}, optional
        Which vector of the real tokens of each sample to read, for layers that were stored with
        their mask; other layers are unchanged. By default whole tokens, padding included.

    Returns
    -------
    xarray.Dataset
        A variable for each layer in execution order, dims ("sample", ...), in the dtype that was
        stored; the coordinate ``sample`` holds the ids of the samples. Values are read on access,
        and only the rows of a slice. You can pass it as a mapping of names to arrays to
        :func:`repsim.cka_matrix` and :func:`repsim.pairwise`. Layers of tokens with a mask have the
        dims ("sample", "token", ...) and a coordinate ``mask`` (sample, token), true where a token
        is real. If tokens are the samples, the coordinates ``sequence`` and ``position`` say which
        input a row is of, and which of its real tokens. ``attrs``: model, transform, n_samples,
        layers, versions.

    Raises
    ------
    StateError
        There is no store of activations, or it or its journal is damaged; the message names the
        store and the layer. Reading values raises it too, because each chunk has a checksum.
    CheckpointError
        It cannot be read.

    References
    ----------
    Zarr, version 3: https://zarr-specs.readthedocs.io; any reader of Zarr 3 opens the store.
    """
    from repsim.storage._pooled import POOLED

    if transform is not None:
        require_choice("open_activations", "transform", transform, POOLED)
    operation, folder = "open_activations", Path(as_path("open_activations", "path", path))
    journal = journal_of(folder)
    entries = read_journal(journal, operation=operation) if os.path.exists(journal) else []
    if not os.path.isdir(folder):  # unlike Path, False for a name that is too long
        raise StateError(
            f"{operation}: there is no store of activations here.\n  {folder}\n"
            f"  Pass what was out= in repsim.extract."
        )
    group = group_of(operation, folder, "r")
    attrs = dict(group.attrs)
    plan = next((entry for entry in entries if "layers" in entry), None)
    rows = next((entry["rows"] for entry in reversed(entries) if "rows" in entry), 0)
    made = entries[0].get("format") if entries else attrs.get("format")
    if made != FORMAT or (plan is None and "plan" not in attrs):
        raise StateError(
            f"{operation}: this is no store of activations, or one without a batch.\n"
            f"  {folder}: of format {made!r}, expected {FORMAT!r}; "
            f"{'no journal' if plan is None else 'a journal'} with rows beside it\n"
            f"  Pass what was out= in repsim.extract."
        )
    if plan is None:
        plan, rows = attrs["plan"], attrs["n_samples"]
    stored = _dataset(operation, folder, group, plan, rows)
    stored.attrs = {k: v for k, v in attrs.items() if k not in (SEAL, "plan")}
    return stored if transform is None else _pooled(stored, plan.get("masked", {}), transform)


def _dataset(
    operation: str, folder: Path, group: Any, plan: Mapping[str, Any], rows: int
) -> xarray.Dataset:
    """Return the layers and coordinates of a store, which are read on access."""
    import xarray
    from xarray.core import indexing

    from repsim.storage._rows import StoredRows, damaged, reading

    masked = plan.get("masked", {})
    variables, columns = {}, columns_of(plan)
    for name, place in folders_of(columns).items():
        shape, dtype = columns[name]
        with reading(operation, folder, name):
            array = group[place]
            why = unlike(array, rows, tuple(shape), dtype, plan["chunk"])
            # Zarr reads zeros for a missing chunk.
            why = why or absent_chunk(array, folder / place, rows)
            if why:
                raise damaged(operation, folder, name, why)
        dims = [SAMPLE, *(f"{name}[{axis}]" for axis in range(1, len(shape) + 1))]
        if mask := name if name in masked.values() else masked.get(name):
            dims[1] = _token_dim(mask)
        values: Any = indexing.LazilyIndexedArray(
            StoredRows(array, rows, folder, folder / place, name)
        )
        variables[name] = xarray.Variable(dims, indexing.CopyOnWriteArray(values))
    coords = {name: variables.pop(name) for name in (SAMPLE, *plan.get("coords", ()))}
    return xarray.Dataset(variables, coords)


def _pooled(stored: xarray.Dataset, masked: dict[str, str], transform: str) -> xarray.Dataset:
    """Reduce the real tokens of masked layers to one vector."""
    import xarray
    from xarray.core import indexing

    from repsim.storage._pooled import PooledTokens

    for name, mask in masked.items():
        tokens = stored[name]
        pooled = PooledTokens(tokens.variable, stored[mask].variable, transform)
        dims = (SAMPLE, *tokens.dims[2:])
        stored[name] = xarray.Variable(dims, indexing.LazilyIndexedArray(pooled), tokens.attrs)
    return stored.drop_vars(set(masked.values())).assign_attrs(transform=transform)


def _token_dim(mask: str) -> str:
    return mask.replace("mask", "token", 1)


def zarr_for(operation: str) -> Any:
    """Return Zarr, or raise an error that says how to install it."""
    try:
        import zarr
    except ModuleNotFoundError as error:
        raise missing_package(operation, error) or error from error
    return zarr


def journal_of(path: Path) -> Path:
    """Return the path of the journal of a store: beside it, so the store remains plain Zarr."""
    return path.with_name(path.name + ".journal")


def group_of(operation: str, path: Path, mode: Literal["r", "a"]) -> Any:
    """Return the Zarr group of a store, after checking its attributes."""
    zarr = zarr_for(operation)

    from repsim.storage._rows import damaged, reading

    with reading(operation, path):
        group = zarr.open_group(str(path), mode="r" if mode == "r" else "r+", zarr_format=3)
        attrs = dict(group.attrs)
    ours = mode == "a" or journal_of(path).exists() or attrs.get("format") == FORMAT
    if (ours or SEAL in attrs) and sealed(attrs) != attrs:
        raise damaged(operation, path, None, "the checksum of zarr.json does not fit")
    return group


def sealed(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a group with their checksum."""
    attrs = {name: value for name, value in attrs.items() if name != SEAL}
    text = json.dumps(attrs, sort_keys=True)
    return {**attrs, SEAL: hashlib.sha256(text.encode()).hexdigest()}
