"""Token localisation: whether a token still resembles the image patch at its place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from repsim._errors import StateError, warn
from repsim._grid_options import VideoGrid, as_video_grid
from repsim._options import as_count
from repsim.analysis._arguments import check_arguments
from repsim.analysis.images._batch import image_of
from repsim.analysis.images._localization_result import localization_result
from repsim.analysis.images._localization_sums import TokenPatchSums
from repsim.analysis.images._localization_total import Localized
from repsim.analysis.images._positions import LayerGrids
from repsim.analysis.run._drive import Batch, Forward, Prepare
from repsim.analysis.run._provenance import model_label, versions
from repsim.analysis.run._sample_finder import SampleFinder
from repsim.analysis.run.ranks import Ranks, SampleIds
from repsim.capture import Layers, Recorder, Select
from repsim.capture.tokens import PrefixOption, TokenOptions, VideoGridOption
from repsim.streaming import MIN_BATCH

if TYPE_CHECKING:
    import xarray

__all__ = ["token_localization"]


def token_localization(
    model: nn.Module,
    data: Iterable[Any],
    layers: Layers,
    *,
    patches: VideoGrid | None = None,
    memory: int = 1 << 30,
    grid: VideoGridOption = None,
    prefix: PrefixOption = None,
    channels_last: bool | None = None,
    select: Select | None = None,
    batch_dim: int | Mapping[str, int] | None = None,
    all_modules: bool = False,
    prepare: Prepare | None = None,
    forward: Forward | None = None,
    progress: bool = True,
    name: str | None = None,
    group: Any = None,
    sample_ids: SampleIds | None = None,
) -> xarray.Dataset:
    """CKA of every token of each layer with every patch of the input image, over images.

    A patch embedding of independent patches localises perfectly:

    >>> import torch, repsim
    >>> from torch import nn
    >>> _ = torch.manual_seed(0)
    >>> net = nn.Sequential(nn.Conv2d(3, 64, 4, stride=4), nn.Flatten(2))
    >>> data = [torch.randn(64, 3, 16, 16) for _ in range(2)]
    >>> result = repsim.token_localization(net, data, "0", progress=False)
    >>> result.hit_rate.item(), result.chance.item()
    (1.0, 0.0625)
    >>> dict(result.cka.sizes)
    {'layer': 1, 'token': 16, 'patch': 16}

    This is unbiased minibatch CKA with a linear kernel (:class:`repsim.MinibatchCKA`). With A_t and
    B_q the U-centred Grams (n, n) of token t and of the pixels of patch q over the n images of a
    batch::

        cka(t, q) = Σ_b ⟨A_t, B_q⟩ / √(Σ_b ⟨A_t, A_t⟩ · Σ_b ⟨B_q, B_q⟩)

    The summary is how often the most similar patch of a token is its own.

    Parameters
    ----------
    model : torch.nn.Module
        Unmodified, on any device. It runs in evaluation mode without gradients and is restored
        afterwards.
    data : iterable
        Batches, iterated once; as in :func:`repsim.compare`. The images are the first tensor
        (n, channels, height, width) of a batch, or videos (n, channels, frames, height, width),
        (n, frames, channels, height, width). Larger batches give smaller errors (the paper uses
        1024). Batches of fewer than four images are skipped and reported.
    layers : str, re.Pattern, module type, callable, or a list of these
        Which layers, as in :class:`repsim.Recorder`. They must return tokens (n,
        tokens, d) or maps (n, c, h, w) or (n, h, w, c), those of videos with frames before rows;
        every position of a map is a token.
    patches : int or (int, int) or (int, int, int), optional
        Rows and columns of equal patches into which the image is cut; those of a video begin with
        frames. By default each layer uses its own grid, so patches have the resolution of the map.
        A token's own patch is the one that contains its centre.
    memory : int, default 2**30
        Bytes that Gram matrices may take at a time, including intermediate results. More memory is
        faster until all patches of an image fit, because the Grams of tokens are computed once for
        every block of patches.
    grid, prefix : int or (int, int) or (int, int, int), int, or mapping of layer to these, optional
        Rows and columns of the model's patches, and the number of tokens before them, for token
        outputs; by default found, as in :func:`repsim.attention_distance`. The tokens of a video
        lie frame by frame, and their grid (frames, rows, columns) must be given.
    channels_last : bool, optional
        Whether 4-d outputs are (n, h, w, c); by default whichever has the image's aspect.
    select, batch_dim
        Which tensor of an output, and its batch axis, as in :class:`repsim.Recorder`.
    all_modules : bool, default False
        Whether a glob that ends in ``*`` also takes layers that return their input unchanged, as in
        :class:`repsim.Recorder`.
    prepare, forward, progress
        As in :func:`repsim.compare`. With ``forward``, the patches are those of the images in the
        batch that it gets.
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
        float64. ``cka`` ("layer", "token", "patch") in [−1, 1], around 0 for independent tokens and
        patches; NaN beyond the tokens and patches of a layer. ("layer",): ``hit_rate``, the share
        of spatial tokens whose largest CKA is that with their own patch; ``chance``, the hit rate
        of a random patch, one over the number of patches (also the average hit rate if a random
        permutation matches tokens and patches); ``argmax_distance`` [pixels], the mean distance
        between the centres of that patch and of their own; ``chance_distance`` [pixels], the same
        for a random patch. For videos also ``argmax_time_distance`` and ``chance_time_distance``
        [frames], the same along time. Constant patches are not candidates. Tokens that are
        constant, or whose own patch is constant, do not count. Coordinates: ``token_row``,
        ``token_column``, ``is_prefix`` ("layer", "token"), ``patch_row``, ``patch_column``
        ("layer", "patch"), NaN where there is none; ``grid_height``, ``grid_width``,
        ``patch_height``, ``patch_width`` [pixels] ("layer",); for videos also ``token_frame``,
        ``patch_frame``, ``grid_frames``, ``patch_frames`` [frames]. ``attrs``: model, patch_size
        and grid ("per layer" where they differ), estimator, n_samples, n_batches,
        n_skipped_batches, n_skipped_samples, versions; n_ranks with ``group``, n_duplicates with
        ``sample_ids``.

    Raises
    ------
    InputError
        A ``memory`` that does not hold two Grams of a batch, images or grids that change from
        batch to batch or differ between ranks, more patches than pixels; a batch with images that
        came before cannot be cut, or has another number of ids than images.
    LayerNotFoundError, CaptureError
        A layer does not exist or did not run; the positions of a layer with an exact name are
        unknown (pass ``grid``, ``prefix`` or ``channels_last``); no layer remains.
    NonFiniteError
        NaN or infinity in a token or a patch; the message names layer and batch. For a model on an
        accelerator, the error comes after the last batch.
    StateError
        There was no batch of at least four images; a rank died, failed, has other weights or
        options than the others (the message says which ranks differ in what), or did not answer
        within the time limit of its group.

    Warns
    -----
    DegenerateWarning
        Patches (black borders) or tokens (CLS before the first attention) are the same in all
        images; their CKA is NaN.
    RepsimWarning
        Short batches were skipped; layers found by a glob have unknown positions; torch.distributed
        has several ranks, but ``group`` is not given.

    Notes
    -----
    The biased CKA of independent tokens of p features is about p/(n + p), so only unbiased CKA can
    compare tokens.

    The samples are found as in :func:`repsim.compare`, by forwards of two and of three images.
    Everything is computed inside the hooks, and no activation is kept. Cost for P tokens of d
    features and Q patches of e pixels: O(n² (P d + Q e + P Q)) per layer and batch; the Grams of
    patches are shared by consecutive layers of one grid if ``memory`` holds all of them, n² numbers
    each. The result holds P × Q numbers per layer, in float64 on the device of the layer until the
    last batch: pass ``patches`` for fine maps.

    With a group, the Grams are those of the batches of each rank, so the value is that of one
    process on the same batches, up to rounding. Each rank sends its P × Q sums once.

    If ``patches`` does not divide the image, it is cut at ⌊i·height/rows⌋.

    References
    ----------
    Raghu et al. 2021, arXiv:2108.08810 (localisation). Nguyen, Raghu, Kornblith 2021,
    arXiv:2010.15327, Eq. 3.
    """
    operation = "token_localization"
    ranks = Ranks(operation, group)
    with ranks.raise_on_all_ranks():
        check_arguments(
            operation, {"model": model}, name, progress, prepare=prepare, forward=forward
        )
        ranks.share(sample_ids)
        memory = as_count(operation, "memory", memory)
        options = TokenOptions(operation, grid, prefix=prefix, with_time=True)
        grids = LayerGrids(options, model, layers, channels_last=channels_last)
        cut = None if patches is None else as_video_grid(operation, patches, "patches")
        sums = TokenPatchSums(operation, cut, memory)
        which: dict[str, Any] = {
            "select": select,
            "batch_dim": batch_dim,
            "all_modules": all_modules,
        }
        recorder = Recorder(model, layers, transform=_Adding(grids, sums), **which)
        grids.rows_of = recorder.axes.rows_of
        recorder.enabled = False  # SampleFinder enables it
        ranks.agree_on(
            {"model": model},
            layers=layers,
            patches=cut,
            grid=grid,
            prefix=prefix,
            channels_last=channels_last,
            **which,
            prepare=prepare,
            forward=forward,
            name=name,
        )
        with ranks.each_batch(data, model, progress=progress) as batches:
            _add_batches(batches, model, recorder, grids, sums, prepare, forward)
        if sums.n_batches:
            options.check_used()
        part = sums.total()
    total = ranks.merged(part, Localized.merge)
    _check_batches(total)
    return localization_result(
        total,
        {
            "model": model_label(model, name),
            "estimator": "minibatch unbiased",
            **total.counts,
            **ranks.report(),
            **versions(),
        },
    )


def _add_batches(
    batches: Iterator[Batch],
    model: nn.Module,
    recorder: Recorder,
    grids: LayerGrids,
    sums: TokenPatchSums,
    prepare: Prepare | None,
    forward: Forward | None,
) -> None:
    """Run the model on all batches, and add them to the sums."""
    finder = SampleFinder(sums.operation, lambda _: grids.n_images)
    with ExitStack() as stack:
        for batch in batches:
            prepared = batch.prepared(model, prepare, forward)
            image = image_of(sums.operation, prepared.value, videos=True)
            n = prepared.n_samples(int(image.shape[0]))
            if n < MIN_BATCH:
                sums.skip(n)
                continue
            if not sums.n_batches:  # before, no layer may run: a rank may have no batch
                stack.enter_context(grids)
                stack.enter_context(recorder)
            grids.measure(image)
            finder.ask(prepared, model, [recorder], forward)
            grids.start(prepared.value)
            sums.start(image)
            recorder.clear()
            finder.run(prepared, model, [recorder], forward)
            kept = {label: key for label, key in recorder.items() if key is not None}
            grids.report(kept)
            sums.finish(kept)


def _check_batches(total: Localized) -> None:
    """Warn about short batches; raise if there are no others."""
    if not total.n_batches:
        raise StateError(
            f"{total.operation}: there is nothing to compute from.\n"
            f"  batches of at least {MIN_BATCH} images: 0, shorter ones: "
            f"{total.n_skipped_batches}\n"
            f"  Bring batches of {MIN_BATCH} images or more."
        )
    if total.n_skipped_batches:
        warn(
            f"{total.operation}: {total.n_skipped_batches} batch(es) of fewer than {MIN_BATCH} "
            f"samples ({total.n_skipped_samples} samples in all) were left out.",
        )


class _Adding:
    """A transform for the recorder: add an output to the sums, and keep only its key."""

    wants_layer = True

    def __init__(self, grids: LayerGrids, sums: TokenPatchSums) -> None:
        self._grids = grids
        self._sums = sums

    def __call__(self, tensor: Tensor, layer: str, call: int) -> tuple[str, int] | None:
        """Return the key of the layer's sums; None for an output without positions."""
        grid = self._grids.of(tensor, layer, call)
        return None if grid is None else self._sums.add(tensor, grid, layer, call)
