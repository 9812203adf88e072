"""Opening stored activations, of one process or of several ranks."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

from repsim._errors import StateError, warn
from repsim._options import require_choice
from repsim.storage._chunks import SAMPLE
from repsim.storage._pooled import POOLED, PooledTokens
from repsim.storage._stored import SEAL, as_dataset, group_of, no_store, rows_of_place
from repsim.storage.places._address import place_of

if TYPE_CHECKING:
    import xarray

__all__ = ["open_activations"]


def open_activations(
    path: str | PathLike[str] | Any,
    *,
    transform: Literal["mean", "first", "last"] | None = None,
    order: Literal["id", "rank"] = "id",
    storage_options: Mapping[str, Any] | None = None,
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
    path : path, str or zarr.abc.store.Store
        The store that was ``out`` in :func:`repsim.extract`: a folder, an address such as
        ``"s3://bucket/run.zarr"`` that fsspec opens, or a store object of Zarr. An unfinished store
        of one process has the rows that are safely there, and gives a warning. An unfinished store
        of several ranks raises.
    transform : {"mean", "first", "last"}, optional
        Which vector of the real tokens of each sample to read, for layers that were stored with
        their mask; other layers are unchanged. By default whole tokens, padding included.
    order : {"id", "rank"}, default "id"
        The order of the samples that several ranks stored: sorted by id, so it is the same for any
        number of ranks, or as they lie on disk, rank by rank. Without ``sample_ids`` the id is the
        place in the data of all ranks, whose samples alternate, as a ``DistributedSampler`` deals
        them. The samples of one process lie in the order of its data.
    storage_options : mapping, optional
        Options of fsspec for an address, such as ``{"anon": True}``.

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
        layers, versions, and n_ranks for a store of several ranks.

    Raises
    ------
    InputError
        The address is not one of fsspec, or an option is invalid.
    StateError
        There is no store of activations, or the store or its journal is damaged; the message names
        the store and the layer. Reading values raises it too, because each chunk has a checksum. Or
        the part of a rank is missing or unfinished; the message names the part.
    CheckpointError
        The store cannot be read.
    ModuleNotFoundError
        zarr is not installed, or what fsspec needs for the address (s3fs for "s3://").

    Warns
    -----
    RepsimWarning
        The run that wrote the store has not finished, so it lacks samples.
        Several ranks stored many samples in another order than that of their ids (with shuffle), so
        reading blocks of rows sorted by id is slow.

    Notes
    -----
    If several ranks stored a sample with the same id, as happens with a ``DistributedSampler``,
    only the sample of the first of these ranks is read. Ids are read when the store is opened;
    layers are not. A block of rows is read from the parts that it lies in: after a sampler without
    shuffle, the rows a to b of R ranks are the rows a/R to b/R of each part.

    References
    ----------
    Zarr, version 3: https://zarr-specs.readthedocs.io; any reader of Zarr 3 opens the store, and
    that of several ranks part by part.
    """
    from repsim.storage.parts._opened import open_parts
    from repsim.storage.parts._run import PARTS

    operation = "open_activations"
    if transform is not None:
        require_choice(operation, "transform", transform, POOLED)
    require_choice(operation, "order", order, ("id", "rank"))
    place = place_of(operation, "path", path, storage_options)
    if not place.is_group():
        raise StateError(
            f"{operation}: there is no store of activations here.\n  {place}\n"
            f"  Pass what was out= in repsim.extract."
        )
    attrs = dict(group_of(operation, place, "r").attrs)
    plan: Mapping[str, Any] | None
    if attrs.get("format") == PARTS:
        plan, dataset = open_parts(operation, place, attrs, order)
    else:
        stored = rows_of_place(operation, place)
        plan = stored.plan
        if plan is None:
            raise no_store(operation, place, attrs.get("format"), journal=False)
        if not stored.is_finished:
            warn(
                f"{operation}: the run that wrote this store has not finished.\n"
                f"  {place}: {stored.rows} samples so far\n"
                f"  Call repsim.extract again with the same arguments to go on."
            )
        dataset = as_dataset(plan, stored.columns)
        dataset.attrs = {k: v for k, v in stored.attrs.items() if k != "plan"}
    dataset.attrs.pop(SEAL, None)
    return dataset if transform is None else _pooled(dataset, plan.get("masked", {}), transform)


def _pooled(stored: xarray.Dataset, masked: dict[str, str], transform: str) -> xarray.Dataset:
    """Reduce the real tokens of masked layers to one vector."""
    import xarray
    from xarray.core import indexing

    for name, mask in masked.items():
        tokens = stored[name]
        pooled = PooledTokens(tokens.variable, stored[mask].variable, transform)
        dims = (SAMPLE, *tokens.dims[2:])
        stored[name] = xarray.Variable(dims, indexing.LazilyIndexedArray(pooled), tokens.attrs)
    return stored.drop_vars(set(masked.values())).assign_attrs(transform=transform)
