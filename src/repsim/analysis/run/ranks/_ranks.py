"""A group of processes that share the batches of one analysis."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, TypeVar

import torch.distributed as dist
from torch import nn

from repsim._distributed import RankGroup
from repsim._errors import InputError, warn
from repsim._options import got
from repsim.analysis.run._drive import Batch, as_found, each_pass, warn_of_ranks
from repsim.analysis.run._fingerprint import (
    digest,
    label_of,
    model_digest,
    modules_digest,
    shows_values,
)
from repsim.analysis.run.ranks._new_samples import NewSamples
from repsim.analysis.run.ranks._sample_ids import SampleIds, check_sample_ids, ids_of

__all__ = ["Ranks"]

UNKNOWN = "unknown"
"""In the place of a digest: values are on an accelerator, or in objects of other classes."""

ALONE = "alone"
"""The value of ``group=`` with which one rank of several works on its own."""

Part = TypeVar("Part")
"""The sums of one rank."""


class Ranks(RankGroup):
    """A group of ranks, or this process alone.

    Parameters
    ----------
    operation : str
        The analysis, for messages.
    group : None, "alone", "world" or torch.distributed.ProcessGroup
        With None only this process counts, even if there are others; "alone" says that this is
        meant.
    can_combine : bool
        Whether the analysis can combine the batches of several ranks.

    Attributes
    ----------
    alone : bool
        Whether this process works without a group.
    group : torch.distributed.ProcessGroup or None
        The group; None is the default group.
    size, rank : int
        The number of ranks, and the number of this one.
    duplicates : int
        The number of samples of all ranks that were left out because they came before.

    Warns
    -----
    RepsimWarning
        There are other ranks, and group is None.
    """

    inputs = "models"

    def __init__(self, operation: str, group: Any, *, can_combine: bool = True) -> None:
        of_others = group is dist.GroupMember.NON_GROUP_MEMBER  # RankGroup refuses it
        is_group = isinstance(group, dist.ProcessGroup) or of_others
        is_world = isinstance(group, str) and group == "world"
        is_meant = isinstance(group, str) and group == ALONE
        if not (group is None or is_meant or is_world or is_group):
            raise InputError(
                f"{operation}: group must be 'world', 'alone' or a torch.distributed.ProcessGroup."
                f"\n  got {got(group)}"
            )
        super().__init__(operation, None if is_meant else group)
        self.duplicates = 0
        self._sample_ids: SampleIds | None = None
        self._first_batch = ""  # its digest, if a group counts all samples
        if self.alone and not is_meant:
            combine = "Pass group='world' on every rank to combine their batches"
            whole = "Run it on one rank, with all of the data"
            warn_of_ranks(
                operation,
                f"{combine if can_combine else whole}. group='alone' says that one rank is meant.",
            )

    def share(self, sample_ids: SampleIds | None) -> None:
        """Check and set the function to the ids of samples, which all ranks use."""
        check_sample_ids(self.operation, sample_ids)
        self._sample_ids = sample_ids

    def places(self, first: int, n: int) -> list[int]:
        """Return the places of n samples in the data of all ranks, whose samples alternate.

        A DistributedSampler deals them in this way. `first` is the place of the first one in the
        share of this rank.
        """
        return [place * self.size + self.rank for place in range(first, first + n)]

    def repair(self, unlike: Collection[str]) -> str:
        """Return the lines of an error that say what to do about models that differ."""
        first = "  Load the same weights on every rank, and pass the same options."
        if not any(name.startswith("weights") for name in unlike):
            return first
        return (
            f"{first}\n  DistributedDataParallel leaves each rank the running statistics of its "
            "batch norm: broadcast\n  the buffers of rank 0 first.\n"
            "  for x in model.buffers(): torch.distributed.broadcast(x, 0)"
        )

    def agree_on(self, models: Mapping[str, nn.Module], **options: Any) -> None:
        """Raise on every rank if the ranks differ in modules or weights of models, or in options.

        Parameters
        ----------
        models : mapping of str to torch.nn.Module
            The models by argument.
        **options
            The options of the caller, or texts that stand for them; functions count by their names.
        """

        def described() -> dict[str, str]:
            of_models: dict[str, str] = {}
            for name, model in models.items():
                of_models[f"modules of {name}"] = modules_digest(model)
                of_models[f"weights of {name}"] = model_digest(model, with_shards=False)
            ids = {"sample_ids": self._sample_ids}
            return {
                **of_models,
                **{name: label_of(value) for name, value in {**ids, **options}.items()},
            }

        self.agree(described)

    def merged(self, part: Part | None, merge: Callable[[list[Part]], Part]) -> Part:
        """Return the sums of all ranks, with the same bits on every rank.

        It is called after :meth:`raise_on_all_ranks`, on all ranks.

        Parameters
        ----------
        part : object or None
            The sums of this rank, which can be pickled and hold no module and no tensor of an
            accelerator; None if the rank had no batch.
        merge : callable
            Merges the sums of the ranks that had one, in the order of ranks. Its errors are raised
            on all ranks, because all merge the same sums.
        """
        parts = [each for each in self.gather_at_end(part) if each is not None]
        if not parts:
            raise self._no_batch()
        return merge(parts)

    def _no_batch(self) -> InputError:
        return InputError(
            f"{self.operation}: data gave no batch on any rank.\n"
            f"  Is the folder empty, or drop_last=True with fewer samples than a batch?"
        )

    def each_pass(
        self, data: Iterable[Any] | None, passes: int, *, progress: bool
    ) -> Generator[Iterator[tuple[Batch, NewSamples | None]]]:
        """Yield, for every pass, the batches with the samples that count; None means all."""
        may_be_empty = not self.alone
        with closing(
            each_pass(
                self.operation, data, passes=passes, progress=progress, may_be_empty=may_be_empty
            )
        ) as all_passes:
            for batches in all_passes:
                if self._sample_ids is None:
                    yield ((batch, None) for batch in self._noted(batches))
                else:
                    steps = self._with_new_samples(batches, self._sample_ids)
                    yield ((batch, new) for batch, new in steps if batch is not None)

    @contextmanager
    def each_batch(
        self,
        data: Iterable[Any] | None,
        *models: nn.Module,
        progress: bool,
        gradients: bool = False,
    ) -> Iterator[Iterator[Batch]]:
        """Yield the batches of this rank, with the models in evaluation mode.

        A batch is cut to the samples that no rank had before, and is left out if there are none.
        With a group, there may be no batch. All else is as in
        :func:`repsim.analysis.run._drive.each_batch`.
        """
        with (
            as_found(self.operation, *models, gradients=gradients) if models else nullcontext(),
            closing(self.each_pass(data, 1, progress=progress)) as passes,
        ):
            yield (batch for one_pass in passes for batch in _cut(one_pass))

    @contextmanager
    def each_step(
        self, data: Iterable[Any] | None, *, progress: bool
    ) -> Iterator[Iterator[Batch | None]]:
        """Yield the batches of this rank, while all ranks take each step together.

        None stands for a step in which only other ranks have a batch, or new samples. All ranks
        are at one place, so they may exchange values in a step, and must leave the loop in the same
        one. It costs an exchange per step. All else is as in :meth:`each_batch`.
        """
        with closing(
            each_pass(
                self.operation, data, passes=1, progress=progress, may_be_empty=not self.alone
            )
        ) as passes:
            yield (step for batches in passes for step in self._steps(batches))

    def _steps(self, batches: Iterator[Batch]) -> Iterator[Batch | None]:
        is_first, n_steps = True, 0
        for batch, new in self._uncut_steps(batches):
            n_steps += 1
            cut = batch if batch is None or new is None else new.of(batch)
            yield None if cut is None else replace(cut, is_first=is_first)
            is_first = is_first and cut is None
        if not n_steps and not self.alone:
            raise self._no_batch()

    def _uncut_steps(
        self, batches: Iterator[Batch]
    ) -> Iterator[tuple[Batch | None, NewSamples | None]]:
        if self._sample_ids is not None:
            yield from self._with_new_samples(batches, self._sample_ids)
            return
        for batch in self.in_step(self._noted(batches)):
            yield batch, None

    def in_step(self, batches: Iterator[Batch]) -> Iterator[Batch | None]:
        """Yield the batches of this rank, and None from its last to that of the other ranks.

        All ranks exchange before each, so an error of one rank reaches the others at their next
        batch. A rank with few batches waits for one batch of the others at a time, so the time
        limit of the group does not end it.
        """
        while True:
            batch = next(batches, None)
            if not any(self.gather(batch is not None)):
                return
            yield batch

    def _noted(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield the batches, and keep the digest of the first."""
        for batch in batches:
            if not self.alone and not self._first_batch:
                self._first_batch = digest(batch.value) if shows_values(batch.value) else UNKNOWN
            yield batch

    def gather_at_end(self, value: Any) -> list[Any]:
        """Return the value of each rank after its last batch, in the order of ranks.

        It warns if all ranks of several had the same first batch.
        """
        everyone = self.gather((self._first_batch, value))
        firsts = {first for first, _ in everyone}
        if self.size > 1 and len(firsts) == 1 and not firsts & {"", UNKNOWN}:
            warn(
                f"{self.operation}: all {self.size} ranks got the same first batch, so each "
                f"sample may count {self.size} times.\n"
                f"  Give each rank its own share of the data (DistributedSampler), or pass "
                f"sample_ids=, with which a sample counts once."
            )
        return [each for _, each in everyone]

    def report(self) -> dict[str, int]:
        """Return the attributes of a result about ranks and repeated samples."""
        ranks = {} if self.alone else {"n_ranks": self.size}
        return ranks if self._sample_ids is None else {**ranks, "n_duplicates": self.duplicates}

    def _with_new_samples(
        self, batches: Iterator[Batch], sample_ids: SampleIds
    ) -> Iterator[tuple[Batch | None, NewSamples | None]]:
        # All ranks take this step together until all are done, so every rank knows the same ids. If
        # several ranks have a sample in one step, the lowest rank counts it.
        seen: set[Any] = set()
        while True:
            batch = next(batches, None)
            ids = None if batch is None else ids_of(self.operation, sample_ids, batch.value)
            everyone = self.gather(ids)
            if all(theirs is None for theirs in everyone):
                return
            mine: list[int] = []
            for rank, theirs in enumerate(everyone):
                rows = []
                for row, each in enumerate(theirs or ()):
                    if each not in seen:
                        seen.add(each)
                        rows.append(row)
                self.duplicates += len(theirs or ()) - len(rows)
                if rank == self.rank:
                    mine = rows
            if batch is None or ids is None:
                yield None, None
            else:
                yield batch, NewSamples(mine, len(ids), [ids[row] for row in mine])


def _cut(batches: Iterable[tuple[Batch, NewSamples | None]]) -> Iterator[Batch]:
    """Yield the batches cut to their new samples."""
    is_first = True
    for batch, new in batches:
        cut = batch if new is None else new.of(batch)
        if cut is not None:
            yield replace(cut, is_first=is_first)
            is_first = False
