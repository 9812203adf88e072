"""CKA of subsets of heads with layers of another model, by attention distance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from repsim._errors import InputError, warn
from repsim._options import as_count, got, require_choice
from repsim.analysis._arguments import check_arguments
from repsim.analysis.attention._head_grams import HeadGrams
from repsim.analysis.maps._grams import LayerGrams
from repsim.analysis.run._drive import Forward, Prepare, each_batch
from repsim.analysis.run._followed import learn_sequences
from repsim.analysis.run._provenance import model_label, versions
from repsim.analysis.run._sample_finder import BatchSize, SampleFinder
from repsim.capture import (
    AttentionRecorder,
    BoundTransform,
    Layers,
    MaskOption,
    Masks,
    Recorder,
    Select,
    Transform,
)
from repsim.capture.tokens import GridOption, PatchOption, PrefixOption, TokenOptions
from repsim.kernels import Linear
from repsim.results import HEAD_SUBSET_CKA
from repsim.streaming import MIN_BATCH, BlockSums, MinibatchCKA, PilotKernels, Sums

if TYPE_CHECKING:
    import xarray

__all__ = ["head_subset_cka"]

KINDS = ("growing", "sliding")

_LAYER = "layer "
"""Prefix of the names of layers of y, which must differ from those of heads."""


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
        Whether to show a progress bar.

    Returns
    -------
    xarray.Dataset
        float64. Dims ("subset", "layer_y"): ``cka`` in [−1, 1], and its delete-one-batch jackknife
        ``standard_error`` (NaN for a single batch). Dims ("head", "layer_y"): ``head_cka``, the CKA
        of single heads. Dim ("head",): ``head_distance``, mean attention distance in pixels.
        Coordinates along subset: ``mean_distance`` [pixels], the mean over its heads; ``size``;
        ``kind``; ``heads``, their numbers from local to global ("3,0,7"). ``attrs``: model_x,
        model_y, layer, n_samples, n_batches, versions.

    Raises
    ------
    InputError
        More than one attention call or none under ``layer``; an unknown kind of subset; a width
        beyond the number of heads; a grid that cannot be found.
    LayerNotFoundError, CaptureError
        A layer does not exist, has no attention or did not run.
    NonFiniteError
        NaN or infinity in a head or a layer; the message names it and the batch.

    Warns
    -----
    RepsimWarning
        Batches of fewer than four samples were skipped; there was a single batch.
    DegenerateWarning
        A head or layer is constant.

    Notes
    -----
    The distances are the plain ones, in which attention to prefix tokens counts as 0. In addition
    to the forwards, H heads and L layers take O(n²(H + L)) memory and cost O(n² Σp + n²(H + L)H).

    References
    ----------
    Raghu et al. 2021, arXiv:2108.08810, Sec. 4, Fig. 5: subsets of local heads resemble the lower
    layers of a ResNet more than subsets of global ones.
    """
    models = {"model_x": model_x, "model_y": model_y}
    functions = {"prepare_x": prepare_x, "prepare_y": prepare_y, "forward": forward}
    check_arguments("head_subset_cka", models, names, progress, **functions)
    kinds = _kinds(subsets)
    if not isinstance(layer, str):
        raise InputError(
            f"head_subset_cka: layer must be the name of one module with attention.\n"
            f"  got {got(layer)}"
        )
    width = None if width is None else as_count("head_subset_cka", "width", width)
    options = TokenOptions("head_subset_cka", grid, patch_size, prefix)
    masks = Masks("head_subset_cka", mask)
    bound_x = BoundTransform(
        "head_subset_cka", "flatten" if transform_x is None else transform_x, model_x, masks
    )
    heads = HeadGrams(options, bound_x, width)
    attention = AttentionRecorder(model_x, layer, handle=heads.add)
    bound = BoundTransform("head_subset_cka", transform, model_y, Masks("head_subset_cka", mask))
    grams = LayerGrams(PilotKernels(Linear()), bound, operation="head_subset_cka")
    where: dict[str, Any] = {"select": select, "batch_dim": batch_dim, "all_modules": all_modules}
    recorder = Recorder(model_y, layers_y, transform=grams, **where)
    acc = MinibatchCKA(kernel="linear")
    samples = SampleFinder("head_subset_cka", batch_size, least=MIN_BATCH)
    with each_batch("head_subset_cka", data, model_x, model_y, progress=progress) as batches:
        for batch in batches:
            prepared = batch.prepared(model_x, prepare_x)
            if not batch.number:
                learn_sequences([heads.distances.masks], prepared, model_x, forward)
            heads.start(prepared)
            # One after the other, because the models may share modules or be the same.
            with attention:
                prepared.run(model_x, forward=forward)
            heads.distances.finish(attention)
            grams.forget()
            with recorder:
                prepared = batch.prepared(model_y, prepare_y)
                bound.start(prepared.value)
                samples.run(prepared, model_y, [recorder], forward, [bound.masks])
            found = heads.grams
            home = next(iter(found.values())).device
            others = {f"{_LAYER}{name}": gram.to(home) for name, gram in recorder.items()}
            acc.update_grams(found, {**found, **others})
    acc.compute()  # warns about constant and skipped data
    distances = heads.means(attention)
    label_x, label_y = (None, None) if names is None else names
    return _dataset(
        acc,
        distances.distance.values[0, : heads.count],
        kinds,
        max(1, heads.count // 4) if width is None else width,
    ).assign_attrs(
        model_x=model_label(model_x, label_x),
        model_y=model_label(model_y, label_y),
        layer=distances.layer.values[0].item(),
        n_samples=acc.n_samples,
        n_batches=acc.n_batches,
        n_skipped_batches=acc.n_skipped_batches,
        n_skipped_samples=acc.n_skipped_samples,
        **versions(),
    )


def _kinds(subsets: str | Sequence[str]) -> list[str]:
    kinds: list[Any] = list(subsets) if isinstance(subsets, list | tuple) and subsets else [subsets]
    for kind in kinds:
        require_choice("head_subset_cka", "subsets", kind, KINDS)
    return kinds


def _chosen(order: Sequence[int], kinds: Sequence[str], width: int) -> list[tuple[str, list[int]]]:
    """Return the subsets as (kind, heads from local to global)."""
    count = len(order)
    growing = [list(order[:size]) for size in range(1, count + 1)]
    sliding = [list(order[at : at + width]) for at in range(count - width + 1)]
    return [
        (kind, members)
        for kind in kinds
        for members in {"growing": growing, "sliding": sliding}[kind]
    ]


def _dataset(acc: MinibatchCKA, distances: Any, kinds: Sequence[str], width: int) -> xarray.Dataset:

    count = len(distances)
    assert acc.layers_y is not None, "heads and layers stand side by side in y"
    # Use the order of the first batch, because layers may run in another order later.
    layers = [name.removeprefix(_LAYER) for name in acc.layers_y[count:]]
    order = np.argsort(distances, kind="stable")
    subsets = _chosen(order.tolist(), kinds, width)
    members = np.zeros((len(subsets), count))
    for row, (_, chosen) in enumerate(subsets):
        members[row, chosen] = 1.0
    sums = acc.block_sums()
    cka, error = _subset_cka(sums, members)
    head_cka, _ = _subset_cka(sums, np.eye(count))
    if len(sums.blocks) < 2:
        warn(
            "head_subset_cka: one batch has no spread, so there is no standard error (NaN).\n"
            "  Pass several batches."
        )
    return HEAD_SUBSET_CKA.dataset(
        {
            "cka": cka,
            "standard_error": error,
            "head_cka": head_cka,
            "head_distance": distances,
        },
        {
            "layer_y": layers,
            "head": np.arange(count),
            "mean_distance": members @ distances / members.sum(1),
            "size": members.sum(1).astype(int),
            "kind": [kind for kind, _ in subsets],
            "heads": [",".join(map(str, chosen)) for _, chosen in subsets],
        },
    )


def _subset_cka(sums: BlockSums, members: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """Return CKA and standard error, (subsets, layers), because HSIC is linear in each Gram."""
    count = members.shape[1]
    mapped = BlockSums(
        [
            Sums(
                members @ block.xy[:, count:],
                (members @ block.xy[:, :count] * members).sum(1),
                block.yy[count:],
                block.batches,
            )
            for block in sums.blocks
        ],
        sums.batches_per_block,
        sums.capacity,
    )
    return mapped.cka(), mapped.jackknife()
