"""Exchange between the processes of torch.distributed that raises instead of hanging."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any

from repsim._errors import InputError, StateError, warn
from repsim._options import as_path, got
from repsim._shown import shortened

__all__ = ["RankError", "RankGroup", "gather", "gather_made", "group_size", "tell_failure"]

LONGEST = 200
"""Characters of a value in a message; a longer one is cut."""


class RankError(StateError):
    """An error of another rank, which all ranks know already."""


def group_size(operation: str, group: Any) -> int:
    """Return the number of ranks in a process group; None and "world" are all ranks."""
    return _members(operation, group)[1]


def _members(operation: str, group: Any) -> tuple[Any, int]:
    """Return the group as torch takes it, and its size, or raise if this rank has no such group."""
    # Imported on call, because accumulators work without torch.
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized():
        raise StateError(
            f"{operation}: there is no process group.\n"
            f"  torch.distributed is not initialised in this process\n"
            f"  Start with torchrun and call torch.distributed.init_process_group() first."
        )
    if group is None or isinstance(group, str):
        if group not in (None, "world"):
            raise InputError(
                f"{operation}: group must be 'world' or a torch.distributed.ProcessGroup.\n"
                f"  got {group!r}\n  Without it, all ranks are the group."
            )
        return None, dist.get_world_size()
    if not isinstance(group, dist.ProcessGroup):
        if group is dist.GroupMember.NON_GROUP_MEMBER:  # new_group returns it on the others
            raise StateError(
                f"{operation}: this rank does not belong to the group.\n"
                f"  rank {dist.get_rank()} of {dist.get_world_size()} called it\n"
                f"  Call it on the ranks that were given to torch.distributed.new_group."
            )
        raise InputError(
            f"{operation}: group must be 'world' or a torch.distributed.ProcessGroup.\n"
            f"  got {got(group)}\n  Without it, all ranks are the group."
        )
    return group, dist.get_world_size(group)


def gather(operation: str, value: Any, group: Any) -> list[Any]:
    """Return every rank's value, in the order of ranks, on every rank.

    Raises
    ------
    StateError
        Another rank died, failed, or did not answer within the time limit of the group.
    """
    return _gather(operation, ("value", value), group)


def gather_made(operation: str, make: Callable[[], Any], group: Any) -> list[Any]:
    """Return what every rank makes; an error in one is raised on all of them."""
    try:
        value = make()
    except BaseException as error:
        tell_failure(operation, error, group)
        raise
    return gather(operation, value, group)


def tell_failure(operation: str, error: BaseException, group: Any) -> None:
    """Make the next :func:`gather` of the other ranks raise instead of waiting for this rank."""
    if isinstance(error, RankError):
        return
    try:
        _gather(operation, ("failure", f"{type(error).__name__}: {error}"), group)
    except StateError:
        return  # others failed or are gone too; the error being raised here is the relevant one


def _gather(operation: str, message: tuple[str, Any], group: Any) -> list[Any]:
    import torch.distributed as dist

    group, size = _members(operation, group)
    messages: list[Any] = [None] * size
    try:
        dist.all_gather_object(messages, message, group=group)
    except RuntimeError as error:  # such as torch's DistError
        raise RankError(
            f"{operation}: rank {dist.get_rank(group)} of {size} could not exchange with the "
            f"others.\n  {str(error).splitlines()[0] if str(error) else type(error).__name__}\n"
            f"  A rank has died, or did not come here within the time limit of the process group "
            f"(timeout= of init_process_group). Look at its own log."
        ) from error
    failed = [
        f"  rank {rank}: {what}" for rank, (kind, what) in enumerate(messages) if kind != "value"
    ]
    if failed:
        raise RankError(
            f"{operation}: {len(failed)} of {size} ranks failed.\n" + "\n".join(failed[:4])
        )
    return [what for _, what in messages]


def _warn_of_other_sizes(operation: str, path: str, size: int) -> None:
    """Warn if a state lies at a path that another number of ranks has saved."""
    parts = glob.glob(f"{glob.escape(path)}.rank0of*")
    sizes = [int(end) for part in parts if (end := part.rpartition("of")[2]).isdecimal()]
    if os.path.exists(path):
        sizes.append(1)
    if sizes:
        warn(
            f"{operation}: this call begins anew, because the state at {path!r} is of another "
            f"number of ranks.\n  state: {', '.join(map(str, sorted(sizes)))}    this call: {size}"
            f"\n  Start as many ranks to go on from that state, or delete its files."
        )


class RankGroup:
    """The ranks that share the work of one call, or this process alone.

    Parameters
    ----------
    operation : str
        The caller's name, for errors.
    group : None, "world" or torch.distributed.ProcessGroup
        With None this process works alone, even if there are other ranks.
    """

    inputs = "inputs"
    """What the ranks have in common, for errors."""

    def __init__(self, operation: str, group: Any) -> None:
        self.operation, self.alone = operation, group is None
        self.size, self.rank, self.group = 1, 0, None
        if not self.alone:
            self.group, self.size = _members(operation, group)
            import torch.distributed as dist

            self.rank = dist.get_rank(self.group)

    def __str__(self) -> str:
        return f"{self.rank} of {self.size}"

    def gather(self, value: Any) -> list[Any]:
        """Return every rank's value, in the order of ranks, on every rank."""
        return [value] if self.alone else gather(self.operation, value, self.group)

    @contextmanager
    def raise_on_all_ranks(self) -> Iterator[None]:
        """Raise an error of this rank on the other ranks too, which would otherwise wait for it."""
        try:
            yield
        except BaseException as error:
            if not self.alone:
                tell_failure(self.operation, error, self.group)
            raise

    def own_path(self, path: str | PathLike[str]) -> str:
        """Return the file for the state of this rank; warn of a state of more or fewer ranks."""
        whole = as_path(self.operation, "checkpoint", path)
        own = whole if self.alone else f"{whole}.rank{self.rank}of{self.size}"
        if self.rank == 0 and not os.path.exists(own):
            _warn_of_other_sizes(self.operation, whole, self.size)
        return own

    def agree(self, described: Callable[[], Mapping[str, object]]) -> None:
        """Raise on every rank if the ranks have other inputs or options than each other.

        Parameters
        ----------
        described : callable
            Returns inputs and options of this rank by name. It is not called for a rank without
            others.
        """
        if self.size == 1:
            return
        everyone = self.gather({name: str(value) for name, value in described().items()})
        names = dict.fromkeys(name for each in everyone for name in each)
        values = {name: [each.get(name, "not given") for each in everyone] for name in names}
        unlike = {name: each for name, each in values.items() if any(x != each[0] for x in each)}
        if unlike:
            lines = "".join(f"  {name}: {_by_rank(each)}\n" for name, each in unlike.items())
            raise RankError(
                f"{self.operation}: all ranks of a group must have the same {self.inputs} and "
                f"options.\n{lines}{self.repair(unlike)}"
            )

    def repair(self, unlike: Collection[str]) -> str:
        """Return the lines of an error that say what to do about inputs that differ."""
        return "  Open the same arrays in the same order on every rank, and pass the same options."

    def own_tasks(self, costs: Sequence[float]) -> list[int]:
        """Return the numbers of the tasks of this rank, so that the costs of ranks are alike.

        >>> ranks = RankGroup("sums", None)
        >>> ranks.own_tasks([1.0, 1.0, 3.0, 1.0])
        [0, 1, 2, 3]
        >>> ranks.size = 2
        >>> ranks.own_tasks([1.0, 1.0, 3.0, 1.0])
        [2]
        """
        loads = [0.0] * self.size
        mine = []
        # The costliest first, each to the rank that has least to do.
        for task in sorted(range(len(costs)), key=lambda each: -costs[each]):
            rank = loads.index(min(loads))
            loads[rank] += costs[task]
            if rank == self.rank:
                mine.append(task)
        return sorted(mine)

    def stretch(self, costs: Sequence[float]) -> range:
        """Return the numbers of the tasks of this rank, which follow each other.

        >>> ranks = RankGroup("sums", None)
        >>> ranks.stretch([1.0, 1.0, 3.0, 1.0])
        range(0, 4)
        >>> ranks.size, ranks.rank = 2, 1
        >>> ranks.stretch([1.0, 1.0, 3.0, 1.0])
        range(2, 4)
        """
        total, before, owners = sum(costs), 0.0, []
        for cost in costs:
            owners.append(min(self.size - 1, int((before + cost / 2) / total * self.size)))
            before += cost
        start = sum(owner < self.rank for owner in owners)
        return range(start, start + owners.count(self.rank))


def _by_rank(values: Sequence[str]) -> str:
    """Return which ranks have which value: "'rbf' on rank 0, 'linear' on ranks 1 and 2"."""
    ranks: dict[str, list[str]] = {}
    for rank, value in enumerate(values):
        ranks.setdefault(shortened(value, LONGEST), []).append(str(rank))
    return "; ".join(
        f"{value} on rank{'s' if len(on) > 1 else ''} {', '.join(on)}"
        for value, on in ranks.items()
    )
