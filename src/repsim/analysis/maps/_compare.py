"""Layer-by-layer similarity of two models, or of one model with itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

from torch import nn

from repsim._options import as_count, require_bool
from repsim._typing import KernelName
from repsim.analysis._arguments import check_arguments
from repsim.analysis.features._choice import (
    DRAWS,
    MEMORY,
    Errors,
    FeatureOptions,
    chosen_measure,
    is_streamed,
)
from repsim.analysis.features._compare import compare_features
from repsim.analysis.maps._comparison import Comparison
from repsim.analysis.maps._side import AS_X, AsX, SideOptions
from repsim.analysis.maps._streamed import StreamOptions, stream
from repsim.analysis.run._drive import Forward, Prepare
from repsim.analysis.run._sample_finder import BatchSize
from repsim.analysis.run._token_samples import Pairs, Samples, token_samples
from repsim.analysis.run.ranks import Ranks, SampleIds
from repsim.capture import Layers, MaskOption, Select, Transform
from repsim.kernels import Kernel, Precision
from repsim.measures import Measure

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
    measure: str | Measure = "cka",
    kernel: KernelName | Kernel | None = None,
    precision: Precision | None = None,
    passes: int = 1,
    transform: Transform = None,
    transform_y: Transform | AsX = AS_X,
    mask: MaskOption = "auto",
    mask_y: MaskOption | AsX = AS_X,
    select: Select | None = None,
    select_y: Select | AsX | None = AS_X,
    batch_dim: int | Mapping[str, int] | None = None,
    batch_dim_y: int | Mapping[str, int] | AsX | None = AS_X,
    all_modules: bool = False,
    batch_size: BatchSize = None,
    samples: Samples = "inputs",
    max_samples: int | None = None,
    skip_first: int = 0,
    seed: int = 0,
    pairs: Pairs | None = None,
    prepare_x: Prepare | None = None,
    prepare_y: Prepare | None = None,
    forward: Forward | None = None,
    names: tuple[str, str] | None = None,
    z_scores: bool = False,
    progress: bool = True,
    checkpoint: str | PathLike[str] | None = None,
    group: Any = None,
    sample_ids: SampleIds | None = None,
    memory: int = MEMORY,
    errors: Errors | None = None,
    draws: int = DRAWS,
    permutations: int = 0,
    **options: object,
) -> xarray.Dataset:
    """Similarity of every layer of a model with every layer of another model, or of itself.

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
    >>> found = repsim.compare(net, data=data, measure="mutual_knn", k=10, progress=False)
    >>> found.mutual_knn.dims, found.mutual_knn.attrs["kind"], found.attrs["n_samples"]
    (('layer_x', 'layer_y'), 'similarity', 256)

    By default unbiased minibatch CKA (:class:`repsim.MinibatchCKA`, Nguyen, Raghu & Kornblith 2021,
    Eq. 3) of the layers' outputs, from one pass over the data for both models::

        CKA = Σ_b w_b h_b(x, y) / √(Σ_b w_b h_b(x, x) · Σ_b w_b h_b(y, y)),   w_b = n_b(n_b − 3)

    For any other measure, the outputs of all samples are kept, and the value is that of
    :func:`repsim.pairwise` on them.

    Parameters
    ----------
    model_x, model_y : torch.nn.Module
        Unmodified models, in any wrapper, each on its own device. Without ``model_y``, model_x is
        compared with itself. They run in evaluation mode without gradients. Afterwards all hooks
        are removed, and the train/eval flag of every submodule and the random state are restored.
    data : iterable
        Batches, iterated once per pass for both models. A batch is the input tensor, a tuple or
        list whose first item is the input tensor, or a mapping that is passed whole as keyword
        arguments; for anything else see ``forward``. Draw batches without replacement. Larger
        batches give smaller errors. Batches of fewer than four samples are skipped and reported.
    layers, layers_y : str, re.Pattern, module type, callable, or a list of these
        Which layers, as in :func:`repsim.capture.select_layers`: names, globs whose ``*`` also
        crosses dots, module types, or ``"blocks"``. By default every submodule that computes;
        ``layers_y`` defaults to ``layers``.
    measure : str or Measure, default "cka"
        A name from ``repsim.measures.MEASURES``, or your own ``Measure``. All but ``"cka"`` are
        computed on the CPU, from features in memory or in a store.
    kernel : str or Kernel, optional
        As in :func:`repsim.cka`, by default linear, for measures that have a kernel. In CKA, a
        bandwidth that follows the data is computed from the first batch.
    precision : {"highest", "tf32", "bf16"}, optional
        How many digits centred features keep when they are multiplied, as in
        :class:`repsim.kernels.Linear`. By default that of the kernel, which is "highest" unless you
        set it. On CUDA the other precisions use tensor cores. Sums are in at least float32.
    passes : int, default 1
        Number of passes over the data. With a loader that reshuffles, several passes converge to
        the unbiased CKA of the whole data set.
    transform, transform_y : {"flatten", "cls", "first", "last", "mean"} or callable, optional
        Which part of an output (n, ...) to compare; it runs inside the hook. By default the whole
        output, flattened. ``transform_y`` is that of model_y, by default ``transform``. For
        example ``transform="last", transform_y="mean"`` compares the last token of a text with the
        mean of an image.
    mask, mask_y : {"auto"}, str, mapping of layer to str or None, callable or None, default "auto"
        Which positions of an output (n, N, ...) are real and not padding: true in a mask (n, N).
        The transforms "mean", "first", "last" and token(i) use only these. "auto": if the batch is
        a mapping, its ``attention_mask``, else its mask of patches, and ``decoder_attention_mask``
        for layers that follow the decoder's sequence. To find these layers, the model runs on two
        samples of the first batch, with one sequence or the other one position shorter. Or pass a
        key of the batch; a mapping from layer names or globs to keys, for models with several
        sequences; or a function of the batch of the model. None: all positions are real.
        "flatten" compares padding too, and warns. ``mask_y`` is that of model_y, by default
        ``mask``.
    select, select_y, batch_dim, batch_dim_y
        Which tensor of an output, and its batch axis, as in :class:`repsim.Recorder`; those of
        model_y are by default the same.
    all_modules : bool, default False
        Whether a glob that ends in ``*`` also takes layers that return their input unchanged, as in
        :class:`repsim.Recorder`.
    batch_size : int or callable, optional
        The number of samples of a batch, or a function of the batch of the model. By default the
        batch shows it: see Notes.
    samples : {"inputs", "tokens"}, default "inputs"
        "tokens": every real token of every input is a sample, and so is every position of a map.
        All layers of both models must have the same tokens. Under a glob, layers with other
        positions than most layers of model_x are left out; a callable ``transform`` is applied
        before the tokens are taken, and "cls", "first", "last", "mean" and token(i) are refused.
    max_samples : int, optional
        The most tokens of one batch, with ``samples="tokens"``; by default all. A batch of n tokens
        needs Gram matrices of n². Every token has a random key, which depends on ``seed``, on the
        number of its input in the data and on its position among the real tokens; in each batch
        the tokens with the smallest keys are drawn, the same for all layers and both models.
    skip_first : int, default 0
        How many of the first real tokens of each input to leave out, with ``samples="tokens"``. The
        first token of a text often has a norm of its own.
    seed : int, default 0
        The seed of ``max_samples``, ``errors`` and ``permutations``.
    pairs : {"between", "all"}, optional
        Which pairs of tokens count, with ``samples="tokens"``. "between", the default of CKA: those
        of different inputs, so that independent inputs score 0 on average although the tokens of
        one input depend on each other. "all": the value is that of :func:`repsim.cka` on the rows
        of a batch; independent texts then scored .02 at 16 inputs a batch. Other measures have only
        "all".
    prepare_x, prepare_y : callable, optional
        A function from the batch to the batch for one model: another resolution, other keywords.
        The result is moved to the model's device.
    forward : callable, optional
        ``forward(model, batch)`` in place of ``model(batch)``. If it calls the model several times,
        as ``model.generate`` does, the layers of these calls are ``name:0``, ``name:1``, ...
    names : tuple of two str, optional
        Names of the models in the result, by default their classes.
    z_scores : bool, default False
        Whether the result has a variable ``z``: the number of standard deviations by which each CKA
        exceeds chance, under permutation of the samples of each batch; see
        :meth:`repsim.MinibatchCKA.z_scores`. ``repsim.plot.heatmap(result, above_chance=3.0)``
        shows smaller values in grey.
    progress : bool, default True
        Whether to show a progress bar with rate and remaining time on standard error.
    checkpoint : path, optional
        A file for the state of this call, written every two minutes, on an interrupt or error, and
        at the end. If it exists, batches counted in it are read from ``data`` and skipped, so the
        data must return the same batches in the same order: without shuffle, or with a seeded one.
        A digest of a part of each batch is checked. With such a file, Ctrl-C returns the result so
        far with a warning. Delete the file to start again. For other measures it is the folder of a
        store, as :func:`repsim.extract` writes it, with layers named "x/..." and "y/...": features
        are read from it layer by layer, Ctrl-C ends the call, and the same call goes on, also with
        another measure.
    group : "world", "alone" or torch.distributed.ProcessGroup, optional
        The ranks whose batches are combined; by default only this process, which "alone" says is
        meant. Each rank passes its share as ``data``, for example by a ``DistributedSampler``;
        shares may be unequal or empty. Every rank returns the same bits. With ``checkpoint`` each
        rank writes a separate file, ``<checkpoint>.rank<r>of<size>``.
    sample_ids : callable, optional
        A function from a batch to the ids of its samples, a 1-d tensor, array or list of n numbers
        or strings. If an id was seen before in the pass, on any rank, the sample is not counted
        again. This matters because a ``DistributedSampler`` repeats samples to give all ranks the
        same number. It costs one exchange of ids per batch. Pass it on all ranks or on none.
    memory : int, default 2**30
        Bytes that the features of all samples may take, for measures other than CKA. If they take
        more, repsim raises an error; if the data have a length, it does so after the first batch.
        With ``checkpoint`` they are on disk, and these are bytes for rows that are written
        together.
    errors : {"subsample"}, optional
        For measures other than CKA: add the standard error from ``draws`` random halves of the
        samples, as :func:`repsim.inference.subsample` computes it.
    draws : int, default 200
        The number of halves.
    permutations : int, default 0
        For measures other than CKA: compare the map with this many maps in which the samples of y
        are permuted, the same for all layers. This adds ``chance``, their mean, ``z``, and
        ``p_value`` and ``p_adjusted`` as in :func:`repsim.max_t`.
    **options
        Options of the measure, such as ``k=10``. The estimator is unbiased unless given.

    Returns
    -------
    xarray.Dataset
        ``cka`` and ``standard_error``, float64, dims ("layer_x", "layer_y"), coordinates the layer
        names in execution order; ``name:0``, ``name:1``, ... for a module that runs several times.
        CKA is in [−1, 1] and around 0 for independent layers. The standard error is the
        delete-one-batch jackknife; for several passes it is that of a single pass, an upper bound;
        for a single batch it is NaN. With ``z_scores`` there is also ``z``. It is exact for one
        pass and a lower bound for several, because passes are not independent. ``attrs``: model_x,
        model_y, estimator, kernel, precision, transform, passes, n_samples and n_batches over all
        passes, n_skipped_batches, n_skipped_samples, versions; n_duplicates with ``sample_ids``,
        n_ranks with ``group``, ``interrupted`` if partial. For another measure, the variable has
        the name of the measure and its attributes as in :func:`repsim.pairwise`: kind ("similarity"
        or "dissimilarity"), units, range and options.

    Raises
    ------
    InputError
        The data cannot be iterated as batches; the kernel or precision is unknown; the kernel takes
        no precision; the models see different numbers of samples; the measure is unknown or has no
        such option; the features do not fit in ``memory``; ``group`` with another measure than CKA.
    LayerNotFoundError, CaptureError
        A layer does not exist or did not run, or its output is not a batch of samples.
    NonFiniteError
        NaN or infinity in a layer; the message names layer and batch. For CKA, ``partial`` is the
        result before it.
    StateError
        The saved state is damaged, cannot be written, or belongs to other models, options or data;
        a rank died, failed, has other modules, weights or options than the others (the message says
        which ranks differ in what), or did not answer within the time limit of its group.

    Warns
    -----
    RepsimWarning
        Layers found by a glob return no batch, or NaN or infinity in the first one; short batches
        were skipped; all passes saw the same batches; an interrupt (with ``checkpoint``); the
        state could not be written during the run; the samples could not be found (see Notes);
        torch.distributed has several ranks, but ``group`` is not given.
    DegenerateWarning
        A layer is constant; its CKA is NaN.

    Notes
    -----
    Gram matrices are computed in the hooks. Memory is therefore O(L n²) for L layers and batches of
    n, for activations of any size, and in-place operations cannot overwrite a value. Layers that
    return one tensor share one Gram. Cost: the two forward passes plus O(n² Σp). For other
    measures: the features of all samples, and the items and pairs of :func:`repsim.pairwise`;
    ``errors`` and ``permutations`` cost as many maps as are drawn. With ``samples="tokens"`` they
    draw and permute whole inputs, which then must have equally many tokens to be permuted.

    With ``samples="tokens"``, a batch holds whole inputs, so the jackknife deletes whole inputs.
    The Grams of a batch are centred over pairs of tokens of different inputs, with 0 elsewhere, and
    their inner products take the place of w_b h_b. With one token an input they are equal. Batches
    of fewer than four inputs are skipped. Models that add positions to their tokens share these
    positions, which makes them alike to some extent.

    Always look at a control: two *untrained* networks can score high because they see the same
    images. Two trainings that differ only in their seed show the value of "the same".

    References
    ----------
    Nguyen, Raghu, Kornblith 2021, arXiv:2010.15327. Raghu et al. 2021, arXiv:2108.08810.
    """
    ranks = Ranks("compare", group, can_combine=is_streamed(measure))
    with ranks.raise_on_all_ranks():
        models = {"model_x": model_x, "model_y": model_x if model_y is None else model_y}
        functions = {"prepare_x": prepare_x, "prepare_y": prepare_y, "forward": forward}
        check_arguments("compare", models, names, progress, **functions)
        require_bool("compare", "z_scores", z_scores)
        drawn = {"errors": errors, "draws": draws, "permutations": permutations, "seed": seed}
        keeping = FeatureOptions.checked("compare", memory=memory, **drawn)
        chosen = chosen_measure(
            "compare",
            measure,
            options,
            function=compare,
            kernel=kernel,
            only_cka={
                "precision": precision is not None,
                "passes": as_count("compare", "passes", passes) > 1,
                "z_scores": bool(z_scores),
                "group": not ranks.alone,
            },
            not_cka=keeping.given,
        )
        pairs = chosen.pairs("compare", pairs, samples)
        of_x = SideOptions(transform, mask, select, batch_dim, all_modules)
        of_y = of_x.with_given(
            transform=transform_y, mask=mask_y, select=select_y, batch_dim=batch_dim_y
        )
        asked = Comparison(
            data=data,
            x=(model_x, layers, of_x, prepare_x),
            y=(model_y, layers_y, of_y, prepare_y),
            forward=forward,
            batch_size=batch_size,
            sample_ids=sample_ids,
            samples=samples,
            pairs=pairs,
            tokens=token_samples(
                "compare",
                samples,
                max_samples,
                skip_first,
                seed,
                transform,
                transform_y,
                pairs=pairs,
            ),
            names=names,
            progress=progress,
            checkpoint=checkpoint,
        )
        if not chosen.streams:
            return compare_features(asked, chosen, keeping)
        result = stream(ranks, asked, StreamOptions(kernel, precision, passes, z_scores))
    return result()
