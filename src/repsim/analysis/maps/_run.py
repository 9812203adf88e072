"""One run of `compare`: the batches that are still to be counted, their sums, and their file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import TYPE_CHECKING, Any

from torch import Tensor

from repsim._errors import CheckpointError, NonFiniteError, warn
from repsim.analysis.maps._ranks import NewSamples, Ranks
from repsim.analysis.maps._resumable_kernels import ResumableKernels
from repsim.analysis.run._drive import Batch
from repsim.analysis.run._fingerprint import BatchLog
from repsim.kernels import Kernel
from repsim.storage import Checkpoint, from_arrays, to_arrays, uninterrupted
from repsim.streaming import MinibatchCKA

if TYPE_CHECKING:
    import xarray

__all__ = ["Run"]


class Run:
    """The batches of this rank that are still to be counted, and what was counted of each pass.

    With a path, a file holds the state. It is read at the start; it is written every two minutes,
    before an error is raised, and at the end.

    Parameters
    ----------
    ranks : Ranks
        Who shares the batches.
    kernel : Kernel
        Of the accumulators.
    resumable : sequence of ResumableKernels
        The bandwidths of each recorded side.
    path : path, optional
        The state file; without it nothing is kept and no batch is skipped.
    fingerprint : callable
        Returns what must be the same before a run goes on from a file, in words that an error can
        show. It is called only with a path.

    Attributes
    ----------
    accumulators : list of MinibatchCKA
        What was counted, by pass.
    interrupted : bool
        Whether Ctrl-C ended the run, with its state in the file.

    Raises
    ------
    StateError
        The file is damaged or belongs to something else.
    CheckpointError
        The file cannot be written.
    """

    def __init__(
        self,
        ranks: Ranks,
        kernel: Kernel,
        resumable: Sequence[ResumableKernels],
        path: str | PathLike[str] | None,
        fingerprint: Callable[[], Mapping[str, Any]],
    ) -> None:
        self.path = None if path is None else ranks.own_path(path)
        self.accumulators: list[MinibatchCKA] = []
        self.interrupted = False
        self._ranks, self._kernel, self._resumable = ranks, kernel, resumable
        self._pass, self._n_written = -1, -1
        self._file = (
            None
            if self.path is None
            else Checkpoint(self.path, operation="compare", fingerprint=fingerprint())
        )
        self._log = BatchLog("compare", self.path or "", self._restored())
        self._save()  # a folder that cannot be written is found out before the work, not after

    @property
    def n_batches(self) -> int:
        """The number of batches that entered a sum, over all passes."""
        return sum(each.n_batches for each in self.accumulators)

    def batches(
        self, data: Iterable[Any] | None, passes: int, *, progress: bool
    ) -> Iterator[tuple[Batch, NewSamples | None]]:
        """Yield the batches to count, with the samples that count; None for all of them."""
        for one_pass in self._ranks.each_pass(data, passes, progress=progress):
            self._begin_pass()
            for batch, new in one_pass:
                if self._file is None or not self._log.was_counted(batch.value):
                    yield batch, new
                    self._save_if_due()
        self._log.end_pass()
        self._save()

    def count(
        self,
        grams: tuple[Mapping[str, Tensor], Mapping[str, Tensor] | None],
        new: NewSamples | None,
    ) -> None:
        """Count the batch that was yielded last, by the Grams of each side."""
        xs, ys = grams
        if new is not None:
            xs, ys = new.of(xs), None if ys is None else new.of(ys)
        with uninterrupted():  # the sums and the log know the batch, or neither does
            if new is None or new.rows:
                self.accumulators[self._pass].update_grams(xs, ys)
            if self._file is not None:
                self._log.count()

    @contextmanager
    def saving(self, result: Callable[[list[MinibatchCKA]], xarray.Dataset]) -> Iterator[None]:
        """Save the state before an error of this block is raised.

        Ctrl-C ends the block without an error if a file holds what was counted. An error about
        values that are not finite carries the result before it.
        """
        try:
            yield
        except BaseException as error:
            try:
                self._save()
            except CheckpointError as failure:
                error.add_note(str(failure))
            if isinstance(error, NonFiniteError) and self.n_batches:
                error.partial = result(self.accumulators)
            self.interrupted = (
                isinstance(error, KeyboardInterrupt)
                and self._file is not None
                and self._ranks.alone
                and self.n_batches > 0
            )
            if not self.interrupted:
                raise

    def _begin_pass(self) -> None:
        self._pass += 1
        self._log.begin_pass()
        if self._pass == len(self.accumulators):
            self.accumulators.append(MinibatchCKA(kernel=self._kernel))

    def _restored(self) -> list[list[str]]:
        """Take over the state of the file, if there is one; return the digests of its batches."""
        arrays = None if self._file is None else self._file.load()
        if arrays is None:
            return []
        state = from_arrays(arrays)
        self.accumulators = [
            MinibatchCKA.from_state_dict(each, kernel=self._kernel)
            for each in state["accumulators"]
        ]
        for kernels, bandwidths in zip(self._resumable, state["bandwidths"], strict=True):
            kernels.resume(bandwidths)
        known: list[list[str]] = state["batches"]
        return known

    def _save_if_due(self) -> None:
        """Write the state if the last writing was some minutes ago; go on if that fails."""
        if self._file is not None and self._file.due:
            try:
                self._save()
            except CheckpointError as error:
                warn(f"{error}\n  The computation goes on; the state written before is kept.")

    def _save(self) -> None:
        """Write the state: afterwards the file holds the old state or the new one, whole."""
        n_counted = sum(map(len, self._log.known))
        if self._file is None or self._n_written == n_counted:
            return
        state = {
            "batches": self._log.known,
            "accumulators": [each.state_dict() for each in self.accumulators],
            "bandwidths": [kernels.state() for kernels in self._resumable],
        }
        self._file.save(to_arrays(state))
        self._n_written = n_counted
