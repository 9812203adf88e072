"""Opening stored activations, and checking that they are complete."""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING

from repsim._errors import CheckpointError, StateError
from repsim.storage._chunks import SAMPLE, absent_chunk
from repsim.storage._journal import read_journal

if TYPE_CHECKING:
    import xarray

__all__ = ["FORMAT", "journal_of", "open_activations"]

FORMAT = "repsim.activations/1"


def open_activations(path: str | PathLike[str]) -> xarray.Dataset:
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

    Returns
    -------
    xarray.Dataset
        A variable for each layer in execution order, dims ("sample", ...), in the dtype that was
        stored; the coordinate ``sample`` holds the ids of the samples. Values are read on access,
        and only the rows of a slice. You can pass it as a mapping of names to arrays to
        :func:`repsim.cka_matrix` and :func:`repsim.pairwise`. ``attrs``: model, transform,
        n_samples, layers, versions.

    Raises
    ------
    StateError
        There is no store of activations, or it or its journal is damaged.
    CheckpointError
        It cannot be read.

    References
    ----------
    Zarr, version 3: https://zarr-specs.readthedocs.io; any reader of Zarr 3 opens the store.
    """
    import xarray

    operation, folder = "open_activations", Path(fspath(path))
    journal = journal_of(folder)
    entries = read_journal(journal, operation=operation) if journal.exists() else []
    try:
        stored = xarray.open_dataset(
            folder, engine="zarr", consolidated=False, chunks=None, cache=False
        )
    except FileNotFoundError as error:
        raise StateError(
            f"{operation}: there is no store of activations here.\n  {folder}\n"
            f"  Pass what was out= in repsim.extract."
        ) from error
    except OSError as error:
        raise CheckpointError(
            f"{operation}: the store cannot be read.\n  {folder}: {error.strerror or error}\n"
            f"  Check its permissions."
        ) from error
    plan = next((entry for entry in entries if "layers" in entry), None)
    rows = next((entry["rows"] for entry in reversed(entries) if "rows" in entry), 0)
    if plan is None and stored.attrs.get("format") != FORMAT:
        raise StateError(
            f"{operation}: this is no store of activations, or one without a batch.\n"
            f"  {folder}: {len(stored.data_vars)} variables, no journal with rows beside it\n"
            f"  Pass what was out= in repsim.extract."
        )
    layers = list(plan["layers"]) if plan else stored.attrs["layers"]
    rows = rows if plan else stored.attrs["n_samples"]
    import zarr

    group = zarr.open_group(str(folder), mode="r")
    for name in (*layers, SAMPLE):
        # Zarr reads zeros for a missing chunk.
        if absent := absent_chunk(group[name], folder / name, rows):
            raise StateError(
                f"{operation}: the store is damaged.\n  {folder}: {absent}\n"
                f"  Restore it from a copy; or delete it and {journal.name}, and extract again."
            )
    return stored[layers].isel({SAMPLE: slice(0, rows)})


def journal_of(path: Path) -> Path:
    """Return the path of the journal of a store: beside it, so the store remains plain Zarr."""
    return path.with_name(path.name + ".journal")
