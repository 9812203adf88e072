"""Opening stored activations, and checking that they are complete."""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING

from repsim._errors import CheckpointError, InputError, StateError
from repsim.storage._chunks import SAMPLE, absent_chunk
from repsim.storage._journal import read_journal

if TYPE_CHECKING:
    import xarray

__all__ = ["FORMAT", "journal_of", "open_activations"]

FORMAT = "repsim.activations/1"


def open_activations(path: str | PathLike[str], *, transform: str | None = None) -> xarray.Dataset:
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
        There is no store of activations, or it or its journal is damaged.
    CheckpointError
        It cannot be read.

    References
    ----------
    Zarr, version 3: https://zarr-specs.readthedocs.io; any reader of Zarr 3 opens the store.
    """
    import xarray

    from repsim.storage._pooled import POOLED

    if transform is not None and transform not in POOLED:
        raise InputError(
            f"open_activations: unknown transform.\n"
            f"  expected one of {', '.join(map(repr, POOLED))}, or None\n"
            f"  got {transform!r}"
        )
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
    source = plan or stored.attrs
    coords, masked = list(source.get("coords", {})), dict(source.get("masked", {}))
    for name in (*layers, *coords, SAMPLE):
        # Zarr reads zeros for a missing chunk.
        if absent := absent_chunk(group[name], folder / name, rows):
            raise StateError(
                f"{operation}: the store is damaged.\n  {folder}: {absent}\n"
                f"  Restore it from a copy; or delete it and {journal.name}, and extract again."
            )
    stored.attrs = {k: v for k, v in stored.attrs.items() if k not in ("coords", "masked")}
    stored = stored.set_coords(coords)[[*layers, *coords]].isel({SAMPLE: slice(0, rows)})
    return _with_masks(stored, masked, transform)


def _with_masks(
    stored: xarray.Dataset, masked: dict[str, str], transform: str | None
) -> xarray.Dataset:
    """Give masked layers the dimension of their mask, or reduce their real tokens."""
    if transform is None:
        names = {f"{name}[1]": _token_dim(mask) for name, mask in masked.items()}
        return stored.rename({**names, **{f"{m}[1]": _token_dim(m) for m in masked.values()}})
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


def journal_of(path: Path) -> Path:
    """Return the path of the journal of a store: beside it, so the store remains plain Zarr."""
    return path.with_name(path.name + ".journal")
