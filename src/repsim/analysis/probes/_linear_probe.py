"""Few-shot linear probes: accuracy of a linear classifier on each layer and token."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from repsim._errors import InputError, warn
from repsim.analysis._arguments import check_arguments
from repsim.analysis.probes._choices import TokenChoices, Tokens
from repsim.analysis.probes._labelled import IGNORED, HoldoutSplit, LabelsOf
from repsim.analysis.probes._ranks import TestTotals, chosen_probes
from repsim.analysis.probes._result import probe_result
from repsim.analysis.probes._state import RIDGES, TestedProbe, TrainedProbe, check_probe
from repsim.analysis.probes._vectors import Vectors
from repsim.analysis.run._drive import Batch, Forward, Prepare, as_found
from repsim.analysis.run._provenance import model_label, versions
from repsim.analysis.run._sample_finder import BatchSize, SampleFinder
from repsim.analysis.run.ranks import Ranks, SampleIds
from repsim.capture import Layers, MaskOption, Masks, Recorder, Select
from repsim.capture.tokens import PrefixOption, TokenOptions

if TYPE_CHECKING:
    import xarray

__all__ = ["linear_probe"]


def linear_probe(
    model: nn.Module,
    train: Iterable[Any],
    test: Iterable[Any],
    layers: Layers,
    *,
    tokens: Tokens = ("cls", "mean", "mean_without_cls"),
    n_classes: int | None = None,
    ridges: Sequence[float] = RIDGES,
    standardize: bool = True,
    shots: int | None = None,
    holdout: float = 0.2,
    labels: LabelsOf | None = None,
    prefix: PrefixOption = None,
    mask: MaskOption = "auto",
    select: Select | None = None,
    batch_dim: int | Mapping[str, int] | None = None,
    all_modules: bool = False,
    batch_size: BatchSize = None,
    prepare: Prepare | None = None,
    forward: Forward | None = None,
    name: str | None = None,
    progress: bool = True,
    group: Any = None,
    sample_ids: SampleIds | None = None,
) -> xarray.Dataset:
    """Test accuracy of a closed-form linear classifier on each layer and choice of token.

    >>> import torch, repsim
    >>> from torch import nn
    >>> _ = torch.manual_seed(0)
    >>> labels = torch.arange(60) % 3
    >>> inputs = torch.eye(3)[labels] + 0.1 * torch.randn(60, 3)
    >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    >>> train, test = [(inputs[:40], labels[:40])], [(inputs[40:], labels[40:])]
    >>> result = repsim.linear_probe(net, train, test, ["1", "2"], tokens="mean", progress=False)
    >>> result.accuracy.sel(layer="1", token="mean").item()
    1.0
    >>> bool(result.accuracy.sel(layer="2", token="mean") < 1)  # a single number is not enough
    True

    The classifier is ridge regression with a bias from standardised features to the targets +1 (the
    class) and −1 (all others); the largest output decides the class. With n samples, n_k of class k
    with the sum c_k, mean μ, D the diagonal of standard deviations and S = XᵀX::

        A = D⁻¹(S − nμμᵀ)D⁻¹     W = (A + λI)⁻¹ D⁻¹ · 2(c_k − (n_k/n)Σx)
        b = (2n_k/n − 1) − μᵀD⁻¹W

    For every layer and token, λ is chosen from ``ridges``: a classifier is fitted on one part of
    ``train`` with each λ, and the λ with the best accuracy on the held-out part is used (if several
    are equal, the one with the least squared error). The tested classifier is then fitted with this
    λ on all of ``train``.

    Parameters
    ----------
    model : torch.nn.Module
        An unmodified model, in any wrapper. It runs in evaluation mode without gradients and is
        restored afterwards.
    train, test : iterable
        Batches (input, labels), or mappings with "labels" or "label", which the model does not
        get; for anything else see ``labels``. Labels are class numbers from 0, (n,), or (n, N) for
        the tokens of samples, where −100 stands for none. Both are iterated once.
    layers : str, re.Pattern, module type, callable, or a list of these
        Which layers, as in :class:`repsim.Recorder`.
    tokens : str, int or a sequence of these, default ("cls", "mean", "mean_without_cls")
        ``"cls"``: the CLS token. ``"mean"``: the mean over all tokens, or over the positions of a
        map, channels first or last. ``"mean_without_cls"``: the mean over spatial tokens, without
        CLS, distillation and register tokens. ``"first"``, ``"last"``, 0, 1, ...: one token,
        counted from the start of the sequence, including CLS. ``"each"``: one probe for each token,
        or for each position of a map row by row. A vector (B, D) has only a ``"mean"``: itself.
        Alone, ``"all"``: every token is a sample, and labels are those of tokens.
    n_classes : int, optional
        K; by default one more than the largest label of ``train``. With ``shots`` and
        ``n_classes``, iteration of ``train`` stops as soon as all classes are complete.
    ridges : sequence of float, default 2⁻¹⁰, 2⁻⁸, ..., 2²⁰
        The values of λ to choose from, above zero. A is not divided by n, so its diagonal is n.
    standardize : bool, default True
        Whether to divide features by their standard deviations over the training samples.
    shots : int, optional
        Use this number of first samples of each class in the order of ``train``; by default all. A
        reshuffled ``train`` gives other samples. Few-shot accuracies vary, so repeat them.
    holdout : float, default 0.2
        The part of each class held out for λ, in [0, 1): every fifth sample of the class. 0 only
        with a single λ.
    labels : callable, optional
        A function from a batch to its labels; the model then gets the whole batch.
    prefix : int, or mapping of layer to int, optional
        Number of tokens before the spatial ones, the first of them CLS (0: there is no CLS). By
        default found, as in :func:`repsim.attention_distance`. If neither a map of the model nor
        the model itself shows it, as with text, "cls" and "mean_without_cls" are NaN.
    mask
        Which tokens are real, as in :func:`repsim.compare`. Tokens are counted, and means taken,
        among the real ones; padding is never a sample.
    select, batch_dim
        Which tensor of an output, and its batch axis, as in :class:`repsim.Recorder`.
    all_modules : bool, default False
        Whether a glob that ends in ``*`` also takes layers that return their input unchanged, as in
        :class:`repsim.Recorder`.
    batch_size : int or callable, optional
        The number of samples of a batch, as in :func:`repsim.compare`.
    prepare, forward : callable, optional
        A function from the batch to the batch for the model, and ``forward(model, batch)`` in place
        of ``model(batch)``.
    name : str, optional
        Name of the model in the result, by default its class.
    progress : bool, default True
        Whether to show progress bars on standard error.
    group : "world", "alone" or torch.distributed.ProcessGroup, optional
        The ranks whose samples are combined; by default only this process, which "alone" says is
        meant. Each rank passes its shares as ``train`` and ``test``, for example by a
        ``DistributedSampler``; shares may be unequal or empty. Every rank returns the same bits.
    sample_ids : callable, optional
        A function from a batch to the ids of its samples, a 1-d tensor, array or list of n numbers
        or strings. If an id was seen before in ``train``, or in ``test``, on any rank, the sample
        is not counted again: the model gets the other samples of the batch. This matters because a
        ``DistributedSampler`` repeats samples to give all ranks the same number. It costs one
        exchange of ids per batch. Pass it on all ranks or on none.

    Returns
    -------
    xarray.Dataset
        Dims ("layer", "token"): ``accuracy`` on test in [0, 1] and its binomial ``standard_error``
        √(a(1 − a)/n_test); ``ridge``, the chosen λ; ``holdout_accuracy`` with this λ, maximised
        over λ (NaN without holdout). Layers are in execution order, tokens in the requested order,
        then "0", "1", ... If a layer lacks a token, its values are NaN; no other token replaces a
        missing CLS. ``attrs``: n_train, n_holdout (of n_train), n_test, n_classes, chance (the
        share of the most frequent class of test), options, model, versions; n_ranks with
        ``group``, n_duplicates of train and test with ``sample_ids``.

    Raises
    ------
    InputError
        No or unusable labels, fewer than two classes, a class that is absent from the fitted or
        the held-out part, no layer with any of the tokens, unusable options; ranks whose layers,
        tokens or features differ; a batch with samples that came before cannot be cut, or has
        another number of ids than samples.
    LayerNotFoundError, CaptureError
        A layer does not exist or did not run, or its output is not a vector, tokens or a map.
    NonFiniteError
        NaN or infinity in a layer; the message names it and the batch. For a model on an
        accelerator, the error comes after the last batch of train or of test.
    StateError
        A rank died, failed, has other modules, weights or options than the others (the message says
        which ranks differ in what), or did not answer within the time limit of its group.

    Warns
    -----
    RepsimWarning
        torch.distributed has several ranks, but ``group`` is not given.
        The tokens of some layers are neither the patches of the last map nor these patches and the
        prefix. There "cls" and "mean_without_cls" are NaN, unless ``prefix`` is given.

    Notes
    -----
    Invariant to translation and, if standardised, to scaling of each feature; not to rotation. A
    feature that is constant over the training samples gets the weight 0. Other papers use logistic
    regression, which gives other numbers. If the chosen λ is the first or last of ``ridges``, the
    range is too narrow.

    An accuracy of 1 has the ``standard_error`` 0. Of all possible samples, up to about 3/n_test may
    still be classified wrongly (the rule of three, level 95%).

    Tokens of one sequence are dependent. With labels of tokens, whole sequences are held out for λ
    (every fifth), and the standard error is by sequence, as in :func:`repsim.block_influence`.

    With a group, λ, the classifiers and the accuracies are those of all samples. Ranks take the
    batches of ``train`` step by step. In each step, samples are numbered row by row, and in each
    row rank by rank, before ``shots`` and ``holdout`` choose among them. A ``DistributedSampler``
    deals samples out in this order, so with batches of one size the fitted and held-out samples are
    those of one process in the order of the sampler, for any number of ranks, and the result is the
    same up to rounding. Other shares give another order, and so another choice. Each rank sends the
    labels of each batch of ``train``, and for each layer and fit min(n, p)·p numbers per token. It
    makes all eigendecompositions itself.

    For each layer and token with p features, the memory is min(n, p)·p for the fit and holdout·n·p
    for the held-out features. For a large ``train``, limit the held-out features by ``shots`` or a
    smaller ``holdout``. Cost: one forward pass over train and test, and two eigendecompositions of
    min(n, p)³ in float64 for all λ together.

    References
    ----------
    Raghu et al. 2021, arXiv:2108.08810, Sec. 6: 10-shot probes by layer and token. Dosovitskiy et
    al. 2021, arXiv:2010.11929, Sec. 4.1: regularised least squares to {−1, 1} targets.
    """
    ranks = Ranks("linear_probe", group)
    with ranks.raise_on_all_ranks():
        functions = {"prepare": prepare, "forward": forward, "labels": labels}
        check_arguments("linear_probe", {"model": model}, name, progress, **functions)
        ranks.share(sample_ids)
        ridges = check_probe("linear_probe", n_classes, shots, ridges, holdout, standardize)
        options = TokenOptions("linear_probe", prefix=prefix)
        choices = TokenChoices(options, model, tokens, Masks("linear_probe", mask))
        which: dict[str, Any] = {
            "select": select,
            "batch_dim": batch_dim,
            "all_modules": all_modules,
        }
        recorder = Recorder(model, layers, transform=choices, **which)
        ranks.agree_on(
            {"model": model},
            layers=layers,
            tokens=tokens,
            n_classes=n_classes,
            ridges=ridges,
            standardize=standardize,
            shots=shots,
            holdout=holdout,
            prefix=prefix,
            mask=mask,
            batch_size=batch_size,
            name=name,
            **{**which, **functions},
        )
        split = HoldoutSplit(holdout, shots, of_tokens=choices.are_samples)
        samples = SampleFinder("linear_probe", batch_size)
        vectors = Vectors(model, recorder, choices, labels, samples, prepare, forward)
        with as_found("linear_probe", model), choices.watching(), vectors.recording():
            with ranks.each_step(train, progress=progress) as steps:
                training = _train(vectors, steps, split, n_classes, ranks)
            classes = split.check("linear_probe", n_classes, hold=holdout > 0)
            if training:  # a rank without data knows no layer
                _check_used(options, choices)
            tested = chosen_probes(ranks, training, ridges, classes, standardize=standardize)
            vectors.names = {layer: each.names for layer, each in tested.items()}
            _check_any(vectors.names, tokens)
            with ranks.each_batch(test, progress=progress) as batches:
                part = _test(vectors, batches, tested, classes)
    totals = ranks.merged(part, TestTotals.merge)
    n_test, held = int(totals.counts.sum()), int(split.held.sum())
    _check_tested(n_test)
    return probe_result(totals.put_in(tested), choices.named, n_test).assign_attrs(
        model=model_label(model, name),
        n_train=int(split.fitted.sum()) + held,
        n_holdout=held,
        n_test=n_test,
        n_classes=classes,
        chance=float(totals.counts.max() / n_test),
        shots="all" if shots is None else shots,
        holdout=holdout,
        ridges=list(ridges),
        standardize=int(standardize),
        **ranks.report(),
        **versions(),
    )


def _train(
    vectors: Vectors,
    steps: Iterator[Batch | None],
    split: HoldoutSplit,
    n_classes: int | None,
    ranks: Ranks,
) -> dict[str, TrainedProbe]:
    """Gather the statistics of the fitted and the held-out samples of each layer on this rank."""
    training: dict[str, TrainedProbe] = {}
    for found in steps:
        batch = None if found is None else vectors.labelled(found, "train", n_classes)
        mine = None if batch is None else (batch.labels, batch.sequences)
        fit, hold = split.take_of_ranks(ranks.gather(mine))[ranks.rank]
        if batch is not None and (len(fit) or len(hold)):
            for layer, values in vectors.of(batch):
                probe = training.setdefault(layer, TrainedProbe(vectors.names[layer]))
                probe.add(values, batch.labels, fit, hold)
        if split.complete(n_classes):
            break
    vectors.check_finite()
    return training


def _test(
    vectors: Vectors, batches: Iterator[Batch], tested: Mapping[str, TestedProbe], classes: int
) -> TestTotals | None:
    """Count the right answers of each layer on this rank, and the samples of each class."""
    counts = np.zeros(classes, np.int64)
    found = None
    for found in batches:
        batch = vectors.labelled(found, "test", classes)
        counts += np.bincount(batch.labels, minlength=classes)
        for layer, values in vectors.of(batch):
            tested[layer].add(values, batch.labels, batch.sequences)
    vectors.check_finite()
    if found is None:
        return None
    return TestTotals(counts, {layer: each.totals() for layer, each in tested.items()})


def _check_tested(n_test: int) -> None:
    if not n_test:
        raise InputError(
            f"linear_probe: no token of test has a label.\n"
            f"  all are {IGNORED} or padding\n  Pass a test set with labels."
        )


def _check_used(options: TokenOptions, choices: TokenChoices) -> None:
    options.check_used()
    choices.masks.check_used()
    if choices.unknown:
        shown = "".join(f"  {k} {shape}\n" for k, shape in list(choices.unknown.items())[:8])
        more = f"  and {len(choices.unknown) - 8} more\n" if len(choices.unknown) > 8 else ""
        warn(
            'linear_probe: "cls" and "mean_without_cls" are NaN where the CLS token cannot be '
            f"distinguished from the patches:\n{shown}{more}"
            "  Pass prefix=, the number of tokens before the patches, or leave these layers out.",
        )


def _check_any(names: Mapping[str, tuple[str, ...]], tokens: Tokens) -> None:
    if not any(names.values()):
        raise InputError(
            f"linear_probe: no layer has any of tokens={tokens!r}.\n"
            f"  layers: {', '.join(map(repr, list(names)[:8]))}\n"
            '  Networks without a CLS token have tokens="mean"; prefix=1 says that there is one.'
        )
