"""Layer-by-layer CKA of two models, or of one with itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from repsim._errors import InputError, NonFiniteError, warn
from repsim.analysis.maps._grams import LayerGrams
from repsim.analysis.maps._progress import KeptKernels, Progress
from repsim.analysis.maps._ranks import Ranks
from repsim.analysis.run._drive import Forward, Prepare, as_found, call_model
from repsim.analysis.run._fingerprint import label_of, model_digest
from repsim.analysis.run._provenance import model_label, transform_label, versions
from repsim.analysis.run._sample_ids import SampleIds
from repsim.capture import Layers, Recorder, Select, Transform, resolve_transform, select_layers
from repsim.kernels import Kernel, Precision, resolve_kernel, with_precision
from repsim.streaming import MinibatchCKA

if TYPE_CHECKING:
    import xarray

__all__ = ["compare"]


def compare(
    model_x: nn.Module,
    model_y: nn.Module | None = None,
    data: Iterable[Any] | None = None,
    *,
    layers: Layers = "*",
    layers_y: Layers | None = None,
    kernel: str | Kernel = "linear",
    precision: Precision | None = None,
    passes: int = 1,
    transform: Transform = None,
    select: Select | None = None,
    batch_dim: int | Mapping[str, int] | None = None,
    prepare_x: Prepare | None = None,
    prepare_y: Prepare | None = None,
    forward: Forward | None = None,
    names: tuple[str, str] | None = None,
    z_scores: bool = False,
    progress: bool = True,
    checkpoint: str | PathLike[str] | None = None,
    group: Any = None,
    sample_ids: SampleIds | None = None,
) -> xarray.Dataset:
    """CKA of every layer of a model with every layer of another, or of itself, over data.

    Unbiased minibatch CKA (:class:`repsim.MinibatchCKA`, Nguyen, Raghu & Kornblith 2021, Eq. 3)
    of the layers' outputs, from one pass over the data for both models::

        CKA = Σ_b w_b h_b(x, y) / √(Σ_b w_b h_b(x, x) · Σ_b w_b h_b(y, y)),   w_b = n_b(n_b − 3)

    Parameters
    ----------
    model_x, model_y : torch.nn.Module
        Unmodified models, in any wrapper, each on its own device. Without ``model_y``, model_x is
        compared with itself. They run in evaluation mode without gradients, and come back as they
        were: no hook is left, the train/eval flag of every submodule, device and random state are
        as before.
    data : iterable
        Batches, iterated once per pass for both models. A batch is the input tensor, a tuple or
        list whose first item is the input tensor, or a mapping that is passed whole as keyword
        arguments; for anything else see ``forward``. Draw batches without replacement; larger
        ones give smaller errors. Batches of fewer than four samples are skipped and reported.
    layers, layers_y : str, re.Pattern, module type, callable, or a list of these
        Which layers, as in :func:`repsim.capture.select_layers`: names, globs whose ``*`` also
        crosses dots, module types. By default all submodules; ``layers_y`` is ``layers`` unless
        given.
    kernel : str or Kernel, default "linear"
        As in :func:`repsim.cka`. A bandwidth that follows the data is fixed on the first batch.
    precision : {"highest", "tf32", "bf16"}, optional
        What centred features keep of their digits when they are multiplied, as in
        :class:`repsim.kernels.Linear`; by default the kernel's own, which is "highest" unless it
        was made otherwise. On CUDA the others use tensor cores. Sums are in at least float32.
    passes : int, default 1
        How many times to go over the data. With a loader that reshuffles, several passes converge
        to the unbiased CKA of the whole data set.
    transform : {"flatten", "cls", "mean"} or callable, optional
        What to compare of an output (n, ...), inside the hook: by default all of it, flattened.
    select, batch_dim
        Which tensor of an output, and its batch axis, as in :class:`repsim.Recorder`.
    prepare_x, prepare_y : callable, optional
        From the batch to the batch that one model wants: another resolution, other keywords.
        The result is moved to the model's device.
    forward : callable, optional
        ``forward(model, batch)`` in place of ``model(batch)``.
    names : tuple of two str, optional
        What the result and the pictures call the models, by default their classes.
    z_scores : bool, default False
        Whether the result has a variable ``z``: how many standard deviations each CKA lies above
        chance, the samples of each batch permuted; see :meth:`repsim.MinibatchCKA.z_scores`.
        ``repsim.plot.heatmap(result, above_chance=3.0)`` greys out what is less.
    progress : bool, default True
        Whether to show a progress bar with rate and remaining time on standard error.
    checkpoint : path, optional
        A file that holds the state, written every two minutes, on an interrupt or error, and at
        the end. If it exists, the batches counted in it are read from ``data`` and skipped, so the
        data must give the same batches in the same order: without shuffle, or with a seeded one.
        Each batch is checked by the digest of a part of it. Ctrl-C then returns the result so far
        with a warning. Delete the file to begin anew.
    group : "world" or torch.distributed.ProcessGroup, optional
        The ranks whose batches make up one result; by default this process alone. Each rank passes
        its own share as ``data``, as by a ``DistributedSampler``; shares may be unequal or empty.
        Every rank returns the same bits. With a checkpoint each rank writes its own file,
        ``<checkpoint>.rank<r>of<size>``.
    sample_ids : callable, optional
        From a batch to the ids of its samples, a 1-d tensor, array or list of n numbers or
        strings. A sample whose id was seen before in the pass, on any rank, is not counted again:
        a ``DistributedSampler`` repeats samples to even out the ranks. Costs one exchange of ids
        per batch. All ranks have it or none.

    Returns
    -------
    xarray.Dataset
        ``cka`` and ``standard_error``, float64, dims ("layer_x", "layer_y"), coordinates the layer
        names in execution order; ``name:0``, ``name:1``, ... for a module that runs several times.
        CKA is in [−1, 1] and around 0 for independent layers. The standard error is the
        delete-one-batch jackknife; with several passes that of a single pass, an upper bound;
        NaN with a single batch. With ``z_scores`` also ``z``, exact for one pass and a lower bound
        for several, which are not independent. ``attrs``: model_x, model_y, estimator, kernel,
        precision, transform, passes, n_samples and n_batches over all passes, n_skipped_batches,
        n_skipped_samples, versions; n_duplicates with ``sample_ids``, n_ranks with ``group``,
        ``interrupted`` if partial.

    Raises
    ------
    InputError
        Data that cannot be iterated as batches, an unknown kernel or precision, a precision for a
        kernel that has none, models that see different numbers of samples.
    LayerNotFoundError, CaptureError
        A layer that does not exist or did not run, an output that is no batch of samples.
    NonFiniteError
        NaN or infinity in a layer, naming layer and batch; ``partial`` is the result before it.
    StateError
        A checkpoint that is damaged, cannot be written, or belongs to other models, options or
        data; a rank that died, failed, or did not answer within the time limit of its group.

    Warns
    -----
    RepsimWarning
        Layers that a glob found and that return no batch, skipped short batches, passes that all
        saw the same batches. An interrupt (with a checkpoint), a checkpoint that could not be
        written in between.
    DegenerateWarning
        A constant layer: its CKA is NaN.

    Notes
    -----
    Gram matrices are computed in the hooks, so memory is O(L n²) for L layers and batches of n,
    whatever the size of the activations, and in-place operations cannot overwrite a value. Layers
    that return one tensor share one Gram. Cost: the two forward passes plus O(n² Σp).

    Always look at a control: two *untrained* networks can score high, because they see the same
    images. Two trainings that differ only in their seed show what "the same" scores.

    References
    ----------
    Nguyen, Raghu, Kornblith 2021, arXiv:2010.15327. Raghu et al. 2021, arXiv:2108.08810.

    Examples
    --------
    >>> import torch, repsim
    >>> from torch import nn
    >>> _ = torch.manual_seed(0)
    >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    >>> data = [torch.randn(64, 8) for _ in range(4)]
    >>> result = repsim.compare(net, data=data, progress=False)
    >>> result.cka.sel(layer_x="0", layer_y="0").round(6).item()
    1.0
    >>> result.layer_y.values.tolist()
    ['0', '1', '2']
    """
    if not isinstance(passes, int) or passes < 1:
        raise InputError(f"compare: passes must be a positive integer.\n  got {passes!r}")
    for name, model in (("model_x", model_x), ("model_y", model_y)):
        if not isinstance(model, nn.Module) and not (name == "model_y" and model is None):
            raise InputError(
                f"compare: {name} must be a torch.nn.Module.\n  got {type(model).__name__}\n"
                f"  The data go by keyword: compare(model_x, model_y, data=batches)."
            )
    if names is not None and not (
        isinstance(names, tuple | list) and [type(name) for name in names] == [str, str]
    ):
        raise InputError(
            f"compare: names must be two strings, for model_x and model_y.\n  got {names!r}"
        )
    resolved = resolve_kernel("compare", kernel)
    if precision is not None:
        resolved = with_precision("compare", resolved, precision)
    reduce = resolve_transform(transform, "compare")

    ranks = Ranks(group, sample_ids)
    if ranks.size > 1 and getattr(resolved, "sigma", 0.0) is None:
        raise InputError(
            f"compare: the ranks of a group need one bandwidth.\n"
            f"  kernel {resolved!r} would fix another on every rank's first batch\n"
            f"  Give it one: kernel=repsim.kernels.RBF(sigma=...)."
        )
    books: list[KeptKernels] = []

    def side(model: nn.Module, wanted: Layers, prepare: Prepare | None) -> _Side:
        books.append(KeptKernels(resolved))
        grams = LayerGrams(books[-1], reduce)
        recorder = Recorder(model, wanted, transform=grams, select=select, batch_dim=batch_dim)
        recorder.enabled = False  # until it is this model's turn
        chosen = list(select_layers(model, wanted).names)
        return _Side(model, recorder, grams, prepare, forward, chosen)

    x = side(model_x, layers, prepare_x)
    # One forward serves both sides where they are one model on one input.
    same_input = prepare_y is prepare_x or (model_y is None and prepare_y is None)
    one_forward = (model_y is None or model_y is model_x) and same_input
    y = None
    if not one_forward or layers_y is not None:
        other = model_x if model_y is None else model_y
        y = side(other, layers if layers_y is None else layers_y, prepare_y)

    models = (model_x, model_x if model_y is None else model_y)
    name_x, name_y = (None, None) if names is None else names
    provenance: dict[str, Any] = {
        "model_x": model_label(models[0], name_x),
        "model_y": model_label(models[1], name_y),
        "transform": transform_label(transform),
        **versions(),
    }
    interrupted = False
    with ranks.telling(), ExitStack() as stack:
        kept = Progress(
            ranks.own_path(checkpoint),
            {
                **{name: str(provenance[name]) for name in ("model_x", "model_y", "transform")},
                **_weights(checkpoint, *models),
                "layers": x.chosen,
                "layers_y": "as layers" if y is None else y.chosen,
                "kernel": repr(resolved),
                "passes": passes,
                "select": label_of(select),
                "batch_dim": label_of(batch_dim),
                "prepare": [label_of(prepare_x), label_of(prepare_y)],
                "forward": label_of(forward),
                "sample_ids": label_of(sample_ids),
                "rank": f"{ranks.rank} of {ranks.size}",
            },
            resolved,
            books,
        )
        stack.enter_context(as_found(*models))
        for each in (x, y):
            if each is not None:
                stack.enter_context(each.recording())
        try:
            for one_pass in ranks.passes(data, passes, progress=progress):
                acc = kept.begin_pass()
                for batch, rows in one_pass:
                    if kept.was_counted(batch.value):
                        continue
                    grams = _grams(x, y, batch.value, one_forward=one_forward)
                    cut = [_rows(each, rows, ranks.n_ids) for each in grams]
                    with kept.counting():
                        if rows is None or rows:
                            acc.update_grams(*cut)
                    kept.save_if_due()
            kept.log.end_pass()
            kept.save()
        except BaseException as error:
            kept.save_before_raising(error)
            interrupted = isinstance(error, KeyboardInterrupt) and checkpoint is not None
            counted = any(each.n_batches for each in kept.accumulators)
            if isinstance(error, NonFiniteError) and counted:
                so_far = _merged(resolved, kept.accumulators)
                error.partial = _result(so_far, kept.accumulators, provenance, z_scores=z_scores)
            if not (interrupted and ranks.alone and counted):
                raise
    finished = kept.accumulators
    provenance.update(ranks.report())
    finished = ranks.all_reduce(finished)
    total = _merged(resolved, finished)
    if interrupted:
        provenance["interrupted"] = f"after {total.n_batches} batches"
        warn(
            f"compare: interrupted after {total.n_batches} batches; this is the result so far. "
            f"The state is in {kept.path!r}: call again to go on from there.",
        )
    elif len(finished) > 1 and _same_batches(*finished[:2]):
        warn(
            f"compare: all {passes} passes saw the same batches, so they tell no more than one. "
            f"Pass a loader that reshuffles (shuffle=True).",
        )
    try:
        return _result(total, finished, provenance, z_scores=z_scores)
    except NonFiniteError as error:  # found out only now, on an accelerator
        if error.partial is not None:
            error.partial = error.partial.assign_attrs(provenance, passes=len(finished))
        raise


@dataclass
class _Side:
    """One model with what records it."""

    model: nn.Module
    recorder: Recorder
    grams: LayerGrams
    prepare: Prepare | None
    forward: Forward | None

    chosen: list[str]
    ran: bool = False

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Keep the hooks in place; a rank without data never ran, which is no error here."""
        with ExitStack() as stack:
            self.recorder.__enter__()
            stack.push(self._leave)
            yield

    def _leave(self, kind: Any, error: Any, trace: Any) -> None:
        if not self.ran and kind is None:
            kind = InputError  # the recorder checks what ran only where nothing went wrong
        self.recorder.__exit__(kind, error, trace)

    def start(self) -> None:
        """Get ready for the next batch."""
        self.ran = True
        self.grams.forget()
        self.recorder.clear()
        self.recorder.enabled = True

    def stop(self) -> None:
        """Ignore what other models do: two models may share submodules."""
        self.recorder.enabled = False


def _grams(
    x: _Side, y: _Side | None, batch: Any, *, one_forward: bool
) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    """Run one batch through both models and return the Grams of their layers."""
    together = [x] if y is None or not one_forward else [x, y]
    for group in (together, [] if y is None or one_forward else [y]):
        for side in group:
            side.start()
        if group:
            call_model("compare", group[0].model, batch, group[0].prepare, group[0].forward)
        for side in group:
            side.stop()
    grams_x = dict(x.recorder)
    return grams_x, None if y is None else _beside(dict(y.recorder), grams_x)


def _beside(grams: dict[str, Tensor], others: dict[str, Tensor]) -> dict[str, Tensor]:
    """Move Grams to the device of the other model's: n² numbers a layer, whatever its features."""
    device = next(iter(others.values())).device
    moved: dict[int, Tensor] = {}
    for gram in grams.values():
        if id(gram) not in moved:  # a Gram that layers share stays shared
            moved[id(gram)] = gram.to(device)
    return {name: moved[id(gram)] for name, gram in grams.items()}


def _rows(grams: Mapping[str, Any] | None, rows: list[int] | None, ids: int | None) -> Any:
    """Return the Grams of these samples alone; what layers share stays shared."""
    if grams is None:
        return None
    n = next(iter(grams.values())).shape[0]
    if ids is not None and ids != n:
        raise InputError(
            f"compare: sample_ids must give one id for each sample.\n"
            f"  got {ids} ids for a batch of {n}"
        )
    if rows is None:
        return grams
    cut: dict[int, Tensor] = {}
    for gram in grams.values():
        if id(gram) not in cut:
            index = torch.tensor(rows, dtype=torch.long, device=gram.device)
            cut[id(gram)] = gram[index][:, index]
    return {name: cut[id(gram)] for name, gram in grams.items()}


def _merged(kernel: Kernel, accumulators: list[MinibatchCKA]) -> MinibatchCKA:
    total = MinibatchCKA(kernel=kernel)
    for acc in accumulators:
        total.merge(acc)
    return total


def _weights(checkpoint: object, *models: nn.Module) -> dict[str, str]:
    """Return the digests of the models, which only a checkpoint asks for."""
    if checkpoint is None:
        return {}
    names = ("weights of model_x", "weights of model_y")
    return {name: model_digest(model) for name, model in zip(names, models, strict=True)}


def _same_batches(first: MinibatchCKA, second: MinibatchCKA) -> bool:
    a, b = first.state_dict()["blocks"], second.state_dict()["blocks"]
    return a["xy"].shape == b["xy"].shape and bool(np.array_equal(a["xy"], b["xy"]))


def _result(
    total: MinibatchCKA,
    finished: list[MinibatchCKA],
    provenance: Mapping[str, Any],
    *,
    z_scores: bool,
) -> xarray.Dataset:
    cka = total.compute()
    # Passes over the same samples are no independent batches: the spread within one pass is what
    # is known, and an upper bound for their average.
    variances = [np.square(acc.standard_error().values) for acc in finished if acc.n_batches]
    error = cka.copy(data=np.sqrt(sum(variances) / len(variances)))
    dataset = cka.to_dataset(name="cka").assign(standard_error=error.rename("standard_error"))
    dataset.cka.attrs = {
        "long_name": "CKA",
        "description": "centred kernel alignment: 1 = same, around 0 = independent",
        "units": "1",
    }
    dataset.standard_error.attrs = {
        "long_name": "standard error of CKA",
        "description": "delete-one-batch jackknife, of a single pass",
        "units": "1",
    }
    if z_scores:
        # Chance repeats itself from pass to pass: at worst the standard deviations add up.
        dataset["z"] = total.z_scores() / math.sqrt(len(variances))
        dataset.z.attrs = {
            "long_name": "z-score of CKA under permutation",
            "description": "standard deviations above chance, samples permuted in each batch",
            "units": "1",
        }
    return dataset.assign_attrs(cka.attrs, **provenance, passes=len(finished))
