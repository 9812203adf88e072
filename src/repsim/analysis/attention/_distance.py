"""How far the attention heads of a model look, from a stream of images."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from torch import nn

from repsim.analysis._arguments import check_arguments
from repsim.analysis.attention._sums import AttentionDistances
from repsim.analysis.attention._totals import AttentionTotals
from repsim.analysis.run._drive import Forward, Prepare
from repsim.analysis.run._followed import learn_sequences
from repsim.analysis.run._provenance import model_label, versions
from repsim.analysis.run.ranks import Ranks, SampleIds
from repsim.capture import AttentionRecorder, Layers, MaskOption, Masks
from repsim.capture.tokens import PrefixOption, TokenOptions, VideoGridOption, VideoPatchOption

if TYPE_CHECKING:
    import xarray

__all__ = ["AttentionDistances", "attention_distance"]


def attention_distance(
    model: nn.Module,
    data: Iterable[Any],
    *,
    layers: Layers = "*",
    grid: VideoGridOption = None,
    patch_size: VideoPatchOption = None,
    prefix: PrefixOption = None,
    mask: MaskOption = "auto",
    prepare: Prepare | None = None,
    forward: Forward | None = None,
    progress: bool = True,
    name: str | None = None,
    group: Any = None,
    sample_ids: SampleIds | None = None,
) -> xarray.Dataset:
    """Mean attention distance, prefix mass and entropy of every head, over images or texts.

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
    >>> model = Patches()
    >>> _ = nn.init.zeros_(model.attention.in_proj_weight)  # every head attends uniformly
    >>> data = [torch.randn(2, 3, 16, 16) for _ in range(2)]
    >>> result = repsim.attention_distance(model, data, progress=False)
    >>> result.distance.round(4).values, result.uniform_distance.round(4).values
    (array([[8.0321, 8.0321]]), array([8.0321]))

    ::

        distance      d_h = mean over images and patches i of  Σ_j A_ij D_ij
        renormalised  d_h = mean over images and patches i of  Σ_j A_ij D_ij / Σ_j A_ij
        prefix mass   m_h = mean over images and patches i of  Σ_{j prefix} A_ij
        entropy       H_h = mean over images and patches i of  −Σ_{all j} A_ij log A_ij

    with A the attention of head h after the softmax, j over patches unless stated otherwise, and
    D_ij = √((ph·Δrow)² + (pw·Δcolumn)²) pixels between patches i and j.

    Parameters
    ----------
    model : torch.nn.Module
        An unmodified model, in any wrapper. It runs in evaluation mode without gradients and is
        restored afterwards. Fused kernels, fast paths and eager attention are all seen; see
        :class:`repsim.capture.AttentionRecorder`.
    data : iterable
        Batches of images, iterated once: a tensor, a tuple or list whose first item is the input,
        or a mapping that is passed whole as keyword arguments; for anything else see `forward`. The
        last batch may be short: every image has the same weight.
    layers : str, re.Pattern, module type, callable, or a list of these, default ``"*"``
        The modules whose forward contains the attention (``"blocks.*.attn"``), by default all.
    grid : int, (int, int), or mapping of layer to these, optional
        Patches along height and width. By default the size of the map of the last convolution that
        leaves 0 to 16 other tokens (exactly timm's ``num_prefix_tokens``, if the model has it). In
        the windows of Swin it is the size of the window. Keys of a mapping are layer names, labels
        or globs. The tokens of a video have a grid (frames, rows, columns), which must be given.
    patch_size : float, (float, float), or mapping of layer to these, optional
        Pixels of the input image from one patch to the next. By default the product of the strides
        of the convolutions from the image to the tokens, times the factor by which later stages
        merge. It is not the size of the image divided by that of the grid, because that is rounded.
        For a video (frames, height, width); by default the video divided by the grid, if it leaves
        no remainder.
    prefix : int, or mapping of layer to int, optional
        Tokens before the patches (CLS, distillation, registers), left out as queries and as keys of
        the distances. By default the tokens that are not in the grid.
    mask
        Which tokens of a text are real, as in :func:`repsim.compare`. Others count neither as
        queries nor as keys.
    prepare : callable, optional
        A function from the batch to the batch for the model, which is then moved to the model's
        device.
    forward : callable, optional
        ``forward(model, batch)`` in place of ``model(batch)``.
    progress : bool, default True
        Whether to show a progress bar on standard error.
    name : str, optional
        Name of the model in the result, by default its class.
    group : "world", "alone" or torch.distributed.ProcessGroup, optional
        The ranks whose batches are combined; by default only this process, which "alone" says is
        meant. Each rank passes its share as ``data``, for example by a ``DistributedSampler``;
        shares may be unequal or empty. Every rank returns the same bits.
    sample_ids : callable, optional
        A function from a batch to the ids of its samples, a 1-d tensor, array or list of n numbers
        or strings. If an id was seen before, on any rank, the sample is not counted again: the
        model gets the other samples of the batch. This matters because a ``DistributedSampler``
        repeats samples to give all ranks the same number. It costs one exchange of ids per batch.
        Pass it on all ranks or on none.

    Returns
    -------
    xarray.Dataset
        float64, dims ("layer", "head"): ``distance`` and ``renormalised`` in pixels,
        ``prefix_mass`` in [0, 1], ``entropy`` in nats; NaN for heads that a layer does not have.
        For text, distances are in tokens, and ``sink_mass`` in [0, 1] is the attention to the first
        real token and to learned sinks.
        For videos, ``distance`` is the distance in space, and ``time_distance`` the one in time, in
        frames.
        Dim ("layer",): ``uniform_distance`` and ``uniform_entropy``, those of a head that attends
        equally to all tokens, and for videos ``uniform_time_distance``.
        Coordinates: the layer names in execution order (``name:0``, ``name:1``, ... where a module
        holds several calls), and along them ``kind``, ``grid_height``, ``grid_width``,
        ``patch_height``, ``patch_width`` and ``prefix``. ``kind`` is "self" or "cross"; attention
        from one sequence to another has an entropy alone, over the real queries, and is NaN
        elsewhere. ``attrs``: model, n_samples, versions; n_ranks with ``group``,
        n_duplicates with ``sample_ids``.

    Raises
    ------
    InputError
        The grid, the pixels between patches or the prefix cannot be found, or the passed values do
        not fit; the grid of a layer changes from batch to batch or from rank to rank; the data are
        not batches; a batch with samples that came before cannot be cut, or has another number of
        ids than samples.
    LayerNotFoundError, CaptureError
        A layer does not exist or has no attention; no attention was seen (the message says why); a
        layer with an exact name has attention without distances.
    NonFiniteError
        NaN or infinity in a layer's attention, naming layer and batch.
    StateError
        A rank died, failed, has other modules, weights or options than the others (the message says
        which ranks differ in what), or did not answer within the time limit of its group.

    Warns
    -----
    RepsimWarning
        Layers found by a glob were left out because they have no distances: they attend over
        channels (XCiT, DaViT), queries and keys differ (pooling), or the tokens are not patches row
        by row (DETR, Hiera); torch.distributed has several ranks, but ``group`` is not given.

    Notes
    -----
    ``distance`` is what the papers plot. Attention to prefix tokens counts as distance 0, so it is
    *smaller for a head that attends to CLS*, however far the rest of its attention reaches.
    ``renormalised`` leaves the prefix out; it is the mean over the patches that attend to any
    patch.

    Attention in windows (Swin) is measured inside the window, in pixels of the input image: at most
    the window's diagonal. If a map is padded to whole windows, padded positions count neither as
    queries nor as keys: the weights of a query sum to 1 over the tokens of its window.

    The positions of a text are those among its real tokens (``mask``), one apart: distances are in
    tokens, the same whichever side the padding is on, and batches may differ in length. ``prefix``
    then counts the first real tokens. ``uniform_distance`` and ``uniform_entropy`` are those of
    uniform attention over the tokens that a query may see: (T − 1)/4 and log(T!)/T for T tokens
    under a causal mask.

    With ``grid=(frames, rows, columns)`` a layer may attend over the whole video (VideoMAE), over
    each frame, or along time at each place (TimeSformer); its number of tokens says which. Tokens
    of one frame have distance 0 in time, tokens of one place distance 0 in space.

    Weights are reduced a few samples at a time, without a tensor of batch × heads × tokens² (eager
    attention makes one itself). Cost: one forward pass and O(batch · heads · tokens² · d) per
    layer.

    References
    ----------
    Raghu et al. 2021, arXiv:2108.08810, Sec. 4, Fig. 3. Dosovitskiy et al. 2021, arXiv:2010.11929,
    App. D.7.
    """
    ranks = Ranks("attention_distance", group)
    with ranks.raise_on_all_ranks():
        check_arguments(
            "attention_distance", {"model": model}, name, progress, prepare=prepare, forward=forward
        )
        ranks.share(sample_ids)
        masks = Masks("attention_distance", mask)
        options = TokenOptions("attention_distance", grid, patch_size, prefix, with_time=True)
        sums = AttentionDistances(options, masks)
        recorder = AttentionRecorder(model, layers, handle=sums.add)
        ranks.agree_on(
            {"model": model},
            layers=layers,
            grid=grid,
            patch_size=patch_size,
            prefix=prefix,
            mask=mask,
            prepare=prepare,
            forward=forward,
            name=name,
        )
        with (
            ranks.each_batch(data, model, progress=progress) as batches,
            ExitStack() as stack,
        ):
            for batch in batches:
                prepared = batch.prepared(model, prepare, forward)
                if batch.is_first:
                    learn_sequences([masks], prepared, model, forward)
                    stack.enter_context(sums.watching(model))
                    stack.enter_context(recorder)
                recorder.clear()
                sums.start(prepared)
                prepared.run(model, forward=forward)
                sums.finish(recorder)
        part = sums.totals(recorder)
    totals = ranks.merged(part, AttentionTotals.merge)
    return totals.dataset().assign_attrs(
        model=model_label(model, name),
        n_samples=totals.n_samples,
        **ranks.report(),
        **versions(),
    )
