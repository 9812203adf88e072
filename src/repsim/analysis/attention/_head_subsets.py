"""CKA of subsets of heads with layers of another model, by attention distance."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from repsim._errors import InputError
from repsim._options import as_count, got, require_choice
from repsim.analysis._arguments import check_arguments
from repsim.analysis.attention._head_grams import HeadGrams
from repsim.analysis.attention._head_totals import LAYER, HeadTotals
from repsim.analysis.maps._comparison import label_of_side
from repsim.analysis.maps._side import GramSide, SideOptions
from repsim.analysis.run._drive import Batch, Forward, Prepare
from repsim.analysis.run._followed import learn_sequences
from repsim.analysis.run._provenance import model_label, versions
from repsim.analysis.run._sample_finder import BatchSize
from repsim.analysis.run.ranks import Ranks, SampleIds
from repsim.capture import (
    AttentionRecorder,
    BoundTransform,
    Layers,
    MaskOption,
    Masks,
    Select,
    Transform,
)
from repsim.capture.tokens import GridOption, PatchOption, PrefixOption, TokenOptions
from repsim.kernels import Linear
from repsim.streaming import MIN_BATCH, MinibatchCKA

if TYPE_CHECKING:
    import xarray

__all__ = ["head_subset_cka"]

KINDS = ("growing", "sliding")


def head_subset_cka(
    model_x: nn.Module,
    model_y: nn.Module,
    data: Iterable[Any],
    *,
    layer: str,
    layers_y: Layers,
    subsets: str | Sequence[str] = KINDS,
    width: int | None = None,
    grid: GridOption = None,
    patch_size: PatchOption = None,
    prefix: PrefixOption = None,
    transform: Transform = None,
    transform_x: Transform = None,
    mask: MaskOption = "auto",
    select: Select | None = None,
    batch_dim: int | Mapping[str, int] | None = None,
    batch_size: BatchSize = None,
    all_modules: bool = False,
    prepare_x: Prepare | None = None,
    prepare_y: Prepare | None = None,
    forward: Forward | None = None,
    names: tuple[str, str] | None = None,
    progress: bool = True,
    group: Any = None,
    sample_ids: SampleIds | None = None,
) -> xarray.Dataset:
    """CKA of subsets of a layer's heads with layers of another model, by how far the heads look.

    >>> import torch, repsim
    >>> from torch import nn
    >>> class Patches(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.patches = nn.Conv2d(3, 8, kernel_size=4, stride=4)
    ...         self.attention = nn.MultiheadAttention(8, num_heads=2, batch_first=True)
    ...     def forward(self, images):
    ...         x = self.patches(images).flatten(2).transpose(1, 2)
    ...         return self.attention(x, x, x)[0]
    >>> _ = torch.manual_seed(0)
    >>> other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    >>> data = [torch.randn(16, 3, 16, 16) for _ in range(2)]
    >>> result = repsim.head_subset_cka(
    ...     Patches(), other, data, layer="attention", layers_y="*", progress=False
    ... )
    >>> result.kind.values.tolist(), result["size"].values.tolist()
    (['growing', 'growing', 'sliding', 'sliding'], [1, 2, 1, 1])
    >>> result.cka.dims
    ('subset', 'layer_y')

    The heads h of one attention layer are ordered by their mean attention distance, from local to
    global. The representation of a subset S is the concatenated output P·V of its heads for all
    tokens. The linear Gram of concatenated features is the sum of their Grams, K_S = Σ_{h∈S} K_h,
    so HSICs add too::

        CKA(S, y) = Σ_{h∈S} H(h, y) / √(Σ_{h,h'∈S} H(h, h') · H(y, y))

    with H the unbiased HSIC summed over batches as in :class:`repsim.MinibatchCKA`. One pass over
    the data is enough for all subsets.

    Parameters
    ----------
    model_x : torch.nn.Module
        The model with attention, unmodified, in any wrapper.
    model_y : torch.nn.Module
        The model to compare with. Both models are restored afterwards.
    data : iterable
        Batches, iterated once for both models, as for :func:`repsim.compare`.
    layer : str
        The module of model_x whose forward contains the attention, ``"blocks.0.attn"``; with ``:k``
        if it has several calls.
    layers_y : str, re.Pattern, module type, callable, or a list of these
        Which layers of model_y, as in :class:`repsim.Recorder`.
    subsets : {"growing", "sliding"} or a list of them, default both
        ``"growing"``: the 1, 2, 3, ... most local heads. ``"sliding"``: ``width`` consecutive heads
        in the order, so all subsets have the same size.
    width : int, optional
        Heads in a sliding subset, at least 1; by default a quarter of them.
    grid, patch_size, prefix
        Where the tokens lie, as in :func:`repsim.attention_distance`.
    transform : {"flatten", "cls", "first", "last", "mean"} or callable, optional
        Which part of an output of model_y to compare, as in :func:`repsim.compare`.
    transform_x : {"flatten", "cls", "first", "last", "mean"} or callable, optional
        Which part of the output (n, tokens, d) of a head to compare; by default all its tokens.
        "flatten" compares padding too, and warns: pass ``"mean"`` or ``"last"`` for padded texts.
    mask
        Which positions are real, as in :func:`repsim.compare`.
    select, batch_dim, batch_size
        Which tensor of an output of model_y, its batch axis, and the samples of a batch, as in
        :func:`repsim.compare`.
    all_modules : bool, default False
        Whether a glob that ends in ``*`` also takes layers that return their input unchanged, as in
        :class:`repsim.Recorder`.
    prepare_x, prepare_y, forward
        As in :func:`repsim.compare`.
    names : tuple of two str, optional
        Names of the models in the result, by default their classes.
    progress : bool, default True
        Whether to show a progress bar on standard error.
    group : "world", "alone" or torch.distributed.ProcessGroup, optional
        The ranks whose batches are combined; by default only this process, which "alone" says is
        meant. Each rank passes its share as ``data``, for example by a ``DistributedSampler``;
        shares may be unequal or empty. Every rank returns the same bits.
    sample_ids : callable, optional
        A function from a batch to the ids of its samples, a 1-d tensor, array or list of n numbers
        or strings. If an id was seen before, on any rank, the sample is not counted again: the
        models get the other samples of the batch. This matters because a ``DistributedSampler``
        repeats samples to give all ranks the same number. It costs one exchange of ids per batch.
        Pass it on all ranks or on none.

    Returns
    -------
    xarray.Dataset
        float64. Dims ("subset", "layer_y"): ``cka`` in [−1, 1], and its delete-one-batch jackknife
        ``standard_error`` (NaN for a single batch). Dims ("head", "layer_y"): ``head_cka``, the CKA
        of single heads. Dim ("head",): ``head_distance``, mean attention distance in pixels, or in
        tokens for a text. Coordinates along subset: ``mean_distance``, the mean over its heads;
        ``size``; ``kind``; ``heads``, their numbers from local to global ("3,0,7"). ``attrs``:
        model_x, model_y, layer, n_samples, n_batches, versions; n_ranks with ``group``,
        n_duplicates with ``sample_ids``.

    Raises
    ------
    InputError
        More than one attention call or none under ``layer``; an unknown kind of subset; a width
        beyond the number of heads; a grid that cannot be found; ranks whose heads, grids or layers
        differ; a batch with samples that came before cannot be cut, or has another number of ids
        than samples.
    LayerNotFoundError, CaptureError
        A layer does not exist, has no attention or did not run; ``layer`` attends to another
        sequence, so that its heads have no distance.
    NonFiniteError
        NaN or infinity in a head or a layer; the message names it and the batch.
    StateError
        A rank died, failed, has other modules, weights or options than the others (the message says
        which ranks differ in what), or did not answer within the time limit of its group.

    Warns
    -----
    RepsimWarning
        Batches of fewer than four samples were skipped; there was a single batch; torch.distributed
        has several ranks, but ``group`` is not given.
    DegenerateWarning
        A head or layer is constant.

    Notes
    -----
    The distances are the plain ones, in which attention to prefix tokens counts as 0. In addition
    to the forwards, H heads and L layers take O(n²(H + L)) memory and cost O(n² Σp + n²(H + L)H).
    With a group, the Grams are those of the batches of each rank, so the value is that of one
    process on the same batches, up to rounding.

    References
    ----------
    Raghu et al. 2021, arXiv:2108.08810, Sec. 4, Fig. 5: subsets of local heads resemble the lower
    layers of a ResNet more than subsets of global ones.
    """
    ranks = Ranks("head_subset_cka", group)
    with ranks.raise_on_all_ranks():
        models = {"model_x": model_x, "model_y": model_y}
        functions = {"prepare_x": prepare_x, "prepare_y": prepare_y, "forward": forward}
        check_arguments("head_subset_cka", models, names, progress, **functions)
        ranks.share(sample_ids)
        kinds = _kinds(subsets)
        _check_layer(layer)
        width = None if width is None else as_count("head_subset_cka", "width", width)
        options = TokenOptions("head_subset_cka", grid, patch_size, prefix)
        of_heads = "flatten" if transform_x is None else transform_x
        masks = Masks("head_subset_cka", mask)
        bound = BoundTransform("head_subset_cka", of_heads, model_x, masks)
        heads = HeadGrams(options, bound, width)
        least = MIN_BATCH if ranks.alone and sample_ids is None else 1
        side = SideOptions(transform, mask, select, batch_dim, all_modules)
        others = GramSide(
            "head_subset_cka",
            model_y,
            layers_y,
            side,
            kernel=Linear(),
            prepare=prepare_y,
            forward=forward,
            batch_size=batch_size,
            least=least,
        )
        ranks.agree_on(
            models,
            layer=layer,
            layers_y=others.chosen,
            subsets=kinds,
            width=width,
            grid=grid,
            patch_size=patch_size,
            prefix=prefix,
            transform_x=transform_x,
            options_y=label_of_side(side),
            batch_size=batch_size,
            names=names,
            **functions,
        )
        attention = AttentionRecorder(model_x, layer, handle=heads.add)
        with (
            ranks.each_batch(data, model_x, model_y, progress=progress) as batches,
            heads.distances.watching(model_x),
            others,
        ):
            part = _totals(batches, attention, heads, (model_x, prepare_x, forward), others)
    totals = ranks.merged(part, HeadTotals.merge)
    result = totals.dataset(kinds, width)
    return result.assign_attrs(
        {
            "model_x": model_label(model_x, names and names[0]),
            "model_y": model_label(model_y, names and names[1]),
            **result.attrs,
        },
        **ranks.report(),
        **versions(),
    )


def _totals(
    batches: Iterator[Batch],
    attention: AttentionRecorder,
    heads: HeadGrams,
    side: tuple[nn.Module, Prepare | None, Forward | None],
    others: GramSide,
) -> HeadTotals | None:
    """Run both models on all batches, and return the sums; None if there was no batch."""
    model_x, prepare_x, forward = side
    acc = MinibatchCKA(kernel="linear")
    for batch in batches:
        prepared = batch.prepared(model_x, prepare_x, forward)
        if batch.is_first:
            learn_sequences([heads.distances.masks], prepared, model_x, forward)
        heads.start(prepared)
        # One after the other, because the models may share modules or be the same.
        with attention:
            prepared.run(model_x, forward=forward)
        heads.distances.finish(attention)
        found = heads.grams
        home = next(iter(found.values())).device
        grams = others.run_recorded(batch)
        named = {f"{LAYER}{name}": gram.to(home) for name, gram in grams.items()}
        acc.update_grams(found, {**found, **named})
    distances = heads.distances.totals(attention)
    return None if distances is None else HeadTotals(distances, acc.state_dict())


def _kinds(subsets: str | Sequence[str]) -> list[str]:
    kinds: list[Any] = list(subsets) if isinstance(subsets, list | tuple) and subsets else [subsets]
    for kind in kinds:
        require_choice("head_subset_cka", "subsets", kind, KINDS)
    return kinds


def _check_layer(layer: object) -> None:
    if not isinstance(layer, str):
        raise InputError(
            f"head_subset_cka: layer must be the name of one module with attention.\n"
            f"  got {got(layer)}"
        )
