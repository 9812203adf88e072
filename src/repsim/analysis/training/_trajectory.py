"""How the layers of one model change while it is trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from torch import nn

from repsim._errors import InputError
from repsim._options import as_count, got
from repsim._typing import KernelName
from repsim.analysis._arguments import check_arguments
from repsim.analysis.features._choice import chosen_measure, is_streamed
from repsim.analysis.features._side import FeatureSide
from repsim.analysis.maps._comparison import label_of_side
from repsim.analysis.maps._side import GramSide, SideOptions
from repsim.analysis.run._drive import Forward, Prepare
from repsim.analysis.run._provenance import versions
from repsim.analysis.run._sample_finder import BatchSize
from repsim.analysis.run._token_samples import Pairs, Samples, token_samples
from repsim.analysis.run.ranks import Ranks, SampleIds
from repsim.analysis.training._checkpoints import Checkpoint, checked_steps, loaded, rounds_of
from repsim.analysis.training._feature_passes import FeaturePasses
from repsim.analysis.training._passes import GramPasses, Round
from repsim.capture import Layers, MaskOption, Select, Transform
from repsim.kernels import Kernel
from repsim.measures import Measure
from repsim.results import EACH_OTHER, step_label
from repsim.streaming import MIN_BATCH

if TYPE_CHECKING:
    import xarray

__all__ = ["trajectory"]

Against: TypeAlias = Literal["last", "first", "each other"] | nn.Module

CHOICES = ("last", "first", EACH_OTHER)


def trajectory(
    checkpoints: Mapping[float, Checkpoint],
    data: Iterable[Any],
    *,
    against: Against = "last",
    layers: Layers = "*",
    measure: str | Measure = "cka",
    kernel: KernelName | Kernel | None = None,
    transform: Transform = None,
    mask: MaskOption = "auto",
    select: Select | None = None,
    batch_dim: int | Mapping[str, int] | None = None,
    batch_size: BatchSize = None,
    all_modules: bool = False,
    samples: Samples = "inputs",
    max_samples: int | None = None,
    skip_first: int = 0,
    seed: int = 0,
    pairs: Pairs | None = None,
    prepare: Prepare | None = None,
    forward: Forward | None = None,
    memory: int = 2**30,
    name: str | None = None,
    progress: bool = True,
    group: Any = None,
    sample_ids: SampleIds | None = None,
    **options: object,
) -> xarray.Dataset:
    """Compare each layer of a model with itself at other steps of its training.

    >>> import copy, torch, repsim
    >>> from torch import nn
    >>> _ = torch.manual_seed(0)
    >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    >>> checkpoints = {}
    >>> for step in (0, 100, 200):
    ...     checkpoints[step] = copy.deepcopy(net)
    ...     with torch.no_grad():  # in place of training
    ...         net[0].weight += 0.2 * torch.randn(16, 8)
    >>> data = [torch.randn(32, 8) for _ in range(4)]
    >>> result = repsim.trajectory(checkpoints, data, against="last", progress=False)
    >>> result.cka.dims, result.step.values.tolist()
    (('step', 'layer'), [0, 100, 200])
    >>> result.cka.sel(step=200).round(6).values.tolist()
    [1.0, 1.0, 1.0]

    Unbiased minibatch CKA (:class:`repsim.MinibatchCKA`), or any measure, of each layer with *the
    same layer* of the reference, or at every other step::

        CKA_l = Σ_b w_b h_b(x_l, y_l) / √(Σ_b w_b h_b(x_l, x_l) · Σ_b w_b h_b(y_l, y_l))

    Parameters
    ----------
    checkpoints : mapping of number to torch.nn.Module or callable
        The training step, epoch or number of tokens of each checkpoint, and its model; or a
        function without arguments that loads the model. All have one architecture. A model that a
        function loads is in memory only while it runs, next to the reference. Each call must return
        a new model with weights of its own. Models are restored afterwards.
    data : iterable
        Batches of evaluation data, as for :func:`repsim.compare`. They are iterated once for all
        models together, and once more for every function in ``checkpoints``: a ``DataLoader`` or a
        list can be iterated again.
    against : {"last", "first", "each other"} or torch.nn.Module, default "last"
        The reference: the checkpoint of the last or of the first step, or another model of this
        architecture, such as another seed. With "each other", every step is compared with every
        step, and all models are in memory together.
    layers : str, re.Pattern, module type, callable, or a list of these, default "*"
        Which layers, as in :class:`repsim.Recorder`.
    measure, kernel
        As in :func:`repsim.compare`.
    transform, mask, select, batch_dim, batch_size
        As in :func:`repsim.compare`.
    all_modules : bool, default False
        Whether a glob that ends in ``*`` also takes layers that return their input unchanged, as in
        :class:`repsim.Recorder`.
    samples, max_samples, skip_first, seed, pairs
        As in :func:`repsim.compare`.
    prepare, forward : callable, optional
        A function from the batch to the batch for all models, and ``forward(model, batch)`` in
        place of ``model(batch)``.
    memory : int, default 2**30
        For other measures than CKA: the most bytes of the features of one pass.
    name : str, optional
        Name of the model in the result, by default its class.
    progress : bool, default True
        Whether to show a progress bar on standard error.
    group : "world", "alone" or torch.distributed.ProcessGroup, optional
        For CKA, the ranks whose batches are combined; by default only this process, which "alone"
        says is meant. Each rank passes all checkpoints and its share as ``data``, for example by a
        ``DistributedSampler``; shares may be unequal or empty. Every rank returns the same bits.
    sample_ids : callable, optional
        A function from a batch to the ids of its samples, a 1-d tensor, array or list of n numbers
        or strings. If an id was seen before in the pass, on any rank, the sample is not counted
        again. For CKA the models get the other samples of the batch. This matters because a
        ``DistributedSampler`` repeats samples to give all ranks the same number. It costs one
        exchange of ids per batch. Pass it on all ranks or on none.
    **options
        Options of the measure, as in ``measure="mutual_knn", k=10``.

    Returns
    -------
    xarray.Dataset
        Dims ("step", "layer"): ``cka`` in [−1, 1] and its delete-one-batch jackknife
        ``standard_error`` (NaN with a single batch). Another measure has a variable of its name and
        no standard error. With ``against="each other"`` the dims are
        ("step_x", "step_y", "layer"). Steps ascend, layers are in the order of execution.
        ``attrs``: model, compared_with, kernel, estimator, n_samples, n_batches,
        n_skipped_batches, n_skipped_samples, versions; n_ranks with ``group``, n_duplicates of one
        pass with ``sample_ids``. :func:`repsim.plot.trajectory` draws it.

    Raises
    ------
    InputError
        An unknown measure or option, features that do not fit in ``memory``, keys that are not
        numbers, one model at two steps, models or ranks whose layers differ, data that cannot be
        iterated as often as needed or that differ between the passes; ``group`` with another
        measure than CKA, or with a kernel whose bandwidth follows the data; a batch with samples
        that came before cannot be cut, or has another number of ids than samples.
    LayerNotFoundError, CaptureError
        A layer does not exist or did not run, or its output is not a batch of samples.
    NonFiniteError
        NaN or infinity in a layer; the message names layer, step and batch.
    StateError
        A rank died, failed, has other modules, weights or options than the others (the message says
        which ranks differ in what), or did not answer within the time limit of its group.

    Warns
    -----
    RepsimWarning
        Batches of fewer than four samples were skipped; there was a single batch; torch.distributed
        has several ranks, but ``group`` is not given.
    DegenerateWarning
        A layer is constant at a step; its CKA is NaN.

    Notes
    -----
    A CKA of .9 between two steps says little by itself. Compare it with the CKA of another seed:
    ``against=other_seed``. Cost per batch: one forward of every model and the Grams; for every
    function in ``checkpoints`` one more forward of the reference. Memory: the Grams of two models
    at a time, O(L n²), or of all of them with "each other"; for other measures the features of the
    models of a pass. With a group, the CKA is that of one process on the same batches, up to
    rounding. With ``max_samples``, each rank draws tokens by the places of their sequences in its
    own share.

    References
    ----------
    Nguyen, Raghu & Kornblith 2021, arXiv:2010.15327, Eq. 3. Raghu et al. 2017, arXiv:1706.05806,
    Sec. 4, for lower layers that reach their final form first.
    """
    ranks = Ranks("trajectory", group, can_combine=is_streamed(measure))
    with ranks.raise_on_all_ranks():
        steps = checked_steps(checkpoints)
        reference = _reference(against, steps)
        named = {"against": against} if isinstance(against, nn.Module) else {}
        check_arguments("trajectory", named, name, progress, prepare=prepare, forward=forward)
        ranks.share(sample_ids)
        only_cka = {"group": not ranks.alone}
        measured = chosen_measure(
            "trajectory", measure, options, function=trajectory, kernel=kernel, only_cka=only_cka
        )
        memory = as_count("trajectory", "memory", memory)
        pairs = measured.pairs("trajectory", pairs, samples)
        drawn = max_samples, skip_first, seed
        tokens = partial(token_samples, "trajectory", samples, *drawn, transform, pairs=pairs)
        which = SideOptions(transform, mask, select, batch_dim, all_modules)
        side: dict[str, Any] = {
            "layers": layers,
            "options": which,
            "prepare": prepare,
            "forward": forward,
            "batch_size": batch_size,
        }
        passes: GramPasses | FeaturePasses
        if measured.streams:
            ranks.agree_on(
                named,
                steps=steps,
                functions=[not isinstance(checkpoints[step], nn.Module) for step in steps],
                against=_phrase(against, steps),
                samples=[samples, *drawn, pairs],
                name=name,
                **{**side, "options": label_of_side(which), "kernel": repr(kernel)},
            )
            side["least"] = MIN_BATCH if ranks.alone and sample_ids is None else 1
            passes = GramPasses(partial(GramSide, **side), tokens, ranks, data, progress, kernel)
        else:
            features = partial(FeatureSide, "trajectory", **side)
            passes = FeaturePasses(features, tokens, data, progress, measured, memory, sample_ids)
        if reference is None:
            models = loaded(checkpoints, steps)
            passes.run(Round(models, models[steps[0]], None))
        else:
            _run_with(passes, checkpoints, steps, reference, data)
    passes.merge()
    duplicates = {} if sample_ids is None else {"n_duplicates": passes.duplicates}
    return passes.dataset(steps, together=reference is None).assign_attrs(
        model=name or passes.model_name,
        compared_with=_phrase(against, steps),
        **passes.described,
        **passes.counts,
        **passes.report,
        **{**ranks.report(), **duplicates},
        **versions(),
    )


def _run_with(
    passes: GramPasses | FeaturePasses,
    checkpoints: Mapping[float, Checkpoint],
    steps: Sequence[float],
    reference: nn.Module | float,
    data: object,
) -> None:
    """Compare all steps with one model: one pass for all models, and one for each loader."""
    rounds = rounds_of(checkpoints, steps)
    if len(rounds) > 1 and isinstance(data, Iterator):
        raise InputError(
            f"trajectory: data can be iterated only once, and there are {len(rounds)} passes.\n"
            f"  got {type(data).__name__}\n"
            f"  Pass a DataLoader or a list, or models in place of functions."
        )
    at, label = None, "the reference"
    if not isinstance(reference, nn.Module):
        at, label = reference, f"step {step_label(reference)}"
        reference = loaded(checkpoints, [at])[at]
    for chosen in rounds:
        # Not kept in a name: the models of a pass are freed before the next are loaded.
        passes.run(Round(loaded(checkpoints, chosen, {at: reference}), reference, label))


def _reference(against: object, steps: Sequence[float]) -> nn.Module | float | None:
    """Return the reference or its step; None for "each other"."""
    if isinstance(against, nn.Module):
        return against
    if against not in CHOICES:
        raise InputError(
            f"trajectory: against must be {', '.join(map(repr, CHOICES))} or a torch.nn.Module.\n"
            f"  got {got(against)}"
        )
    return {"last": steps[-1], "first": steps[0]}.get(str(against))


def _phrase(against: Against, steps: Sequence[float]) -> str:
    if isinstance(against, nn.Module):
        return "another model"
    if against == EACH_OTHER:
        return "every other step"
    return f"step {step_label(steps[-1] if against == 'last' else steps[0])}"
