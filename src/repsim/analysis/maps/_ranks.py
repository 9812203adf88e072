"""The ranks of torch.distributed that share the batches of one comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from os import PathLike, fspath
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from repsim._errors import InputError, StateError
from repsim.analysis.run._drive import Batch, each_pass, warn_of_ranks
from repsim.analysis.run._sample_ids import SampleIds, check_sample_ids, ids_of
from repsim.analysis.run._token_samples import TokenSamples
from repsim.kernels import Kernel
from repsim.streaming import MinibatchCKA, RankError, gather, group_size, tell_failure

__all__ = ["NewSamples", "Ranks"]


LONGEST = 200
"""Characters of a value in a message; a longer one is cut."""


@dataclass(frozen=True)
class NewSamples:
    """The rows of a batch whose samples no rank has seen before in the pass."""

    rows: list[int]
    n_ids: int

    def of(self, grams: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the Grams of these samples; shared Grams remain shared."""
        n = next(iter(grams.values())).shape[0]
        self._require(n)
        if len(self.rows) == n:
            return grams
        cut: dict[int, Tensor] = {}
        for gram in grams.values():
            if id(gram) not in cut:
                index = torch.tensor(self.rows, dtype=torch.long, device=gram.device)
                cut[id(gram)] = gram[index][:, index]
        return {name: cut[id(gram)] for name, gram in grams.items()}

    def as_tokens(self, tokens: TokenSamples) -> NewSamples:
        """Return the tokens of these sequences."""
        self._require(tokens.n_in_batch)
        return NewSamples(tokens.of_sequences(self.rows), len(tokens.drawn()[0]))

    def _require(self, n: int) -> None:
        if n != self.n_ids:
            raise InputError(
                f"compare: sample_ids must give one id for each sample.\n"
                f"  got {self.n_ids} ids for a batch of {n}"
            )


class Ranks:
    """A group of ranks, or this process alone.

    Parameters
    ----------
    group : None, "world" or torch.distributed.ProcessGroup
        With None only this process counts, even if there are others.
    can_combine : bool
        Whether the measure can combine the batches of several ranks. If not, the pass over the data
        warns.

    Warns
    -----
    RepsimWarning
        There are other ranks, but no group is given.
    """

    def __init__(self, group: Any, *, can_combine: bool = True) -> None:
        if group is not None and group != "world" and not isinstance(group, dist.ProcessGroup):
            raise InputError(
                f"compare: group must be 'world' or a torch.distributed.ProcessGroup.\n"
                f"  got {group!r}"
            )
        self.alone = group is None
        self.duplicates = 0
        self._group = None if isinstance(group, str) else group
        self._size = 1 if self.alone else group_size("compare", self._group)
        self._rank = 0 if self.alone else dist.get_rank(self._group)
        self._sample_ids: SampleIds | None = None
        if self.alone and can_combine:
            warn_of_ranks("compare", "Pass group='world' on every rank to combine their batches.")

    def share(self, sample_ids: SampleIds | None, kernel: Kernel) -> None:
        """Check and set what all ranks use.

        Parameters
        ----------
        sample_ids : callable, optional
            As in :func:`repsim.compare`.
        kernel : Kernel
            With a group, a kernel whose bandwidth would differ between ranks raises.
        """
        check_sample_ids("compare", sample_ids)
        self._sample_ids = sample_ids
        if self._size > 1 and getattr(kernel, "sigma", 0.0) is None:
            raise InputError(
                f"compare: the ranks of a group need one bandwidth.\n"
                f"  kernel {kernel!r} would fix another on every rank's first batch\n"
                f"  Give it one: kernel=repsim.kernels.RBF(sigma=...)."
            )

    def __str__(self) -> str:
        return f"{self._rank} of {self._size}"

    def own_path(self, path: str | PathLike[str]) -> str:
        """Return the file for the state of this rank."""
        return fspath(path) if self.alone else f"{fspath(path)}.rank{self._rank}of{self._size}"

    def agree(self, described: Callable[[], Mapping[str, Any]]) -> None:
        """Raise on every rank if the ranks have other models or options than each other.

        Parameters
        ----------
        described : callable
            Returns models and options of this rank by name, as texts. It is not called for a
            process alone.
        """
        if self._size == 1:
            return
        everyone = gather("compare", dict(described()), self._group)
        names = dict.fromkeys(name for each in everyone for name in each)
        values = {name: [each.get(name, "not given") for each in everyone] for name in names}
        unlike = {name: each for name, each in values.items() if any(x != each[0] for x in each)}
        if unlike:
            lines = "".join(f"  {name}: {_by_rank(each)}\n" for name, each in unlike.items())
            raise RankError(
                f"compare: all ranks of a group must have the same models and options.\n{lines}"
                f"  Load the same weights on every rank, and pass the same options."
            )

    @contextmanager
    def raise_on_all_ranks(self) -> Iterator[None]:
        """Raise an error of this rank on the other ranks too, which would otherwise wait for it."""
        try:
            yield
        except BaseException as error:
            if not self.alone:
                tell_failure("compare", error, self._group)
            raise

    def each_pass(
        self, data: Iterable[Any] | None, passes: int, *, progress: bool
    ) -> Iterator[Iterator[tuple[Batch, NewSamples | None]]]:
        """Yield, for every pass, the batches with the samples that count; None means all."""
        may_be_empty = not self.alone
        with closing(
            each_pass("compare", data, passes=passes, progress=progress, may_be_empty=may_be_empty)
        ) as all_passes:
            for batches in all_passes:
                if self._sample_ids is None:
                    yield ((batch, None) for batch in batches)
                else:
                    yield self._with_new_samples(batches, self._sample_ids)

    def all_reduce(self, accumulators: list[MinibatchCKA]) -> list[MinibatchCKA]:
        """Return the merged accumulators of all ranks, pass by pass."""
        if self.alone:
            return accumulators
        counts = gather("compare", len(accumulators), self._group)
        if len(set(counts)) > 1:
            raise StateError(f"compare: passes must be the same on all ranks.\n  got {counts}")
        return [each.all_reduce(self._group) for each in accumulators]

    def report(self) -> dict[str, int]:
        """Return the attributes of a result about ranks and repeated samples."""
        ranks = {} if self.alone else {"n_ranks": self._size}
        return ranks if self._sample_ids is None else {**ranks, "n_duplicates": self.duplicates}

    def _with_new_samples(
        self, batches: Iterator[Batch], sample_ids: SampleIds
    ) -> Iterator[tuple[Batch, NewSamples]]:
        # All ranks take this step together until all are done, so every rank knows the same ids. If
        # several ranks have a sample in one step, the lowest rank counts it.
        seen: set[Any] = set()
        while True:
            batch = next(batches, None)
            ids = None if batch is None else ids_of("compare", sample_ids, batch.value)
            everyone = [ids] if self.alone else gather("compare", ids, self._group)
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
                if rank == self._rank:
                    mine = rows
            if batch is not None and ids is not None:
                yield batch, NewSamples(mine, len(ids))


def _by_rank(values: list[Any]) -> str:
    """Return which ranks have which value: "'rbf' on rank 0, 'linear' on ranks 1 and 2"."""
    ranks: dict[str, list[str]] = {}
    for rank, value in enumerate(values):
        text = str(value)
        text = text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
        ranks.setdefault(text, []).append(str(rank))
    return "; ".join(
        f"{value} on rank{'s' if len(on) > 1 else ''} {', '.join(on)}"
        for value, on in ranks.items()
    )
