"""Batches with labels: splitting off the labels, and dividing a stream class by class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from repsim._errors import InputError
from repsim.capture import values_of

__all__ = [
    "IGNORED",
    "HoldoutSplit",
    "IntArray",
    "LabelsOf",
    "check_range",
    "class_numbers",
    "split_labels",
]

LabelsOf: TypeAlias = Callable[[Any], Any]
"""Type of ``labels=``: a function that returns the labels of a batch."""

IntArray: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

KEYS = ("labels", "label")

IGNORED = -100
"""The label of a token that has none, as torch's cross entropy ignores it."""


def split_labels(
    operation: str,
    batch: Any,
    labels_of: LabelsOf | None,
    n_classes: int | None,
    source: str,
    *,
    of_tokens: bool = False,
) -> tuple[Any, IntArray]:
    """Return the batch that the model gets, and the labels of its samples or tokens.

    Parameters
    ----------
    operation : str
        The caller's name, for errors.
    batch : object
        A tuple or list of (input, labels, ...), or a mapping with "labels" or "label". The model
        does not get the labels, because it would add a loss or raise.
    labels_of : callable, optional
        Returns the labels of any other batch; the model then gets the whole batch.
    n_classes : int, optional
        Labels must be smaller.
    source : str
        Name of the stream, for errors.
    of_tokens : bool, default False
        Whether every token has a label.

    Returns
    -------
    batch : object
    labels : numpy.ndarray of int64, shape (n,), or (n, N) of tokens

    Raises
    ------
    InputError
        There are no labels, or they are not one class number per sample, counted from 0, or not one
        whole number per token.
    """
    if labels_of is not None:
        found = labels_of(batch)
    elif isinstance(batch, Mapping):
        key = next((key for key in KEYS if key in batch), None)
        found = None if key is None else batch[key]
        batch = {name: value for name, value in batch.items() if name != key}
    else:
        found = batch[1] if isinstance(batch, tuple | list) and len(batch) > 1 else None
    if found is None:
        raise InputError(
            f"{operation}: a batch of {source} must bring its labels.\n"
            f"  expected (input, labels), or a mapping with {' or '.join(map(repr, KEYS))}\n"
            f"  got {type(batch).__name__}\n"
            "  Pass labels=lambda batch: ... for anything else."
        )
    return batch, class_numbers(operation, found, n_classes, source, of_tokens=of_tokens)


def class_numbers(
    operation: str, found: Any, n_classes: int | None, source: str, *, of_tokens: bool = False
) -> IntArray:
    """Return labels as int64, or raise if they are not one class number per sample or token."""
    try:
        if isinstance(found, Tensor):
            found = values_of(found).detach().numpy()
        labels = np.asarray(found)
    except (TypeError, ValueError) as error:  # a Dataset, or lists of several lengths
        raise InputError(
            f"{operation}: labels must be an array of class numbers.\n  {source}: {error}"
        ) from error
    if labels.ndim != 1 + of_tokens or labels.dtype.kind not in "iub" or labels.size == 0:
        raise InputError(
            f"{operation}: labels must be one class number for each "
            f"{'token, (n, N)' if of_tokens else 'sample, (n,)'}.\n"
            f"  {source}: {labels.dtype} of shape {labels.shape}\n"
            f"  {_repair(labels, of_tokens)}"
        )
    labels = labels.astype(np.int64)
    if not of_tokens:  # those of padding are not read
        check_range(operation, labels, n_classes, source)
    return labels


def _repair(labels: np.ndarray[Any, np.dtype[Any]], of_tokens: bool) -> str:
    if labels.dtype.kind in "US":  # numbers within a batch would differ between batches
        return (
            "Number all names in one order: labels=lambda batch: "
            "[names.index(name) for name in batch[1]]."
        )
    if of_tokens:
        return 'Labels of samples go with other tokens than "all".'
    return (
        "From one-hot or soft labels take argmax(-1), from (n, 1) take [:, 0].\n"
        '  Labels of tokens (n, N) go with tokens="all".'
    )


def check_range(operation: str, labels: IntArray, n_classes: int | None, source: str) -> None:
    """Raise if labels are not classes from 0, below `n_classes`."""
    if not labels.size:
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (n_classes is not None and high >= n_classes):
        below = "" if n_classes is None else f" and below {n_classes}"
        raise InputError(
            f"{operation}: labels must be classes from 0{below}.\n"
            f"  {source}: {low} to {high}\n"
            "  Do they start at 1, mark missing ones by -1, or is n_classes too small?"
        )


class HoldoutSplit:
    """Which samples of a stream are fitted, which are held out, and which are left out.

    The number i of a sample within its class, counted from 0, decides. Classes are therefore
    balanced, and a stream is always divided in the same way. A sample is held out if ⌊(i + 1)h⌋ >
    ⌊ih⌋: every fifth for h = 0.2.

    Parameters
    ----------
    holdout : float
        h, the part of each class that is held out, in [0, 1).
    shots : int, optional
        Use this number of first samples of each class; by default all.
    of_tokens : bool, default False
        Whether the samples are tokens. Tokens of one sequence are dependent, so whole sequences are
        held out.
    """

    def __init__(self, holdout: float, shots: int | None, *, of_tokens: bool = False) -> None:
        self._holdout = holdout
        self._shots = shots
        self._of_tokens = of_tokens
        self.fitted: IntArray = np.zeros(0, np.int64)  # samples of each class
        self.held: IntArray = np.zeros(0, np.int64)
        self._sequences = 0  # of tokens

    @property
    def n_classes(self) -> int:
        """One more than the largest label so far."""
        return len(self.fitted)

    def complete(self, n_classes: int | None) -> bool:
        """Whether no further sample will be used."""
        if self._shots is None or n_classes is None or self.n_classes < n_classes:
            return False
        return bool((self.fitted + self.held >= self._shots).all())

    def take(
        self, labels: IntArray, sequences: IntArray | None = None
    ) -> tuple[IntArray, IntArray]:
        """Return the rows of the next samples to fit, and those to hold out.

        Parameters
        ----------
        labels : numpy.ndarray of int64, shape (n,)
            Their classes.
        sequences : numpy.ndarray of int64, shape (n,), optional
            The number of the sequence of each, if these are tokens.
        """
        if sequences is not None:
            return self._take_sequences(labels, sequences)
        grown = max(self.n_classes, int(labels.max()) + 1) - self.n_classes
        self.fitted, self.held = (np.pad(c, (0, grown)) for c in (self.fitted, self.held))
        rows: tuple[list[int], list[int]] = [], []
        for row, label in enumerate(labels.tolist()):
            number = int(self.fitted[label] + self.held[label])
            if self._shots is not None and number >= self._shots:
                continue
            out = int((number + 1) * self._holdout) > int(number * self._holdout)
            (self.held if out else self.fitted)[label] += 1
            rows[out].append(row)
        return np.array(rows[0], np.int64), np.array(rows[1], np.int64)

    def take_of_ranks(
        self, parts: Sequence[tuple[IntArray, IntArray | None] | None]
    ) -> list[tuple[IntArray, IntArray]]:
        """Return for each rank the rows of its next samples to fit, and those to hold out.

        The samples are numbered row by row, and in each row rank by rank. A ``DistributedSampler``
        deals samples out in this way, so the numbers are those of one process.

        Parameters
        ----------
        parts : sequence of (labels, sequences) or None
            The samples of each rank, as of :meth:`take`; None for a rank without a batch.
        """
        there = [(rank, *part) for rank, part in enumerate(parts) if part is not None]
        if not there:
            return [(_NO_ROWS, _NO_ROWS)] * len(parts)
        ranks = np.concatenate([np.full(len(labels), rank) for rank, labels, _ in there])
        rows = np.concatenate([np.arange(len(labels)) for _, labels, _ in there])
        labels = np.concatenate([labels for _, labels, _ in there])
        sequences = None
        order = np.lexsort((ranks, rows))
        if self._of_tokens:  # a row is a sequence
            of = np.concatenate([sequences for _, _, sequences in there])
            order = np.lexsort((ranks, of))
            sequences = (of * len(parts) + ranks)[order]
        taken = self.take(labels[order], sequences)
        ranks, rows = ranks[order], rows[order]
        return [
            (rows[taken[0]][ranks[taken[0]] == rank], rows[taken[1]][ranks[taken[1]] == rank])
            for rank in range(len(parts))
        ]

    def _take_sequences(self, labels: IntArray, sequences: IntArray) -> tuple[IntArray, IntArray]:
        number = self._sequences + np.unique(sequences, return_inverse=True)[1]
        out = np.floor((number + 1) * self._holdout) > np.floor(number * self._holdout)
        self._sequences = int(number.max(initial=self._sequences - 1)) + 1
        grown = max(self.n_classes, int(labels.max(initial=-1)) + 1)
        more = (0, grown - self.n_classes)
        fitted, held = (np.bincount(labels[rows], minlength=grown) for rows in (~out, out))
        self.fitted, self.held = np.pad(self.fitted, more) + fitted, np.pad(self.held, more) + held
        return np.flatnonzero(~out), np.flatnonzero(out)

    def check(self, operation: str, n_classes: int | None, *, hold: bool) -> int:
        """Return the number of classes, or raise an error that says which samples are missing."""
        if self._of_tokens:
            self._check_sequences(operation)
            hold = False  # a sequence may lack a rare class of tokens
        classes = self.n_classes if n_classes is None else n_classes
        fitted = np.pad(self.fitted, (0, classes - self.n_classes))
        held = np.pad(self.held, (0, classes - self.n_classes))
        if classes < 2:
            raise InputError(
                f"{operation}: a probe needs at least two classes.\n"
                f"  train: {int(fitted.sum() + held.sum())} samples, all of class 0\n"
                "  Are the labels those of the samples?"
            )
        short = np.flatnonzero(fitted + held < (self._shots or 0))
        if len(short):
            raise InputError(
                f"{operation}: train has fewer than shots={self._shots} samples of "
                f"{_classes(short)}.\n  it has {(fitted + held)[short[:8]].tolist()}\n"
                "  Bring more of them, or take fewer shots."
            )
        for kind, counts in (("to fit", fitted), ("to hold out", held)):
            absent = np.flatnonzero(counts == 0)
            if len(absent) and (hold or kind == "to fit"):
                raise InputError(
                    f"{operation}: there is no training sample {kind} of {_classes(absent)}.\n"
                    f"  classes: {classes}    samples of these in train: "
                    f"{(fitted + held)[absent[:8]].tolist()}\n"
                    f"  The part holdout={self._holdout} of a class must come to a sample. Bring "
                    "more of them, or hold out more.\n  With a single value of ridges, holdout=0 "
                    "will do. Classes are numbered from 0."
                )
        return classes

    def _check_sequences(self, operation: str) -> None:
        if self._shots is not None:
            raise InputError(
                f"{operation}: shots counts samples, and these are tokens of sequences.\n"
                f"  got shots={self._shots}\n  Pass fewer sequences instead."
            )
        if self._holdout > 0 and not self.held.sum():
            raise InputError(
                f"{operation}: no sequence of train is held out.\n"
                f"  holdout={self._holdout}: the part of the sequences must come to one\n"
                "  Bring more of them, or hold out more."
            )


_NO_ROWS: IntArray = np.zeros(0, np.int64)


def _classes(which: IntArray) -> str:
    shown = ", ".join(map(str, which[:8].tolist())) + (", ..." if len(which) > 8 else "")
    return f"class {shown}" if len(which) == 1 else f"{len(which)} classes: {shown}"
