"""One store from the ranks of a group: each writes a part of its own."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist

from repsim._errors import InputError
from repsim.analysis.run.ranks import Ranks
from repsim.storage import Place, begin_parts, check_parts, end_parts, part_name

__all__ = ["end_together", "own_part", "writers"]

OPERATION = "extract"


def writers(group: Any) -> Ranks:
    """Return the ranks that write one store.

    Raises
    ------
    InputError
        It is no group; or there is none although torch.distributed has several ranks.
    """
    ranks = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    if group is None and ranks > 1:
        # Not a warning: a share of the data would be a store that looks complete.
        raise InputError(
            f"{OPERATION}: several ranks need group=, which says whose data make the store.\n"
            f"  torch.distributed has {ranks} ranks\n"
            f"  Pass group='world' on every rank: each writes its share of one store. Or pass "
            f"group='alone' on a rank\n  that stores all that it gets at a place of its own."
        )
    return Ranks(OPERATION, group)


def own_part(ranks: Ranks, place: Place, *, named: bool) -> Place:
    """Return the place that this rank writes to.

    Parameters
    ----------
    ranks : Ranks
        All that write.
    place : Place
        The store.
    named : bool
        Whether samples have ids.

    Raises
    ------
    StateError
        There is something else at the place, or a store of another number of ranks; or this rank
        does not see what the first one made.
    CheckpointError
        The place cannot be written.
    """
    if ranks.alone:
        return place
    if ranks.rank == 0:
        begin_parts(OPERATION, place, ranks.size, named=named)
    ranks.gather(None)
    check_parts(OPERATION, place, ranks.size)
    return place.part(part_name(ranks.rank, ranks.size))


def end_together(ranks: Ranks, place: Place, n_rows: int) -> None:
    """Wait until all ranks have written their rows, and make the store complete.

    Raises
    ------
    InputError
        No rank had a batch.
    """
    if ranks.alone:
        return
    rows = ranks.gather_at_end(n_rows)
    if not any(rows):
        raise InputError(
            f"{OPERATION}: data gave no batch on any rank.\n"
            f"  Is the folder empty, or drop_last=True with fewer samples than a batch?"
        )
    if ranks.rank == 0:
        end_parts(OPERATION, place, rows)
    ranks.gather(None)
