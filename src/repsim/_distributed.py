"""Exchange between the processes of torch.distributed that raises instead of hanging."""

from __future__ import annotations

from typing import Any

from repsim._errors import InputError, StateError
from repsim._options import got

__all__ = ["RankError", "gather", "group_size", "tell_failure"]


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
