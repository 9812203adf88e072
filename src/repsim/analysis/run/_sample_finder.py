"""Running a model on batches whose samples are found by evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from repsim._errors import CaptureError, InputError, warn
from repsim._options import got, is_whole
from repsim.analysis.run._cut_runs import BatchRefusedError, answers, input_of
from repsim.analysis.run._drive import Batch, Forward
from repsim.analysis.run._followed import learn_sequences
from repsim.capture import Masks, Recorder, UnusableOutput
from repsim.capture.samples import Evidence, ask, have_one_size, length_of_items, lengths_in

__all__ = ["BatchSize", "SampleFinder"]

BatchSize: TypeAlias = int | Callable[[Any], int] | None
"""Types of ``batch_size=``: the number of samples of a batch, or a function of the batch."""

FIRST_BATCHES = 4
"""If none of the first batches has enough samples, the others are not run."""


class SampleFinder:
    """Which samples the batches of one model hold, and on which axes of its layers they are.

    Before the first batch, the model runs on 2 and on 3 of its samples: only the axis of the
    samples grows with them.

    Parameters
    ----------
    operation : str
        The analysis, for errors.
    batch_size : int, callable or None
        The number of samples of a batch, for batches that do not show it.
    least : int, default 1
        Batches with fewer samples are not counted; if the first four are such, an error says so.

    Raises
    ------
    InputError
        `batch_size` is none of these.
    """

    def __init__(self, operation: str, batch_size: BatchSize = None, *, least: int = 1) -> None:
        number = is_whole(batch_size) and batch_size > 0
        if batch_size is not None and not number and not callable(batch_size):
            raise InputError(
                f"{operation}: batch_size must be the number of samples of a batch, or a function "
                f"of the batch.\n  got {got(batch_size)}"
            )
        self._operation, self._least = operation, least
        self._batch_size = int(batch_size) if is_whole(batch_size) else batch_size
        self._place: int | None = None
        self._asked = self._checked = self._is_packed = False
        self._doubt: str | None = None
        self._is_ambiguous = False
        self._n_short = 0

    def ask(
        self,
        batch: Batch,
        model: nn.Module,
        recorders: Sequence[Recorder],
        forward: Forward | None = None,
        masks: Sequence[Masks] = (),
    ) -> None:
        """Run the model on few samples of the first batch, for evidence; :meth:`run` does so too.

        The samples are on the axis that grows with them. If the model has several sequences, the
        masks learn which of them each layer follows.
        """
        for recorder in recorders:
            recorder.gathers, recorder.enabled = True, False
        undeclared = [recorder for recorder in recorders if recorder.axes.is_assumed]
        if not self._asked:
            if undeclared:
                self._ask(batch, model, undeclared, forward)
            learn_sequences(masks, batch, model, forward)
        self._asked = True

    def run(
        self,
        batch: Batch,
        model: nn.Module,
        recorders: Sequence[Recorder],
        forward: Forward | None = None,
        masks: Sequence[Masks] = (),
    ) -> None:
        """Call a model on a prepared batch, and record the outputs with their samples in front.

        Nothing else is recorded from the first call on.

        Parameters
        ----------
        batch : Batch
            The batch, prepared for the model.
        model : torch.nn.Module
            The model.
        recorders : sequence of Recorder
            Those that record this forward.
        forward : callable, optional
            How the model is called.
        masks : sequence of Masks, optional
            Those of these recorders.
        """
        self.ask(batch, model, recorders, forward, masks)
        given = input_of(batch.value, forward)
        declared = self._declared(given)
        likely = self._seeming(given) if declared is None else declared
        if self._is_packed and not have_one_size(given, likely or 0):
            raise CaptureError(
                f"{self._operation}: samples that are packed along one axis must have one size.\n"
                f"  those of batch {batch.number} (counted from 0) differ in size\n"
                "  Choose layers with one row for each sample, or reduce the rows with select=."
            )
        for recorder in recorders:
            recorder.axes.reset(declared, likely=likely)
        with _enabled(recorders):
            batch.run(model, forward=forward)
        self._report_doubt()
        if not self._checked:
            n = recorders[0].n_samples
            self._check_enough(n, batch)
            looked = [_leave_out_non_finite(recorder) for recorder in recorders]
            self._checked = all(looked) and (n is None or n >= self._least)

    def _ask(
        self,
        batch: Batch,
        model: nn.Module,
        recorders: Sequence[Recorder],
        forward: Forward | None,
    ) -> None:
        """Cut the batch in each way in which it may hold samples, until a layer follows them."""
        given = input_of(batch.value, forward)
        lengths = [length for length, _ in lengths_in(given)]
        best: list[Evidence] | None = None
        raised: BaseException | None = None

        def question(run: Callable[[int], object]) -> list[Evidence] | None:
            return ask([recorder.axes.probe() for recorder in recorders], run)

        asked = answers(batch, model, forward, self._declared(given), question)
        for place, (way, found) in enumerate(asked):
            if isinstance(found, BatchRefusedError):
                raised = raised or found.__cause__
                continue
            if found is not None and _any_follows(found):
                items = None if way.n is None else length_of_items(given, way.n)
                if self._batch_size is None and items is not None:
                    for _, other in answers(batch, model, forward, items, question):
                        if isinstance(other, list) and _any_follows(other):
                            raise self._may_be_crops(way.n, items)
                best, self._is_packed = found, way.packed
                self._place = lengths.index(way.n) if way.n in lengths else None
                break
            if place == 0:  # the likeliest samples: maybe no layer follows them
                best = found
        if best is not None:
            for recorder, evidence in zip(recorders, best, strict=True):
                recorder.axes.learn(evidence)
        elif self._batch_size is None:
            self._doubt = self._why_doubtful(lengths, raised)

    def _may_be_crops(self, n: int | None, items: int) -> CaptureError:
        return CaptureError(
            f"{self._operation}: a list of {n} tensors may hold {n} samples, or {n} crops of "
            f"{items} samples.\n"
            f"  the model runs on fewer tensors, and on tensors of fewer rows\n"
            f"  Pass batch_size={n} or batch_size={items}, or a function of the batch."
        )

    def _declared(self, given: Any) -> int | None:
        """Return the number of samples that the caller declares."""
        if self._batch_size is None or isinstance(self._batch_size, int):
            return self._batch_size
        n = self._batch_size(given)
        if not is_whole(n) or n < 0:
            raise InputError(
                f"{self._operation}: batch_size must return the number of samples of a batch.\n"
                f"  got {got(n)}"
            )
        return int(n)

    def _seeming(self, given: Any) -> int | None:
        """Return the length of the axis that held the samples of the first batch."""
        if self._place is None:
            return None
        lengths = [length for length, _ in lengths_in(given)]
        return lengths[self._place] if self._place < len(lengths) else None

    def _why_doubtful(self, lengths: Sequence[int], raised: BaseException | None) -> str:
        """Say why the samples could not be found."""
        self._is_ambiguous = len({length for length in lengths if length > 1}) > 1
        why = (
            f"the model raised on 2 of them: {type(raised).__name__}: {str(raised)[:200]}"
            if raised is not None
            else "no way to cut the batch changed the input of the model"
        )
        shown = f"  lengths of first axes in the batch: {lengths[:8]}\n" if lengths else ""
        return (
            f"{self._operation}: which axes hold the samples could not be found.\n  {why}\n{shown}"
        )

    def _report_doubt(self) -> None:
        """Report what could not be found, after a forward that shows that the model runs."""
        doubt, self._doubt = self._doubt, None
        if doubt is None:
            return
        repair = "batch_size= (the number of samples, or a function of the batch) or batch_dim="
        if self._is_ambiguous:
            raise CaptureError(f"{doubt}  Pass {repair}.")
        warn(
            f"{doubt}  Axis 0 of each output is taken for the samples where it has the size of the "
            f"model's input. Pass {repair} to be sure."
        )

    def _check_enough(self, n: int | None, batch: Batch) -> None:
        self._n_short += n is not None and n < self._least
        if self._n_short == batch.number + 1 == FIRST_BATCHES:
            raise InputError(
                f"{self._operation}: batches must have at least {self._least} samples.\n"
                f"  the first {FIRST_BATCHES} have fewer; this one has {n}\n"
                "  Pass larger batches. If each batch holds several packed samples, say so with "
                "batch_size=, or pass them one by one on axis 0."
            )


def _any_follows(found: Sequence[Evidence]) -> bool:
    return any(axis is not None for evidence in found for axis in evidence.values())


@contextmanager
def _enabled(recorders: Sequence[Recorder]) -> Iterator[None]:
    """Let recorders record: only here, because data and functions of the caller may use a model."""
    for recorder in recorders:
        recorder.enabled = True
    try:
        yield
    finally:
        for recorder in recorders:
            recorder.enabled = False


def _leave_out_non_finite(recorder: Recorder) -> bool:
    """Leave out layers with NaN or infinity, such as masked scores, if no exact name asks.

    Returns whether there were values to look at.
    """
    kept = {
        label: value if isinstance(value, Tensor) else getattr(value, "values", None)
        for label, value in recorder.items()
    }
    values = {label: value for label, value in kept.items() if isinstance(value, Tensor)}
    finite = {label: value.isfinite().all() for label, value in values.items()}
    home = next((flag.device for flag in finite.values()), None)
    flags = torch.stack([flag.to(home) for flag in finite.values()]).tolist() if finite else []
    bad = [label for label, flag in zip(finite, flags, strict=True) if not flag]
    if bad and len(bad) < len(recorder):  # if all are, an error says so
        brief = "has NaN or infinity (half precision overflows at 65504)"
        recorder.leave_out(bad, UnusableOutput(f"Recorder: a layer {brief}.", brief=brief))
    return not values or any(value.numel() for value in values.values())
