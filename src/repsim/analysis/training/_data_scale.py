"""CKA of models trained on less data with the model trained on all data, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any

from torch import nn

from repsim._errors import InputError
from repsim._typing import KernelName
from repsim.analysis._arguments import check_arguments
from repsim.analysis.maps._comparison import label_of_side
from repsim.analysis.maps._rank_grams import check_one_bandwidth
from repsim.analysis.maps._side import GramSide, SideOptions
from repsim.analysis.run._drive import Batch, Forward, Prepare
from repsim.analysis.run._provenance import model_label, versions
from repsim.analysis.run._sample_finder import BatchSize
from repsim.analysis.run._token_samples import Pairs, Samples, TokenSamples, token_samples
from repsim.analysis.run.ranks import Ranks, SampleIds
from repsim.analysis.training._passes import all_active
from repsim.analysis.training._same_layers import SameLayers, of_all_ranks, values_of_layers
from repsim.capture import Layers, MaskOption, Select, Transform
from repsim.kernels import Kernel, resolve_kernel
from repsim.results import DATA_SCALE
from repsim.streaming import MIN_BATCH

if TYPE_CHECKING:
    import xarray

__all__ = ["data_scale"]


def data_scale(
    models: Mapping[float, nn.Module],
    full: nn.Module,
    data: Iterable[Any],
    *,
    layers: Layers,
    controls: Mapping[str, nn.Module] | None = None,
    kernel: KernelName | Kernel = "linear",
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
    pairs: Pairs = "between",
    prepare: Prepare | None = None,
    forward: Forward | None = None,
    name: str | None = None,
    progress: bool = True,
    group: Any = None,
    sample_ids: SampleIds | None = None,
) -> xarray.Dataset:
    """CKA of models trained on parts of the data with the model trained on all data, by layer.

    >>> import torch, repsim
    >>> from torch import nn
    >>> def net(seed):
    ...     _ = torch.manual_seed(seed)
    ...     return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    >>> full, data = net(0), [torch.randn(32, 8) for _ in range(4)]
    >>> result = repsim.data_scale(
    ...     {0.1: net(1), 1.0: full}, full, data, layers="*", controls={"untrained": net(2)},
    ...     progress=False,
    ... )
    >>> result.cka.sel(fraction=1.0).round(6).values.tolist()
    [1.0, 1.0, 1.0]
    >>> dict(result.control_cka.sizes)
    {'control': 1, 'layer': 3}

    Unbiased minibatch CKA (:class:`repsim.MinibatchCKA`) of a layer in one model with *the same
    layer* in ``full``: the diagonal of the map of :func:`repsim.compare`. One pass over the data
    serves all models::

        CKA_l = Σ_b w_b h_b(x_l, y_l) / √(Σ_b w_b h_b(x_l, x_l) · Σ_b w_b h_b(y_l, y_l))

    Parameters
    ----------
    models : mapping of float to torch.nn.Module
        A mapping from the fraction of the training data, in (0, 1], to the model that was trained
        on it. All models have one architecture: the same layers by name. They are restored
        afterwards.
    full : torch.nn.Module
        The model trained on all data.
    data : iterable
        Batches of evaluation data, as for :func:`repsim.compare`, iterated once.
    layers : str, re.Pattern, module type, callable, or a list of these
        Which layers, as in :class:`repsim.Recorder`.
    controls : mapping of str to torch.nn.Module, optional
        Models of the same architecture for comparison. Another seed trained on all data shows the
        value of "the same", and an untrained model shows the value due to the inputs alone. Without
        them, a fall of CKA with less data means little because CKA is below 1 between seeds too.
    kernel, transform, mask, select, batch_dim, batch_size
        As in :func:`repsim.compare`.
    all_modules : bool, default False
        Whether a glob that ends in ``*`` also takes layers that return their input unchanged, as in
        :class:`repsim.Recorder`.
    samples, max_samples, skip_first, seed, pairs
        As in :func:`repsim.compare`.
    prepare, forward : callable, optional
        A function from the batch to the batch for all models, and ``forward(model, batch)`` in
        place of ``model(batch)``.
    name : str, optional
        Name of the architecture in the result, by default the class of ``full``.
    progress : bool, default True
        Whether to show a progress bar on standard error.
    group : "world", "alone" or torch.distributed.ProcessGroup, optional
        The ranks whose batches are combined; by default only this process, which "alone" says is
        meant. Each rank passes all models and its share as ``data``, for example by a
        ``DistributedSampler``; shares may be unequal or empty. Every rank returns the same bits.
    sample_ids : callable, optional
        A function from a batch to the ids of its samples, a 1-d tensor, array or list of n numbers
        or strings. If an id was seen before, on any rank, the sample is not counted again: the
        models get the other samples of the batch. This matters because a ``DistributedSampler``
        repeats samples to give all ranks the same number. It costs one exchange of ids per batch.
        Pass it on all ranks or on none.

    Returns
    -------
    xarray.Dataset
        Dims ("fraction", "layer"): ``cka`` in [−1, 1] and its delete-one-batch jackknife
        ``standard_error`` (NaN with a single batch). With controls, dims ("control", "layer"):
        ``control_cka`` and ``control_standard_error``. Fractions ascend, layers are in the
        execution order of ``full``. ``attrs``: model, kernel, estimator, n_samples, n_batches,
        n_skipped_batches, n_skipped_samples, versions; n_ranks with ``group``, n_duplicates with
        ``sample_ids``.

    Raises
    ------
    InputError
        Models or ranks whose layers differ, listing the differences; a fraction outside (0, 1];
        data that cannot be iterated as batches; with a group, a kernel whose bandwidth follows the
        data; a batch with samples that came before cannot be cut, or has another number of ids than
        samples.
    LayerNotFoundError, CaptureError
        A layer does not exist or did not run, or its output is not a batch of samples.
    NonFiniteError
        NaN or infinity in a layer; the message names model, layer and batch.
    StateError
        A rank died, failed, has other modules, weights or options than the others (the message says
        which ranks differ in what), or did not answer within the time limit of its group.

    Warns
    -----
    RepsimWarning
        Batches of fewer than four samples were skipped; there was a single batch; torch.distributed
        has several ranks, but ``group`` is not given.
    DegenerateWarning
        A layer of a model is constant; its CKA is NaN.

    Notes
    -----
    Cost per batch: one forward pass of every model and the Grams. Only pairs of the same layer are
    computed, so M models of L layers cost O(M L n²) more. Memory: the Grams of two models at a
    time, O(L n²).

    References
    ----------
    Raghu et al. 2021, arXiv:2108.08810, Sec. 7: lower layers are learned from little data, higher
    layers are not. Nguyen, Raghu & Kornblith 2021, arXiv:2010.15327, Eq. 3.
    """
    ranks = Ranks("data_scale", group)
    with ranks.raise_on_all_ranks():
        named = _named(models, full, controls)
        check_arguments("data_scale", named, name, progress, prepare=prepare, forward=forward)
        ranks.share(sample_ids)
        tokens = token_samples(
            "data_scale", samples, max_samples, skip_first, seed, transform, pairs=pairs
        )
        chosen = resolve_kernel("data_scale", kernel)
        check_one_bandwidth(ranks, chosen)
        which = SideOptions(transform, mask, select, batch_dim, all_modules)
        side = partial(
            GramSide,
            "data_scale",
            layers=layers,
            options=which,
            kernel=chosen,
            tokens=tokens,
            prepare=prepare,
            forward=forward,
            batch_size=batch_size,
            least=MIN_BATCH if ranks.alone and sample_ids is None else 1,
        )
        fractions = sorted(models)
        labels = [f"fraction {f:g}" for f in fractions]
        labels += [f"control {key!r}" for key in controls or {}]
        everyone = [full, *(models[f] for f in fractions), *(controls or {}).values()]
        sides = [side(model) for model in everyone]
        ranks.agree_on(
            dict(zip(["full", *labels], everyone, strict=True)),
            layers=sides[0].chosen,
            kernel=repr(chosen),
            options=label_of_side(which),
            samples=None if tokens is None else {"pairs": pairs, **tokens.options()},
            prepare=prepare,
            forward=forward,
            batch_size=batch_size,
            name=name,
        )
        sums = [SameLayers("data_scale", [label], "full", chosen) for label in labels]
        with ranks.each_batch(data, *everyone, progress=progress) as batches, all_active(sides):
            _add_batches(batches, sides, sums, tokens)
    sums = of_all_ranks(ranks, sums, tokens)
    names, count = sums[0].layers, len(fractions)
    values, errors = (each[:, :, 0].T for each in values_of_layers("data_scale", sums))
    dataset = _dataset(names, fractions, values[:count], errors[:count])
    if controls:
        dataset = _with_controls(dataset, list(controls), values[count:], errors[count:])
    return dataset.assign_attrs(
        model=model_label(full, name),
        kernel=repr(chosen),
        estimator="minibatch unbiased",
        **sums[0].counts,
        **({} if tokens is None else tokens.report()),
        **ranks.report(),
        **versions(),
    )


def _add_batches(
    batches: Iterator[Batch],
    sides: Sequence[GramSide],
    sums: Sequence[SameLayers],
    tokens: TokenSamples | None,
) -> None:
    """Run all models on all batches, the reference first, and add the pairs of their layers."""
    reference, *others = sides
    centred = dict if tokens is None else tokens.centred
    for batch in batches:
        reference.start_tokens(batch)
        expected = centred(reference.run_recorded(batch))
        batch.n_samples(reference.n_samples)
        for each, other in zip(sums, others, strict=True):
            each.add([centred(other.run_recorded(batch))], expected)
        if tokens is not None:
            tokens.count()


def _named(models: object, full: object, controls: object) -> dict[str, object]:
    """Return all models by argument, or raise if the mappings are unusable."""
    if not isinstance(models, Mapping) or not models:
        raise InputError(
            "data_scale: models must map fractions of the training data to models, one or more.\n"
            f"  got {models if isinstance(models, Mapping) else type(models).__name__}\n"
            "  Pass models={0.03: small, 0.1: medium}."
        )
    strange = [f for f in models if isinstance(f, bool) or not isinstance(f, Real)]
    if strange or not all(0 < f <= 1 for f in models):
        raise InputError(
            "data_scale: the keys of models must be fractions of the data, in (0, 1].\n"
            f"  got {list(models)}\n"
            "  10 % is 0.1; a model that was not trained on a part of the data goes into "
            "controls=."
        )
    if not isinstance(controls, Mapping | None):
        raise InputError(
            f"data_scale: controls must map names to models.\n  got {type(controls).__name__}"
        )
    named = {"full": full, **{f"models[{key}]": model for key, model in models.items()}}
    return named | {f"controls[{key!r}]": model for key, model in (controls or {}).items()}


def _dataset(
    names: Sequence[str], fractions: Sequence[float], values: Any, errors: Any
) -> xarray.Dataset:
    return DATA_SCALE.dataset(
        {"cka": values, "standard_error": errors},
        {"fraction": [float(f) for f in fractions], "layer": list(names)},
    )


def _with_controls(
    dataset: xarray.Dataset, names: Sequence[str], values: Any, errors: Any
) -> xarray.Dataset:
    return dataset.assign_coords(control=list(names)).assign(
        control_cka=DATA_SCALE.labelled("control_cka", values),
        control_standard_error=DATA_SCALE.labelled("control_standard_error", errors),
    )
