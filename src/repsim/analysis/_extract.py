"""Storing the activations of a model on disk, resumable after a kill."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from torch import nn

from repsim._errors import warn
from repsim._options import as_count, require_choice
from repsim.analysis._arguments import check_arguments, seeded, shuffles
from repsim.analysis._extract_parts import end_together, own_part, writers
from repsim.analysis._extract_rows import DTYPES, Seen, ToHost, rows_of
from repsim.analysis._filling import Filling, saving, where_of
from repsim.analysis.run._drive import Batch, Forward, Prepare
from repsim.analysis.run._fingerprint import label_of
from repsim.analysis.run._kept_state import kept_state
from repsim.analysis.run._provenance import model_label, transform_label, versions
from repsim.analysis.run._sample_finder import BatchSize, SampleFinder
from repsim.analysis.run._token_samples import Samples, token_samples
from repsim.analysis.run.ranks import Ranks, SampleIds, check_sample_ids
from repsim.analysis.run.settings import of_process
from repsim.capture import (
    BoundTransform,
    Layers,
    MaskOption,
    Masks,
    Recorder,
    Select,
    Transform,
    select_layers,
)
from repsim.storage import ActivationStore, open_activations, place_of, rows_of_chunk

if TYPE_CHECKING:
    import xarray

__all__ = ["extract"]


def extract(
    model: nn.Module,
    data: Iterable[Any],
    layers: Layers = "*",
    *,
    out: str | PathLike[str] | Any,
    storage_options: Mapping[str, Any] | None = None,
    transform: Transform = None,
    mask: MaskOption = "auto",
    dtype: Literal["float16", "float32", "float64"] | None = None,
    select: Select | None = None,
    batch_dim: int | Mapping[str, int] | None = None,
    batch_size: BatchSize = None,
    all_modules: bool = False,
    samples: Samples = "inputs",
    max_samples: int | None = None,
    skip_first: int = 0,
    seed: int = 0,
    prepare: Prepare | None = None,
    forward: Forward | None = None,
    sample_ids: SampleIds | None = None,
    group: Any = None,
    name: str | None = None,
    memory: int = 1 << 30,
    progress: bool = True,
) -> xarray.Dataset:
    """Store the outputs of the layers of a model for a stream of data, for later use.

    >>> import tempfile, torch, repsim
    >>> from torch import nn
    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    >>> data = [torch.randn(16, 3, 8, 8) for _ in range(4)]
    >>> folder = tempfile.TemporaryDirectory()
    >>> stored = repsim.extract(net, data, ["0", "3"], out=folder.name + "/run.zarr",
    ...                         progress=False)
    >>> stored["0"].shape, stored["3"].dims
    ((64, 4, 6, 6), ('sample', '3[1]'))
    >>> result = repsim.cka_matrix(stored)
    >>> result.sel(layer_x="3", layer_y="3").round(6).item()
    1.0
    >>> folder.cleanup()

    One forward pass over the data writes a Zarr group with one array per layer. After a kill at any
    moment, an interrupt or a failure, the same call resumes the run: it keeps complete chunks,
    writes incomplete chunks again, and stores every sample exactly once. The resulting store has
    the same bits.

    Parameters
    ----------
    model : torch.nn.Module
        An unmodified model, in any wrapper, on any device. It runs in evaluation mode without
        gradients and is restored afterwards.
    data : iterable
        Batches, iterated once: tensors, tuples whose first item is the input, or mappings of
        keyword arguments. To resume, they must come in the same order: without shuffle, or with a
        seeded one. The model does not run on batches that are already in the store.
    layers : str, re.Pattern, module type, callable, or a list of these, default "*"
        Which layers, as in :class:`repsim.Recorder`. All layers take much space: see Notes.
    out : path, str or zarr.abc.store.Store
        The store: a folder with a name like ``"run.zarr"``; an address that fsspec opens, such as
        ``"s3://bucket/run.zarr"`` or ``"memory://run.zarr"``; or a store object of Zarr. The
        journal, the file ``<out>.journal`` beside a folder or the object ``.journal`` in an
        address, says what is complete. Delete both to start again.
    storage_options : mapping, optional
        Options of fsspec for an address, such as ``{"profile": "lab"}``.
    transform : {"flatten", "cls", "first", "last", "mean"} or callable, optional
        Which part of an output (n, ...) to store; it runs inside the hook. By default the whole
        output, in its shape.
    mask
        Which positions are real, as in :func:`repsim.compare`.
    dtype : {"float16", "float32", "float64"}, optional
        The dtype on disk; by default that of the output (float32 for bfloat16, which Zarr lacks).
    select, batch_dim, batch_size
        Which tensor of an output, its batch axis, and the samples of a batch, as in
        :func:`repsim.compare`.
    all_modules : bool, default False
        Whether a glob that ends in ``*`` also takes layers that return their input unchanged, as in
        :class:`repsim.Recorder`.
    samples, max_samples, skip_first, seed
        As in :func:`repsim.compare`. With ``samples="tokens"`` a row is a token, and inputs may
        have any length. Its coordinates are ``sequence``, the number of its input or its id from
        ``sample_ids``, and ``position`` among the real tokens of the input, counted from 0.
    prepare, forward : callable, optional
        A function from the batch to the batch for the model, and ``forward(model, batch)`` in place
        of ``model(batch)``.
    sample_ids : callable, optional
        A function from a batch to the ids of its samples, n integers or n strings; by default
        samples are numbered from 0. A sample with a known id is not stored again. With a group,
        samples without ids are numbered by their places in the data of all ranks, whose samples
        alternate, as a ``DistributedSampler`` deals them; what it repeats is stored twice. Pass it
        on all ranks or on none.
    group : "world", "alone" or torch.distributed.ProcessGroup, optional
        The ranks that write one store. Each passes its share as ``data``, for example by a
        ``DistributedSampler``; shares may be unequal or empty. Each rank writes a part of its own,
        ``<out>/rank<r>of<size>``, and resumes it, so a resumed run must have the same number of
        ranks. The store is complete when all have come to the end; before, opening it is an error
        that names the parts. With ``"alone"``, or outside torch.distributed, a process stores all
        that it gets. Several ranks must say which of the two they want.
    name : str, optional
        Name of the model in the result, by default its class.
    memory : int, default 2**30
        Bytes for rows that are collected and written together. A chunk has up to 1024 rows, and
        up to 1024/R with R ranks; it has fewer if the rows of all layers would take more.
    progress : bool, default True
        Whether to show a progress bar on standard error.

    Returns
    -------
    xarray.Dataset
        The result of :func:`repsim.open_activations`: a variable (sample, ...) for each layer in
        execution order, read from disk on access; ``sample`` holds the ids. Layers of tokens that
        have a mask carry it as the coordinate ``mask`` (sample, token). ``attrs``: model,
        transform, n_samples, n_batches, n_duplicates with ``sample_ids``, n_ranks with ``group``,
        layers, versions. The samples of several ranks are sorted by id, each once, so they do not
        depend on the number of ranks. Every rank returns the whole store.

    Raises
    ------
    InputError
        The data cannot be iterated as batches or differ in size, or an option is invalid; or
        torch.distributed has several ranks, and ``group`` is not given.
    LayerNotFoundError, CaptureError
        A layer does not exist or did not run, its output is not a batch of samples, or the layers
        differ from batch to batch.
    NonFiniteError
        NaN or infinity in a layer, or a value that ``dtype`` cannot hold; the message names layer
        and batch. Earlier batches are in the store.
    StateError
        ``out`` was made with another model (including weights), other layers, options, functions or
        data (the message says what differs); it is not a store; it is damaged; or another process
        is writing it. With ``group``: the store was begun with another number of ranks; a rank
        failed, died, has other modules, weights or options, or did not answer within the time limit
        of its group. Each rank that failed raises its own error.
    CheckpointError
        ``out`` cannot be written: a full disk, a read-only or missing folder, no network. Earlier
        rows are intact.
    ModuleNotFoundError
        zarr is not installed, or what fsspec needs for the address (s3fs for "s3://").

    Warns
    -----
    RepsimWarning
        The loader shuffles without a seed and ``sample_ids`` is not given, so stores of two models
        cannot be compared; or as :class:`repsim.Recorder`.

    Notes
    -----
    Space on disk: n Σp itemsize bytes, with p numbers per sample and layer. A vit_base_patch16_224
    returns 151 296 numbers per block and image, 768 with ``transform="cls"``. Memory in addition to
    the model: the outputs of one batch, and ``memory``. Rows are written when a chunk is full,
    every two minutes, and on an error or interrupt; a kill loses later rows. Each chunk has a
    checksum.

    On a disk, a chunk is renamed into its place and synced before the journal counts it, so neither
    a kill nor a power failure leaves a row that counts and is not there. A lock keeps a second
    writer out. An address of an object store has neither renames nor locks. There, an object is
    written whole or not at all; the journal is written again, whole, after each chunk; a second
    writer is found when the next chunk is written; and the attributes, written last, say that a
    store is finished. A file system of fsspec that writes in place (sftp) may keep half a file
    after a kill, which is an error when the run is resumed. Chunks that vanish or change later are
    errors on reading everywhere.

    The ranks of a group exchange one truth value for each batch, so that the failure of one stops
    the others. At the end they exchange the number of rows; rows are not sent. They must reach the
    same ``out``: a file system that they share, or an object store. Use a sampler without shuffle:
    then neighbours by id lie near each other on disk, and blocks of rows are read fast (see
    :func:`repsim.open_activations`).

    :func:`repsim.cka_matrix` and :func:`repsim.probe_activations` read the store in blocks of rows.
    :func:`repsim.pairwise`, :func:`repsim.cka` and :mod:`repsim.inference` read whole layers.

    References
    ----------
    The store is Zarr, version 3: https://zarr-specs.readthedocs.io; each chunk has a checksum.
    """
    ranks = writers(group)
    with ranks.raise_on_all_ranks():
        check_arguments(
            "extract", {"model": model}, name, progress, prepare=prepare, forward=forward
        )
        place = place_of("extract", "out", out, storage_options)
        memory = as_count("extract", "memory", memory)
        if dtype is not None:
            require_choice("extract", "dtype", dtype, DTYPES)
        check_sample_ids("extract", sample_ids)
        _warn_of_order(data, sample_ids)
        masks = Masks("extract", mask)
        tokens = token_samples("extract", samples, max_samples, skip_first, seed, transform)
        to_host = ToHost(BoundTransform("extract", transform, model, masks), dtype, tokens)
        recorder = Recorder(
            model,
            layers,
            transform=to_host,
            select=select,
            batch_dim=batch_dim,
            all_modules=all_modules,
        )
        to_host.transform.follow(recorder.axes)
        recorder.enabled = False  # SampleFinder enables it
        functions: dict[str, Any] = {"prepare": prepare, "forward": forward, "select": select}
        functions |= {"transform": transform, "mask": mask}
        functions |= {"batch_size": batch_size, "sample_ids": sample_ids}
        described = {
            **{option: label_of(value) for option, value in functions.items()},
            "model": model_label(model, name),
            "layers": list(select_layers(model, layers).names),
            "transform": transform_label(transform, nothing="none"),
            "dtype": dtype,
            "batch_dim": label_of(batch_dim),
            "all_modules": bool(all_modules),
            **({} if tokens is None else {"samples": samples, **tokens.options()}),
        }
        ranks.agree_on({"model": model}, **described)
        store = ActivationStore(
            own_part(ranks, place, named=sample_ids is not None),
            operation="extract",
            fingerprint={**described, **of_process(model, **functions)},
            memory=memory,
            most_rows=rows_of_chunk(ranks.size),
        )
        with saving(store):
            seen, finder = Seen("extract", sample_ids), SampleFinder("extract", batch_size)
            calls = Calls(prepare, forward, progress)
            _fill(store, ranks, model, recorder, to_host, finder, seen, data, calls)
            if store.n_rows:
                masks.check_used()
            labels = {option: described[option] for option in ("model", "transform")}
            counts = {} if sample_ids is None else {"n_duplicates": seen.duplicates}
            counts |= {} if tokens is None else tokens.report()
            store.finish({**labels, "n_batches": len(store.batches), **counts, **versions()})
        end_together(ranks, place, store.n_rows)
    return open_activations(out, storage_options=storage_options)


def _warn_of_order(data: object, sample_ids: SampleIds | None) -> None:
    if sample_ids is None and shuffles(data) and not seeded(data):
        warn(
            "extract: the loader shuffles, so a row of another store is another sample.\n"
            "  Pass shuffle=False, or sample_ids=, by which stores are compared."
        )


class Calls(NamedTuple):
    """How the caller wants a model to be called, and whether to show a bar."""

    prepare: Prepare | None
    forward: Forward | None
    progress: bool


def _fill(
    store: ActivationStore,
    ranks: Ranks,
    model: nn.Module,
    recorder: Recorder,
    to_host: ToHost,
    finder: SampleFinder,
    seen: Seen,
    data: Iterable[Any],
    calls: Calls,
) -> None:
    """Store the batches that are not in the store yet."""
    tokens, masks = to_host.tokens, [to_host.transform.masks]
    filling = Filling(store, seen, tokens)
    to_host.resume(store)
    recording, agreed = False, ranks.size == 1 or not to_host.transform.takes_means

    def run(batch: Batch) -> None:
        recorder.clear()
        to_host.transform.start(batch.value)
        finder.run(batch, model, [recorder], calls.forward, masks)

    every = ranks.each_batch(data, model, progress=calls.progress)
    with every as batches, ExitStack() as stack:
        for batch in ranks.in_step(batches):
            prepared = None
            if batch is not None and not filling.has(batch.value):
                if not recording:  # nothing runs if all batches are stored
                    stack.enter_context(recorder)
                    recording = True
                prepared = batch.prepared(model, calls.prepare, calls.forward)
            if not agreed:  # all ranks are in their first step
                if prepared is not None:
                    with kept_state(model):
                        run(prepared.own())
                to_host.agree(ranks)
                agreed = True
            if batch is None or prepared is None:
                continue
            if tokens is not None:
                tokens.start()
                if not tokens.surveyed:
                    with kept_state(model), tokens.survey():
                        run(prepared.own())
            run(prepared)
            where = where_of(batch.number)
            rows = rows_of(dict(recorder), to_host, filling.ids, filling.new, seen.n_rows, where)
            filling.add(rows, where)
    filling.end()
