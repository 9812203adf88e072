"""The state of one layer during training and test of its probes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from repsim._errors import InputError
from repsim._options import as_count, as_number, as_numbers, require_bool
from repsim.analysis.probes._labelled import IntArray
from repsim.analysis.run._sequence_means import SequenceMeans
from repsim.arrays import accumulator_dtype, array_namespace, to_numpy, uploaded
from repsim.streaming import LinearClassifier, RidgePath, RidgeStatistics

__all__ = ["RIDGES", "Gathered", "TestedProbe", "TrainedProbe", "check_probe", "of_one"]

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

Gathered: TypeAlias = Callable[[Any], list[Any]]
"""Type of functions that return the values of all ranks, in the order of ranks, on every rank."""

_Assessed: TypeAlias = tuple[Floats, Floats, int]


def of_one(value: Any) -> list[Any]:
    """Return the value of the only process."""
    return [value]


RIDGES = tuple(2.0**k for k in range(-10, 21, 2))
"""From nearly no shrinkage to little more than the class means; the diagonal of A is n."""


@dataclass
class TestedProbe:
    """The classifiers of one layer's T tokens, and the number of test samples each got right.

    Attributes
    ----------
    names : tuple of T str
        The tokens; empty if the layer has none of the requested ones.
    ridge, holdout_accuracy : numpy.ndarray, shape (T,)
        The chosen λ and its accuracy on the held-out samples.
    by_sequence : SequenceMeans
        The accuracy on test, if the samples are the tokens of sequences.
    """

    names: tuple[str, ...]
    classifier: LinearClassifier | None
    ridge: Floats
    holdout_accuracy: Floats
    by_sequence: SequenceMeans = field(default_factory=SequenceMeans)

    _correct: Tensor | None = None

    __test__ = False  # pytest would take a class of this name for a test

    @property
    def correct(self) -> Floats:
        """The number of hits on test, (T,)."""
        if self._correct is None:
            return np.zeros(len(self.names))
        return to_numpy(self._correct).astype(np.float64)

    def totals(self) -> tuple[Floats, SequenceMeans]:
        """Return the hits and the accuracy by sequence, which other ranks can read."""
        return self.correct, self.by_sequence.on_host()

    def with_totals(self, correct: Floats, by_sequence: SequenceMeans) -> TestedProbe:
        """Return this probe with the hits and the accuracy by sequence of all ranks."""
        return replace(self, _correct=torch.from_numpy(correct), by_sequence=by_sequence)

    def add(self, values: Tensor, labels: IntArray, sequences: IntArray | None = None) -> None:
        """Count the hits in a batch (T, n, p), with the number of each sample's sequence."""
        if self.classifier is None or not len(labels):
            return
        hits = self.hits(values, labels)
        if sequences is not None:
            self.add_sequences(hits, sequences)

    def hits(self, values: Tensor, labels: IntArray) -> Tensor:
        """Count the hits in rows (T, n, p), and return which rows these are, (T, n)."""
        assert self.classifier is not None
        predicted = self.classifier.predict(values)
        if not isinstance(predicted, Tensor):  # NumPy's, where the device has no float64
            predicted = torch.from_numpy(predicted)
        hits: Tensor = predicted == uploaded(labels, predicted)
        found = hits.sum(-1)
        self._correct = found if self._correct is None else self._correct + found
        return hits

    def add_sequences(self, hits: Tensor, sequences: IntArray) -> None:
        """Add the hits (T, n) of whole sequences, by the number of each row's sequence."""
        _, at, counts = np.unique(sequences, return_inverse=True, return_counts=True)
        wide = accumulator_dtype(array_namespace(hits), hits)
        sums = hits.new_zeros((len(hits), len(counts)), dtype=wide)
        sums.index_add_(1, uploaded(at, hits), hits.to(wide))
        self.by_sequence.add(sums, uploaded(counts, hits))


@dataclass
class TrainedProbe:
    """The training data seen so far of one layer's T tokens."""

    names: tuple[str, ...]
    statistics: RidgeStatistics = field(default_factory=RidgeStatistics)
    held: list[tuple[Tensor, IntArray]] = field(default_factory=list)
    home: Tensor | None = None
    """A tensor (p,) on the device of the features."""

    def add(self, values: Tensor, labels: IntArray, fit: IntArray, hold: IntArray) -> None:
        """Add the rows `fit` of a batch (T, n, p) to the statistics, keep the rows `hold`."""
        self.home = values.new_empty(values.shape[-1])
        if self.names and len(labels):
            self.statistics.update(_rows(values, fit), labels[fit])
            if len(hold):
                self.held.append((_rows(values, hold), labels[hold]))

    def choose(
        self,
        ridges: Sequence[float],
        classes: int,
        *,
        standardize: bool,
        gathered: Gathered = of_one,
    ) -> TestedProbe:
        """Choose λ for each token on the held-out samples, and fit again on all samples.

        The best accuracy decides. Few-shot accuracies have many ties, so the least squared error to
        the targets decides next, and then the first λ. The samples are those of all ranks, and so
        are the counts that decide.
        """
        tokens = len(self.names)
        nothing = np.zeros(tokens)
        if not tokens:
            return TestedProbe((), None, nothing, nothing)
        ridge, best = np.full(tokens, float(ridges[0])), np.full(tokens, np.nan)
        statistics = self._of_ranks(self.statistics, gathered)
        path = statistics.solve(standardize=standardize, n_classes=classes)
        assessed = [each for each in gathered(self._assessed(path, ridges)) if each is not None]
        if assessed:
            correct, error, count = (sum(parts) for parts in zip(*assessed, strict=True))
            at = np.where(correct == correct.max(0), error, np.inf).argmin(0)
            ridge = np.asarray(ridges, dtype=np.float64)[at]
            best = correct.max(0) / count
            self._add_held(statistics, gathered)
            path = statistics.solve(standardize=standardize, n_classes=classes)
        return TestedProbe(self.names, path.weights(ridge), ridge, best)

    def _assessed(self, path: RidgePath, ridges: Sequence[float]) -> _Assessed | None:
        """Return for each λ the right answers and squared errors, and the number of samples."""
        if not self.held:
            return None
        parts = [path.assess(x, labels, ridges) for x, labels in self.held]
        correct, error = (to_numpy(sum(each)) for each in zip(*parts, strict=True))
        return correct, error, sum(len(labels) for _, labels in self.held)

    def _add_held(self, statistics: RidgeStatistics, gathered: Gathered) -> None:
        """Add the held-out samples of all ranks, and forget them."""
        own = statistics if gathered is of_one else RidgeStatistics()
        for x, labels in self.held:
            own.update(x, labels)
        self.held.clear()
        if own is not statistics:
            statistics.merge(self._of_ranks(own, gathered))

    def _of_ranks(self, statistics: RidgeStatistics, gathered: Gathered) -> RidgeStatistics:
        """Return the statistics of all ranks, merged in their order, on the device of this one."""
        if gathered is of_one:
            return statistics
        merged = RidgeStatistics()
        for state in gathered(statistics.state_dict()):
            merged.merge(RidgeStatistics.from_state_dict(state, like=self.home))
        return merged


def _rows(values: Tensor, rows: IntArray) -> Tensor:
    if len(rows) == values.shape[1]:
        return values
    picked: Tensor = values[:, uploaded(rows, values)]
    return picked


def check_probe(
    operation: str,
    n_classes: int | None,
    shots: int | None,
    ridges: Sequence[float],
    holdout: float,
    standardize: bool,
) -> tuple[float, ...]:
    """Return the values of λ, or raise if an option of a probe cannot be used."""
    if n_classes is not None:
        as_count(operation, "n_classes", n_classes, least=2)
    if shots is not None:
        as_count(operation, "shots", shots)
    require_bool(operation, "standardize", standardize)
    # Without a ridge the solution is not unique with fewer samples than features.
    values = as_numbers(operation, "ridges", ridges, above=0)
    as_number(operation, "holdout", holdout, least=0, below=1)
    if holdout == 0 and len(values) > 1:
        raise InputError(
            f"{operation}: holdout must be above 0 unless there is one ridge.\n"
            f"  holdout={holdout!r}, {len(values)} ridges\n"
            "  λ must be chosen on samples that were not fitted, and test must not choose it."
        )
    return values
