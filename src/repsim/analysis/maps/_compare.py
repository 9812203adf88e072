"""Layer-by-layer CKA of two models, or of one with itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from repsim._array import to_numpy
from repsim._errors import InputError, warn
from repsim.analysis.maps._cka_map import cka_map
from repsim.analysis.maps._ranks import Ranks
from repsim.analysis.maps._run import Run
from repsim.analysis.maps._side import RecordedSide, Sides
from repsim.analysis.run._drive import Forward, Prepare, as_found
from repsim.analysis.run._fingerprint import label_of, model_digest
from repsim.analysis.run._provenance import model_label, transform_label, versions
from repsim.analysis.run._sample_ids import SampleIds
from repsim.capture import Layers, Select, Transform, resolve_transform
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
    _check(model_x, model_y, passes, names)
    resolved = resolve_kernel("compare", kernel)
    if precision is not None:
        resolved = with_precision("compare", resolved, precision)
    ranks = Ranks(group, sample_ids, resolved)
    side = partial(
        RecordedSide,
        "compare",
        kernel=resolved,
        reduce=resolve_transform(transform, "compare"),
        select=select,
        batch_dim=batch_dim,
        forward=forward,
    )
    other = model_x if model_y is None else model_y
    x, y = side(model_x, layers, prepare=prepare_x), None
    # One forward serves both sides where they are one model on one input.
    same_input = prepare_y is prepare_x or (model_y is None and prepare_y is None)
    one_forward = other is model_x and same_input
    if not one_forward or layers_y is not None:
        y = side(other, layers if layers_y is None else layers_y, prepare=prepare_y)
    sides = Sides(x, y, one_forward=one_forward)

    name_x, name_y = names or (None, None)
    labels = {
        "model_x": model_label(model_x, name_x),
        "model_y": model_label(other, name_y),
        "transform": transform_label(transform),
    }
    options = {
        "select": select,
        "batch_dim": batch_dim,
        "prepare_x": prepare_x,
        "prepare_y": prepare_y,
        "forward": forward,
        "sample_ids": sample_ids,
    }
    more = {"kernel": repr(resolved), "passes": passes, "rank": str(ranks)}
    fingerprint = partial(_fingerprint, sides, options, **labels, **more)
    result = partial(cka_map, origin={**labels, **versions()}, z_scores=z_scores)
    with ranks.raise_on_all_ranks():
        run = Run(ranks, resolved, sides.kernels, checkpoint, fingerprint)
        with as_found(model_x, other), sides.in_place(), run.saving(result):
            for batch, new in run.batches(data, passes, progress=progress):
                run.count(sides.grams(batch), new)
    return _finished(run, ranks, result)


def _check(model_x: object, model_y: object, passes: object, names: object) -> None:
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


def _fingerprint(sides: Sides, options: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return what must be the same before a run goes on from a checkpoint."""
    x, y = sides.x, sides.y
    return {
        **more,
        "weights of model_x": model_digest(x.model),
        "weights of model_y": model_digest((x if y is None else y).model),
        "layers": x.chosen,
        "layers_y": "as layers" if y is None else y.chosen,
        **{name: label_of(value) for name, value in options.items()},
    }


def _finished(run: Run, ranks: Ranks, result: Callable[..., xarray.Dataset]) -> xarray.Dataset:
    """Return the result of all ranks, and warn if it is less than was asked for."""
    passes = ranks.all_reduce(run.accumulators)
    attrs: dict[str, Any] = {**ranks.report()}
    if run.interrupted:
        attrs["interrupted"] = f"after {run.n_batches} batches"
        warn(
            f"compare: interrupted {attrs['interrupted']}; this is the result so far. "
            f"The state is in {run.path!r}: call again to go on from there.",
        )
    elif len(passes) > 1 and _same_batches(*passes[:2]):
        warn(
            f"compare: all {len(passes)} passes saw the same batches, so they tell no more than "
            f"one. Pass a loader that reshuffles (shuffle=True).",
        )
    return result(passes, **attrs)


def _same_batches(first: MinibatchCKA, second: MinibatchCKA) -> bool:
    a, b = first.block_sums().blocks, second.block_sums().blocks
    return len(a) == len(b) and all(
        np.array_equal(to_numpy(mine.xy), to_numpy(theirs.xy))
        for mine, theirs in zip(a, b, strict=True)
    )
