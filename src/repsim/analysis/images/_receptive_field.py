"""Effective receptive fields: which pixels the centre of a layer depends on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from repsim._grid_options import as_cell
from repsim._options import as_count, as_seed, require_choice
from repsim.analysis._arguments import check_arguments
from repsim.analysis.images._batch import image_of, with_image
from repsim.analysis.images._positions import LayerGrids
from repsim.analysis.images._receptive_field_sums import Fields, Probes
from repsim.analysis.images._receptive_field_totals import FieldTotals
from repsim.analysis.images._receptive_field_unit import Centre
from repsim.analysis.run._drive import Forward, Prepare
from repsim.analysis.run._provenance import model_label, versions
from repsim.analysis.run._sample_finder import SampleFinder
from repsim.analysis.run.ranks import Ranks, SampleIds
from repsim.capture import Layers, Recorder, Select
from repsim.capture.tokens import PrefixOption, TokenOptions, VideoGridOption
from repsim.results import attribute

if TYPE_CHECKING:
    import xarray

__all__ = ["effective_receptive_field"]

MODES = ("rademacher", "sum")


def effective_receptive_field(
    model: nn.Module,
    data: Iterable[Any],
    layers: Layers,
    *,
    mode: Literal["rademacher", "sum"] = "rademacher",
    n_probes: int = 16,
    position: tuple[int, ...] | None = None,
    seed: int = 0,
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
    """Mean absolute gradient of the centre unit of each layer with respect to the input pixels.

    Two 3×3 convolutions of ones: the field is the outer product of [1, 2, 3, 2, 1]/9 with itself,
    σ² = n (k² − 1)/6 for n of size k.

    >>> import torch, repsim
    >>> from torch import nn
    >>> net = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(2)))
    >>> for conv in net:
    ...     _ = nn.init.ones_(conv.weight)
    >>> data = [torch.randn(4, 1, 15, 15)]
    >>> result = repsim.effective_receptive_field(net, data, ["0", "1"], progress=False)
    >>> result.sigma.round(4).values.tolist()
    [1.1547, 1.633]
    >>> round(result.participation_area.sel(layer="1").item(), 4), round(6561 / 361, 4)
    (18.1745, 18.1745)

    With y_c the channels of the unit in the middle of a layer's map or patch grid, x_i(r) channel i
    of pixel r, and s_kc = ±1 random signs (Rademacher), drawn separately for each image::

        m(r) = mean over images of Σ_i √( 1/K Σ_k (∂ Σ_c s_kc y_c / ∂x_i(r))² )      "rademacher"
        m(r) = mean over images of Σ_i | ∂ Σ_c y_c / ∂x_i(r) |                       "sum"

    The field is p = m/Σm. The first formula estimates Σ_i √(Σ_c (∂y_c/∂x_i(r))²), which depends on
    all channels. The second is that of Luo et al.

    Parameters
    ----------
    model : torch.nn.Module
        Unmodified, on any device. It runs in evaluation mode, so the images of a batch do not mix,
        and without gradients of its parameters. It is restored afterwards.
    data : iterable
        Batches, iterated once; as in :func:`repsim.compare`. The images are the first
        floating-point tensor (n, channels, height, width) of a batch, all of one size. About 32
        images give a stable field. Videos and volumes have a further axis of frames, before or
        after the channels.
    layers : str, re.Pattern, module type, callable, or a list of these
        Which layers, as in :class:`repsim.Recorder`. They must return maps (n, c, h,
        w), (n, h, w, c) or tokens (n, tokens, d). The output of a whole block (timm ``"blocks.3"``,
        torchvision ``"layer1.0"``) is *after* the residual sum. The output of the branch inside it
        (``"blocks.3.attn"``, ``"blocks.3.mlp"``, ``"layer1.0.bn2"``) is *before* it and excludes
        the skip.
    mode : {"rademacher", "sum"}, default "rademacher"
        ``"sum"`` reproduces Luo et al. Do *not* use it after a LayerNorm: there the sum over
        channels is constant, and its gradient is rounding noise that looks like a map.
    n_probes : int, default 16
        K, the number of random signs; ``"sum"`` uses one probe. The error of m in one pixel is at
        most about 1/√(2K) for one image (18 % with 16 probes) and falls with the number of images.
    position : tuple of two int, optional
        Row and column of the unit in each layer's own grid; by default (height//2, width//2). In a
        video, frame, row and column.
    seed : int, default 0
        Seed of the signs. The signs of a layer depend on the seed, the name of the layer and the
        image, not on batch sizes or other layers. They follow the id of an image, with
        ``sample_ids``, else its place in the data. The images of several ranks then alternate, as a
        ``DistributedSampler`` deals them.
    grid, prefix : int or (int, int), int, or mapping of layer to these, optional
        Rows and columns of patches, and the number of tokens before them, for token outputs; by
        default found, as in :func:`repsim.attention_distance`. The tokens of a video lie frame by
        frame in a grid (frames, rows, columns), which must be given.
    channels_last : bool, optional
        Whether 4-d outputs are (n, h, w, c); by default whichever has the image's aspect.
    select, batch_dim
        Which tensor of an output, and its batch axis, as in :class:`repsim.Recorder`.
    all_modules : bool, default False
        Whether a glob that ends in ``*`` also takes layers that return their input unchanged, as in
        :class:`repsim.Recorder`.
    prepare, forward, progress
        As in :func:`repsim.compare`. With ``forward``, gradients are with respect to the images in
        the batch that it gets.
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
        float64. ``field`` ("layer", "row", "column"): p, in [0, 1], sum 1, on input pixels.
        ("layer",): ``participation_area`` 1/Σp² [pixels]: the number of pixels that a uniform field
        of the same Σp² would cover; ``sigma`` √(Σ p r²) [pixels], with r the distance from the
        field's centre of mass (attention distance is a mean distance; this is a root mean square);
        ``side`` √#{m > 0.0455 max m} [pixels] (Luo et al.); ``mass`` Σm [output per input];
        ``centre_row``, ``centre_column`` the centre of mass [pixels]. Coordinates along layer:
        ``grid_height``, ``grid_width``, ``unit_row``, ``unit_column``. For videos, ``field`` is
        summed over frames, and ``time_field`` ("layer", "frame") over pixels; ``time_sigma`` and
        ``centre_frame`` [frames] are the root mean square distance and the centre of
        ``time_field``, and ``grid_frames``, ``unit_frame`` further coordinates. ``attrs``: model,
        erf_mode, n_probes, seed, position, n_samples, n_batches, versions; n_ranks with ``group``,
        n_duplicates with ``sample_ids``. p does not depend on the scale of the output or of the
        input.

    Raises
    ------
    InputError
        No floating-point images, images of different sizes, a position outside a layer's grid;
        grids or layers that differ between ranks; a batch with samples that came before that cannot
        be cut, or another number of ids than images.
    LayerNotFoundError, CaptureError
        A layer does not exist or did not run; the positions of a layer with an exact name are
        unknown (pass ``grid``, ``prefix`` or ``channels_last``); no layer remains; no autograd
        graph connects a layer to the images; the backward raises an error, as in FSDP.
    NonFiniteError
        NaN or infinity in a unit or its gradient; the message names layer and batch. For a model on
        an accelerator, the error comes after the last batch.
    StateError
        A rank died, failed, has other modules, weights or options than the others (the message says
        which ranks differ in what), or did not answer within the time limit of its group.

    Warns
    -----
    DegenerateWarning
        The gradient of a layer is exactly zero, or the layer has no graph; its values are NaN.
    RepsimWarning
        Layers found by a glob have unknown positions; torch.distributed has several ranks, but
        ``group`` is not given.

    Notes
    -----
    The samples are found as in :func:`repsim.compare`, by forwards of two and of three images.
    Cost per batch: one forward and layers × n_probes backwards. Memory: the graph of a batch, so
    use small batches, and one float64 map per layer. Gradients are in the model's precision, their
    squares and sums in float64. The estimate is low by about 1/(4K) everywhere; p does not change.
    Activation checkpointing works in its non-reentrant form.

    References
    ----------
    Luo, Li, Urtasun, Zemel 2016, arXiv:1701.04128. Raghu et al. 2021, arXiv:2108.08810.
    """
    operation = "effective_receptive_field"
    ranks = Ranks(operation, group)
    with ranks.raise_on_all_ranks():
        check_arguments(
            operation, {"model": model}, name, progress, prepare=prepare, forward=forward
        )
        require_choice(operation, "mode", mode, MODES)
        n_probes, seed = as_count(operation, "n_probes", n_probes), as_seed(operation, seed)
        ranks.share(sample_ids)
        place = None if position is None else _place(operation, position)
        probes = Probes(n_probes if mode == "rademacher" else None, seed)
        options = TokenOptions(operation, grid, prefix=prefix, with_time=True)
        grids = LayerGrids(options, model, layers, channels_last=channels_last)
        recorder = Recorder(
            model,
            layers,
            transform=Centre(operation, grids, place),
            select=select,
            batch_dim=batch_dim,
            all_modules=all_modules,
            detach=False,
        )
        recorder.enabled = False  # SampleFinder enables it
        ranks.agree_on(
            {"model": model},
            layers=layers,
            mode=mode,
            n_probes=n_probes,
            position=place,
            seed=seed,
            grid=grid,
            prefix=prefix,
            channels_last=channels_last,
            select=select,
            batch_dim=batch_dim,
            all_modules=all_modules,
            prepare=prepare,
            forward=forward,
            name=name,
        )
        fields = Fields(operation, probes, ranks)
        _run(model, data, grids, recorder, fields, prepare, forward, progress=progress)
        part = fields.totals()
        if part is not None:
            options.check_used()
    totals = ranks.merged(part, FieldTotals.merge)
    return totals.dataset().assign_attrs(
        {
            "model": model_label(model, name),
            # Not "mode", because SciPy's NetCDF writer uses an attribute of that name.
            "erf_mode": mode,
            "n_probes": probes.count,
            "seed": attribute(seed),
            "position": "centre" if place is None else ", ".join(map(str, place)),
            **ranks.report(),
            **versions(),
        }
    )


def _run(
    model: nn.Module,
    data: Iterable[Any],
    grids: LayerGrids,
    recorder: Recorder,
    fields: Fields,
    prepare: Prepare | None,
    forward: Forward | None,
    *,
    progress: bool,
) -> None:
    """Add the fields of all batches of this rank."""
    operation = fields.operation
    grids.rows_of = recorder.axes.rows_of
    finder = SampleFinder(operation, lambda _: grids.n_images)
    with ExitStack() as stack:
        # Inside the caller's inference mode there would be no graph in any gradient mode.
        stack.enter_context(torch.inference_mode(False))
        batches = stack.enter_context(
            fields.ranks.each_batch(data, model, progress=progress, gradients=True)
        )
        stack.enter_context(_without_parameter_gradients(model))
        for batch in batches:
            if batch.is_first:  # without a batch, the recorder would miss its layers
                stack.enter_context(grids)
                stack.enter_context(recorder)
            prepared = batch.prepared(model, prepare, forward)
            image = image_of(operation, prepared.value, floating=True, videos=True)
            leaf = image.detach().clone().requires_grad_()
            # Pass a copy, because the model may modify its input in place, which a leaf forbids.
            given = replace(prepared, value=with_image(prepared.value, image, leaf.clone()))
            grids.measure(leaf)
            finder.ask(given, model, [recorder], forward)
            grids.start(prepared.value)
            recorder.clear()
            finder.run(given, model, [recorder], forward)
            units = {label: unit for label, unit in recorder.items() if unit is not None}
            grids.report(units)
            fields.add(leaf, units, prepared)
            # Otherwise the graph would remain until the next forward ends.
            del units, given, leaf
            recorder.clear()


def _place(operation: str, position: tuple[int, ...]) -> tuple[int, ...]:
    """Return (row, column), or (frame, row, column) of a video."""
    if isinstance(position, tuple | list) and len(position) == 3:
        frame, *rest = position
        return (
            as_cell(operation, "position", (frame, 0))[0],
            *as_cell(operation, "position", tuple(rest)),
        )
    return as_cell(operation, "position", position)


@contextmanager
def _without_parameter_gradients(model: nn.Module) -> Iterator[None]:
    """Switch off gradients of parameters during the backwards, and restore every flag."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
