"""Linear probes of stored activations, on disk or in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from repsim._errors import InputError, NonFiniteError
from repsim._options import require_bool
from repsim._version import __version__
from repsim.analysis.probes._labelled import HoldoutSplit, IntArray, class_numbers
from repsim.analysis.probes._result import probe_result
from repsim.analysis.probes._state import RIDGES, TestedProbe, TrainedProbe, check_probe
from repsim.arrays import check_same_samples, require_exact, without_autocast
from repsim.streaming import Source, row_slices, sources_of

if TYPE_CHECKING:
    import xarray

__all__ = ["probe_activations"]

OPERATION = "probe_activations"
LARGEST = 2.0**480
"""The largest number whose squares can be summed in float64; those of 1/LARGEST are not yet 0."""

BLOCK = 1024
"""Rows read at a time, as in a chunk of :func:`repsim.extract`."""

TOKEN = "all"


@without_autocast
def probe_activations(
    train: Mapping[str, Any],
    train_labels: Any,
    test: Mapping[str, Any],
    test_labels: Any,
    *,
    n_classes: int | None = None,
    ridges: Sequence[float] = RIDGES,
    standardize: bool = True,
    shots: int | None = None,
    holdout: float = 0.2,
    progress: bool = False,
) -> xarray.Dataset:
    """Test accuracy of a closed-form linear classifier on stored activations, layer by layer.

    >>> import numpy as np, repsim
    >>> rng = np.random.default_rng(0)
    >>> labels = np.arange(90) % 3
    >>> clear = np.eye(3)[labels] + 0.1 * rng.standard_normal((90, 3))
    >>> layers = {"early": clear[:, :1], "late": clear}
    >>> train = {name: x[:60] for name, x in layers.items()}
    >>> test = {name: x[60:] for name, x in layers.items()}
    >>> result = repsim.probe_activations(train, labels[:60], test, labels[60:])
    >>> result.accuracy.sel(layer="late", token="all").item()
    1.0
    >>> bool(result.accuracy.sel(layer="early", token="all") < 1)
    True

    The classifier is that of :func:`repsim.linear_probe`: ridge regression with a bias from
    standardised features to the targets +1 and −1. λ is chosen on a held-out part of train::

        W = (A + λI)⁻¹ D⁻¹ · 2(c_k − (n_k/n)Σx)     b = (2n_k/n − 1) − μᵀD⁻¹W

    Parameters
    ----------
    train : mapping of str to array-like, shape (n, ...)
        Layers that :func:`repsim.extract` stored and :func:`repsim.open_activations` opened, or any
        arrays that can be sliced by rows. Trailing axes are flattened; ``transform=`` chose the
        vector of a sample when the layers were stored.
    train_labels : array or sequence of int, shape (n,)
        Class numbers from 0, in the order of the rows.
    test : mapping of str to array-like, shape (m, ...)
        The same layers of the same width.
    test_labels : array or sequence of int, shape (m,)
        Class numbers, in the order of the rows.
    n_classes : int, optional
        K; by default one more than the largest label of train.
    ridges, standardize, shots, holdout
        As in :func:`repsim.linear_probe`.
    progress : bool, default False
        Whether to show a progress bar over layers.

    Returns
    -------
    xarray.Dataset
        As :func:`repsim.linear_probe` returns it, dims ("layer", "token") with the single token
        "all": ``accuracy`` in [0, 1], ``standard_error``, ``ridge``, ``holdout_accuracy``;
        ``repsim.plot.probe`` draws it.

    Raises
    ------
    InputError
        Different layers or widths in train and test, labels that do not match the rows, or
        arguments that :func:`repsim.linear_probe` refuses.
    ArrayTypeError
        Not sliceable arrays of real numbers.
    NonFiniteError
        NaN or infinity; the message names layer and rows.

    Notes
    -----
    Layers are read once, one after the other, one block of rows at a time. The memory is that of
    one layer: min(n, p)·p and the held-out features, holdout·n·p. If the rows are tokens
    (``extract(samples="tokens")``), whole sequences are held out, and the standard error is by
    sequence, as with labels of tokens in :func:`repsim.linear_probe`. Invariances and cost are
    those of :func:`repsim.linear_probe`.

    References
    ----------
    Raghu et al. 2021, arXiv:2108.08810, Sec. 6. Dosovitskiy et al. 2021, arXiv:2010.11929,
    Sec. 4.1: regularised least squares to {−1, 1} targets.
    """
    ridges = check_probe(OPERATION, n_classes, shots, ridges, holdout, standardize)
    require_bool(OPERATION, "progress", progress)
    fitted, tested = sources_of(OPERATION, "train", train), sources_of(OPERATION, "test", test)
    if list(train) != list(test) or [s.p for s in fitted] != [s.p for s in tested]:
        raise InputError(
            f"{OPERATION}: train and test must have the same layers of the same width.\n"
            f"  train: {_widths(train, fitted)}\n  test: {_widths(test, tested)}\n"
            f"  Store both with the same model, layers and transform."
        )
    truth = class_numbers(OPERATION, train_labels, n_classes, "train")
    sequences, tested_sequences = _sequences(train), _sequences(test)
    split = HoldoutSplit(holdout, shots, of_tokens=sequences is not None)
    fit, hold = split.take(truth, sequences)
    classes = split.check(OPERATION, n_classes, hold=holdout > 0)
    answers = class_numbers(OPERATION, test_labels, classes, "test")
    for side, sources, given in (("train", fitted, train_labels), ("test", tested, test_labels)):
        _check_rows(side, sources, truth if side == "train" else answers)
        named = {source.label: source.array for source in sources}
        check_same_samples(OPERATION, {**named, f"{side}_labels": given})

    found: dict[str, TestedProbe] = {}
    pairs = zip(train, fitted, tested, strict=True)
    with tqdm(pairs, total=len(fitted), desc=OPERATION, unit="layer", disable=not progress) as bar:
        for layer, seen, new in bar:
            probe = TrainedProbe((TOKEN,))
            for part, values in _blocks(seen):
                inside = [rows[(rows >= part.start) & (rows < part.stop)] for rows in (fit, hold)]
                if any(map(len, inside)):
                    probe.add(values, truth[part], *(rows - part.start for rows in inside))
            tested_one = probe.choose(ridges, classes, standardize=standardize)
            hits = [tested_one.hits(values, answers[part]) for part, values in _blocks(new)]
            if tested_sequences is not None:
                tested_one.add_sequences(torch.cat(hits, dim=-1), tested_sequences)
            found[layer] = tested_one
    counts = np.bincount(answers, minlength=classes)
    return probe_result(found, [TOKEN], len(answers)).assign_attrs(
        n_train=int(split.fitted.sum() + split.held.sum()),
        n_holdout=int(split.held.sum()),
        n_test=len(answers),
        n_classes=classes,
        chance=float(counts.max() / len(answers)),
        shots="all" if shots is None else shots,
        holdout=holdout,
        ridges=list(ridges),
        standardize=int(standardize),
        repsim_version=__version__,
    )


def _sequences(layers: Mapping[str, Any]) -> IntArray | None:
    """Return the number of each row's sequence, if the rows are tokens of a store."""
    for x in layers.values():
        named = getattr(x, "coords", {}).get("sequence")
        if named is not None and named.dims == x.dims[:1]:
            return np.unique(named.values, return_inverse=True)[1].astype(np.int64)
    return None


def _blocks(source: Source) -> Iterator[tuple[slice, Tensor]]:
    """Yield slices of rows with their values, (1, b, p)."""
    limit = min(LARGEST, float(np.finfo(source.dtype).max))
    for part in row_slices(source.n, BLOCK):
        raw = source.raw(part)
        require_exact(OPERATION, raw, source.label, source.dtype)
        values = raw.astype(source.dtype, copy=True)
        with np.errstate(invalid="ignore"):  # NaN is not within the limit
            bad = part.start + np.flatnonzero(~(np.abs(values) <= limit).all(axis=1))
        if len(bad):
            raise NonFiniteError(
                f"{OPERATION}: {source.label} must be finite, and so must sums of squares.\n"
                f"  NaN, infinity or numbers above {limit:.0e} in rows {bad[:8].tolist()} (of "
                f"{source.n})\n"
                f"  Find where they arise (half precision overflows at 65504), or drop those rows."
            )
        if 0 < np.abs(values).max() < 1 / LARGEST:
            raise InputError(
                f"{OPERATION}: the squares of {source.label} must not vanish.\n"
                f"  all numbers of rows {part.start} to {part.stop - 1}: below {1 / LARGEST:.0e}\n"
                f"  Multiply them by a power of two, for example by 2.0**500."
            )
        yield part, torch.from_numpy(values)[None]


def _check_rows(side: str, sources: Sequence[Source], labels: IntArray) -> None:
    for source in sources:
        if source.n != len(labels):
            raise InputError(
                f"{OPERATION}: activations and labels must describe the same samples.\n"
                f"  {source.label}: n={source.n}    {side}_labels: {len(labels)}\n"
                f"  Labels go in the order of the rows; a store's ``sample`` says which they are."
            )


def _widths(layers: Mapping[str, Any], sources: Sequence[Source]) -> str:
    shown = [f"{name!r} ({s.p})" for name, s in zip(layers, sources, strict=True)]
    return ", ".join(shown[:8]) + (", ..." if len(shown) > 8 else "")
