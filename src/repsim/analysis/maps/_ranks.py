"""The ranks of torch.distributed that share the batches of one comparison."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from os import PathLike, fspath
from typing import Any

import torch.distributed as dist

from repsim._errors import InputError, StateError
from repsim.analysis.run._drive import Batch, each_pass
from repsim.analysis.run._sample_ids import SampleIds, check_sample_ids, ids_of
from repsim.streaming import MinibatchCKA, gather, group_size, tell_failure

__all__ = ["Ranks"]


class Ranks:
    """A group of ranks, or this process alone.

    Parameters
    ----------
    group : None, "world" or torch.distributed.ProcessGroup
        None stands for this process alone, whether or not there are others.
    sample_ids : callable, optional
        As in :func:`repsim.compare`.
    """

    def __init__(self, group: Any, sample_ids: SampleIds | None) -> None:
        if isinstance(group, str) and group != "world":
            raise InputError(
                f"compare: group must be 'world' or a torch.distributed.ProcessGroup.\n"
                f"  got {group!r}"
            )
        check_sample_ids("compare", sample_ids)
        self.alone = group is None
        self.group = None if isinstance(group, str) else group
        self.size = 1 if self.alone else group_size("compare", self.group)
        self.rank = 0 if self.alone else dist.get_rank(self.group)
        self.duplicates = 0
        self.n_ids: int | None = None  # of the latest batch
        self._sample_ids = sample_ids

    def own_path(self, path: str | PathLike[str] | None) -> str | None:
        """Return where this rank keeps its state."""
        if path is None or self.alone:
            return None if path is None else fspath(path)
        return f"{fspath(path)}.rank{self.rank}of{self.size}"

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Let an error on this rank raise on the others too, which would wait in vain."""
        try:
            yield
        except BaseException as error:
            if not self.alone:
                tell_failure("compare", error, self.group)
            raise

    def passes(
        self, data: Iterable[Any] | None, passes: int, *, progress: bool
    ) -> Iterator[Iterator[tuple[Batch, list[int] | None]]]:
        """Yield, for every pass, the batches with the rows that count; None for all rows."""
        empty = not self.alone
        with closing(
            each_pass("compare", data, passes=passes, progress=progress, may_be_empty=empty)
        ) as each:
            for one_pass in each:
                yield (
                    ((batch, None) for batch in one_pass)
                    if self._sample_ids is None
                    else (self._first_seen(one_pass))
                )

    def all_reduce(self, accumulators: list[MinibatchCKA]) -> list[MinibatchCKA]:
        """Return the accumulators of all ranks together, pass by pass."""
        if self.alone:
            return accumulators
        counts = gather("compare", len(accumulators), self.group)
        if len(set(counts)) > 1:
            raise StateError(f"compare: passes must be the same on all ranks.\n  got {counts}")
        return [each.all_reduce(self.group) for each in accumulators]

    def report(self) -> dict[str, int]:
        """Return what a result says of ranks and of samples that came twice."""
        ranks = {} if self.alone else {"n_ranks": self.size}
        return ranks if self._sample_ids is None else {**ranks, "n_duplicates": self.duplicates}

    def _first_seen(self, one_pass: Iterator[Batch]) -> Iterator[tuple[Batch, list[int] | None]]:
        # In step with the others until all are done: then every rank knows the same ids, and of
        # samples that several ranks have in one step the lowest rank counts them.
        assert self._sample_ids is not None
        seen: set[Any] = set()
        while True:
            batch = next(one_pass, None)
            ids = None if batch is None else ids_of("compare", self._sample_ids, batch.value)
            everyone = [ids] if self.alone else gather("compare", ids, self.group)
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
            if batch is not None and ids is not None:
                self.n_ids = len(ids)
                yield batch, None if len(mine) == len(ids) else mine
