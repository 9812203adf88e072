"""One run of `compare`: the remaining batches, the sums, and the state file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from repsim._errors import CheckpointError, NonFiniteError, warn
from repsim.analysis.maps._rank_grams import grams_of, tokens_of
from repsim.analysis.run._drive import Batch
from repsim.analysis.run._fingerprint import BatchLog
from repsim.analysis.run._token_samples import TokenSamples
from repsim.analysis.run.ranks import NewSamples, Ranks
from repsim.kernels import Kernel
from repsim.storage import Checkpoint, from_arrays, to_arrays, uninterrupted
from repsim.streaming import MinibatchCKA

if TYPE_CHECKING:
    import xarray

__all__ = ["Resumable", "Run"]


class Resumable(Protocol):
    """What follows the batches besides the sums."""

    def state(self) -> dict[str, list[Any]]:
        """Return the state after the batches that were counted."""

    def resume(self, state: Mapping[str, list[Any]], /) -> None:
        """Restore a state."""


class Run:
    """The remaining batches of this rank, and the sums of each pass.

    With a path, a file holds the state. It is read at the start and written every two minutes,
    before an error is raised, and at the end.

    Parameters
    ----------
    ranks : Ranks
        The ranks that share the batches.
    kernel : Kernel
        The kernel of the accumulators.
    resumable : sequence of Resumable
        The bandwidths of each recorded side, and what else the file must hold.
    tokens : TokenSamples, optional
        Which tokens are the samples; by default inputs are.
    path : path, optional
        The state file; without it no state is kept and no batch is skipped.
    fingerprint : callable
        Returns the values that must be equal to resume from a file, in a form that an error can
        show. It is called only if there is a path.

    Attributes
    ----------
    accumulators : list of MinibatchCKA
        The sums, by pass.
    interrupted : bool
        Whether Ctrl-C ended the run, with its state in the file.

    Raises
    ------
    StateError
        The file is damaged or belongs to another run.
    CheckpointError
        The file cannot be written.
    """

    def __init__(
        self,
        ranks: Ranks,
        kernel: Kernel,
        resumable: Sequence[Resumable],
        tokens: TokenSamples | None,
        path: str | PathLike[str] | None,
        fingerprint: Callable[[], Mapping[str, Any]],
    ) -> None:
        self.path = None if path is None else ranks.own_path(path)
        self.accumulators: list[MinibatchCKA] = []
        self.interrupted = False
        self._ranks, self._kernel, self._tokens = ranks, kernel, tokens
        self._resumable = [*resumable, *([] if tokens is None else [tokens])]
        self._pass, self._n_written = -1, -1
        self._file = (
            None
            if self.path is None
            else Checkpoint(self.path, operation="compare", fingerprint=fingerprint())
        )
        self._log = BatchLog("compare", self.path or "", self._restored())
        self._save()  # an unwritable folder must raise before the work, not after it

    @property
    def n_batches(self) -> int:
        """The number of batches in the sums, over all passes."""
        return sum(each.n_batches for each in self.accumulators)

    def batches(
        self, data: Iterable[Any] | None, passes: int, *, progress: bool
    ) -> Iterator[tuple[Batch, NewSamples | None]]:
        """Yield the batches to count, with the samples that count; None means all samples."""
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
        """Count the latest batch, given the Grams of each side."""
        xs, ys = grams
        if new is not None and self._tokens is not None:
            new = tokens_of(new, self._tokens)
        if new is not None:
            xs, ys = grams_of(new, xs), None if ys is None else grams_of(new, ys)
        if self._tokens is not None:
            rows = None if new is None else new.rows
            xs = self._tokens.centred(xs, rows)
            ys = None if ys is None else self._tokens.centred(ys, rows)
        with uninterrupted():  # the batch is in both the sums and the log, or in neither
            if new is None or new.rows:
                self.accumulators[self._pass].update_grams(xs, ys)
            if self._tokens is not None:
                self._tokens.count()
            if self._file is not None:
                self._log.count()

    @contextmanager
    def saving(self, result: Callable[[list[MinibatchCKA]], xarray.Dataset]) -> Iterator[None]:
        """Save the state before an error of this block is raised.

        Ctrl-C ends the block without an error if a file holds the sums. An error about non-finite
        values carries the result before it.
        """
        try:
            yield
        # Ctrl-C alone does not go on, and only where the file holds everything.
        except BaseException as error:
            is_saved = self._file is not None
            try:
                self._save()
            except CheckpointError as failure:
                is_saved = False
                error.add_note(str(failure))
            if isinstance(error, NonFiniteError) and self.n_batches:
                error.partial = result(self.accumulators)
            self.interrupted = (
                isinstance(error, KeyboardInterrupt)
                and is_saved
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
        """Restore the state of the file, if there is one; return the digests of its batches."""
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
        """Write the state if it was last written minutes ago; continue if writing fails."""
        if self._file is not None and self._file.due:
            try:
                self._save()
            except CheckpointError as error:
                warn(f"{error}\n  The computation goes on; the state written before is kept.")

    def _save(self) -> None:
        """Write the state; if writing fails, the file still holds the old state."""
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
