"""Stitching: what a layer of one network does in the place of a layer of another."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from torch import nn

from repsim._errors import InputError
from repsim._options import as_number, as_seed, got, require_choice
from repsim.analysis._arguments import check_arguments
from repsim.analysis.maps._side import AS_X, AsX
from repsim.analysis.probes._labelled import LabelsOf
from repsim.analysis.run._drive import Forward, Prepare, as_found, each_batch
from repsim.analysis.run._provenance import model_label, versions
from repsim.analysis.run._sample_finder import BatchSize
from repsim.analysis.stitching._outputs import LogitsOf
from repsim.analysis.stitching._run import FITTED, IDENTITY, RANDOM, UNTRAINED, Stitching
from repsim.analysis.stitching._side import Side
from repsim.analysis.stitching._untrained import untrained_copy
from repsim.capture import Layers, MaskOption, Select

if TYPE_CHECKING:
    import xarray

__all__ = ["stitch"]

Control: TypeAlias = Literal["identity", "random", "untrained"]

SCALES: dict[Any, dict[str, Any]] = {
    "kl": {"kind": "dissimilarity"},
    "disagreement": {"kind": "dissimilarity", "greatest": 1.0},
    "loss": {"kind": "dissimilarity"},
    "accuracy": {"kind": "similarity", "greatest": 1.0},
}
"""How a picture of each score is to be read."""

CONTROLS: tuple[Control, ...] = (IDENTITY, RANDOM, UNTRAINED)


def stitch(
    model_x: nn.Module,
    layer_x: Layers,
    model_y: nn.Module,
    layer_y: Layers,
    data: Iterable[Any],
    labels: LabelsOf | None = None,
    *,
    fit: Iterable[Any] | None = None,
    logits: LogitsOf | None = None,
    ridge: float = 1e-4,
    controls: Sequence[Control] = CONTROLS,
    untrained: nn.Module | None = None,
    seed: int = 0,
    mask: MaskOption = "auto",
    mask_y: MaskOption | AsX = AS_X,
    select: Select | None = None,
    select_y: Select | AsX | None = AS_X,
    batch_dim: int | Mapping[str, int] | None = None,
    batch_dim_y: int | Mapping[str, int] | AsX | None = AS_X,
    batch_size: BatchSize = None,
    prepare_x: Prepare | None = None,
    prepare_y: Prepare | None = None,
    forward: Forward | None = None,
    names: tuple[str, str] | None = None,
    progress: bool = True,
) -> xarray.Dataset:
    """Put a layer of one network in the place of a layer of another, and see what it answers.

    >>> import torch, repsim
    >>> from torch import nn
    >>> _ = torch.manual_seed(0)
    >>> def net():
    ...     return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))
    >>> x, y = net(), net()
    >>> data = [torch.randn(64, 8) for _ in range(8)]
    >>> result = repsim.stitch(x, "1", y, "0", data, progress=False)
    >>> result.disagreement.sel(stitch=["fitted", "random"]).squeeze().values.round(1).tolist()
    [0.1, 0.7]
    >>> same = repsim.stitch(y, "0", y, "0", data, ridge=0, controls=[], progress=False)
    >>> same.disagreement.item()
    0.0

    The first half of the batches fits a map from the layer of x to that of y, the second half
    measures: there the layer of y is replaced by the mapped layer of x, and the rest of y runs on::

        ŷ = b + xW,   W = argmin ‖Yc − XcW‖² + λ‖W‖²,   λ = ridge · ‖Xc‖²/p
        kl = mean Σ_k P_k ln(P_k/Q_k),   disagreement = mean [argmax P ≠ argmax Q]

    with P the class distribution of y as it is and Q that of the stitched model. The map is the
    same for all positions: a dense map of vectors, one for each token of sequences, a 1×1
    convolution of maps. It follows in closed form from sums over positions, so no activation is
    kept and nothing is trained.

    Parameters
    ----------
    model_x : torch.nn.Module
        An unmodified model, in any wrapper. It runs in evaluation mode without gradients; hooks,
        flags, buffers and random state are restored afterwards.
    layer_x : str, re.Pattern, module type, callable, or a list of these
        Its layer, as in :class:`repsim.Recorder`: a name, or a glob for several.
    model_y : torch.nn.Module
        The model that answers: it returns logits. It may be on another device, and is restored too.
    layer_y : str, re.Pattern, module type, callable, or a list of these
        The layer of y that is replaced. Choose places through which everything flows, such as whole
        blocks, because what passes by a branch is not replaced.
    data : iterable
        Batches as in :func:`repsim.compare`, iterated once: the first half is fitted, the other
        half is measured. It must have a length; the order should be random.
    labels : callable, optional
        A function from a batch to the right answers: (n,) classes, or (n, T) with −100 where there
        is none. By default the batch brings them, if it is (input, labels) or a mapping with
        "labels" or "label" and they are (n,) whole numbers. Without labels there is no loss and no
        accuracy. A language model predicts the next token: labels=lambda batch: its tokens moved by
        one.
    fit : iterable, optional
        Batches to fit on; all of ``data`` is then measured. It must hold other samples.
    logits : callable, optional
        A function from what model_y returns to its logits (n, K), (n, T, K) of tokens or (n, K,
        ...) of maps. By default the output itself, or its ``logits``.
    ridge : float, default 1e-4
        Penalty ≥ 0, relative to the mean variance of the features of x. Raise it if there are fewer
        fitted positions than features.
    controls : sequence of {"identity", "random", "untrained"}, default all
        Besides "fitted": "identity", the layer of x as it is, where widths are equal; "random", a
        Gaussian map with the mean and total variance of the layer of y; "untrained", the map that
        was fitted to a copy of model_x with random weights.
    untrained : torch.nn.Module, optional
        The untrained model_x. By default a copy of it in which all modules with
        ``reset_parameters`` are reset, and other parameters are drawn from a normal distribution
        of their own mean and variance.
    seed : int, default 0
        Of the random map and of the random weights.
    mask, mask_y
        Which tokens are real, as in :func:`repsim.compare`. Only these are fitted and measured.
    select, select_y, batch_dim, batch_dim_y
        Which tensor of an output, and its batch axis, as in :class:`repsim.Recorder`; those of
        model_y are by default the same.
    batch_size, prepare_x, prepare_y
        As in :func:`repsim.compare`.
    forward : callable, optional
        ``forward(model, batch)`` in place of ``model(batch)``; it returns the output.
    names : tuple of two str, optional
        Names of the models in the result, by default their classes.
    progress : bool, default True
        Whether to show progress bars on standard error.

    Returns
    -------
    xarray.Dataset
        Dims ("stitch", "layer_x", "layer_y"): ``kl`` in nats, ``disagreement`` in [0, 1] and, with
        labels, ``loss`` (cross entropy in nats) and ``accuracy`` of the stitched models, each with
        its ``_standard_error`` by sample; ``own_loss`` and ``own_accuracy`` of model_y. "stitch" is
        "fitted" and the controls. Means are over samples, or over all their real tokens. NaN where
        a control or a pair of layers does not fit. ``attrs``: models, ridge, seed, n_fitted and
        n_measured samples, versions.

    Raises
    ------
    InputError
        ``data`` has no length or a single batch; no pair of layers fits; outputs without logits;
        labels of other samples; a model that cannot be copied; unusable options.
    LayerNotFoundError, CaptureError
        A layer does not exist or did not run, or its output cannot be replaced.
    NonFiniteError
        NaN or infinity in a layer or in the logits of y; the message names layer and batch.

    Warns
    -----
    RepsimWarning
        Pairs of layers under a glob that do not fit; halves without a common class.
    DegenerateWarning
        The logits of a stitched model are not finite: NaN.

    Notes
    -----
    Maps of other sizes are resized bilinearly to that of y. Tokens need the same number on both
    sides; a map takes the place of patch tokens, and the reverse, if y has no other tokens there.

    That a map works shows that y can use what x has, not that x uses it: a wide layer of an
    untrained network often stitches well into an early layer, so compare with the controls. Cost:
    one pass of both models and of the untrained one, one more forward of y for each pair and stitch
    on the measured half, and (p² + pq) numbers of memory for each pair.

    References
    ----------
    Lenc & Vedaldi 2015, arXiv:1411.5908. Bansal, Nakkiran, Barak 2021, arXiv:2106.07682. Csiszárik,
    Kőrösi-Szabó, Matszangosz, Papp, Varga 2021, arXiv:2110.14633, for maps in closed form.
    """
    check_arguments(
        "stitch",
        {"model_x": model_x, "model_y": model_y},
        names,
        progress,
        labels=labels,
        logits=logits,
        prepare_x=prepare_x,
        prepare_y=prepare_y,
        forward=forward,
    )
    ridge, seed = as_number("stitch", "ridge", ridge, least=0), as_seed("stitch", seed)
    stitches = [FITTED, *_controls(controls)]
    half = None if fit is not None else _half(data)
    side = partial(Side, batch_size=batch_size, forward=forward)
    of_x = partial(side, mask=mask, select=select, batch_dim=batch_dim, prepare=prepare_x)
    x = of_x(model_x, layer_x)
    y = side(
        model_y,
        layer_y,
        mask=mask if mask_y is AS_X else mask_y,
        select=select if select_y is AS_X else select_y,
        batch_dim=batch_dim if batch_dim_y is AS_X else batch_dim_y,
        prepare=prepare_y,
    )
    other = _other(model_x, untrained, seed) if UNTRAINED in stitches else None
    third = None if other is None else of_x(other, layer_x)
    run = Stitching(x, y, third, stitches, labels, logits)
    models = [model_x, model_y] + ([] if other is None else [other])
    with ExitStack() as stack:
        stack.enter_context(as_found("stitch", *models))
        stack.enter_context(run.in_place())
        _fit_and_measure(run, data, fit, half, partial(run.solve, ridge, seed), progress=progress)
        x.masks.check_used()
        y.masks.check_used()
    labelled = {
        "model_x": model_label(model_x, names and names[0]),
        "model_y": model_label(model_y, names and names[1]),
    }
    result = run.dataset()
    for name, array in result.data_vars.items():
        if name in SCALES:  # so that a map of it alone says what it is
            array.attrs |= {**labelled, **SCALES[name]}
    return result.assign_attrs(
        **labelled,
        ridge=ridge,
        seed=seed,
        n_fitted=run.n_fitted,
        n_measured=run.n_measured,
        **versions(),
    )


def _fit_and_measure(
    run: Stitching,
    data: Iterable[Any],
    fit: Iterable[Any] | None,
    half: int | None,
    solve: Callable[[], None],
    *,
    progress: bool,
) -> None:
    """Fit on ``fit``, or on the first batches of the data, and measure on the others."""
    if fit is not None:
        with each_batch("stitch", fit, progress=progress) as batches:
            for batch in batches:
                run.fit(batch)
        solve()
    # The pass before has warned of other ranks.
    with each_batch("stitch", data, progress=progress, warn_of_others=fit is None) as batches:
        for batch in batches:
            if half is not None and batch.number < half:
                run.fit(batch)
                continue
            if batch.number == half:
                solve()
            run.measure(batch)


def _controls(controls: Any) -> list[str]:
    no_list = isinstance(controls, str | bytes) or getattr(controls, "ndim", 1) != 1
    if no_list or not isinstance(controls, Iterable):
        raise InputError(
            f"stitch: controls must be a list of names.\n  expected some of {list(CONTROLS)}\n"
            f"  got {got(controls)}"
        )
    wanted = list(controls)
    for each in wanted:
        require_choice("stitch", "controls", each, CONTROLS)
    return list(dict.fromkeys(wanted))


def _half(data: Any) -> int:
    """Return how many of the batches are fitted."""
    total = operator.length_hint(data) if isinstance(data, Iterable) else 0
    if isinstance(data, Iterable) and total < 2:
        raise InputError(
            f"stitch: data must have at least two batches, one half to fit and one to measure.\n"
            f"  got {f'{total} batch' if total else f'{type(data).__name__} without a length'}\n"
            f"  Pass fit=, other batches to fit on, or smaller batches."
        )
    return total // 2


def _other(model: nn.Module, untrained: Any, seed: int) -> nn.Module:
    if untrained is None:
        return untrained_copy(model, seed)
    if not isinstance(untrained, nn.Module):
        raise InputError(
            f"stitch: untrained must be a torch.nn.Module or None.\n  got {got(untrained)}"
        )
    return untrained
