"""Which samples are held out together: contiguous folds of samples, or of groups of samples."""

from __future__ import annotations

from typing import Any

import numpy as np

from repsim._errors import InputError
from repsim.arrays import resolve_groups
from repsim.measures.parts._ridge_folds import Mask

__all__ = ["contiguous"]


def contiguous(operation: str, n: int, folds: int, groups: Any = None) -> tuple[Mask, ...]:
    """Return the held-out samples of each fold; sizes differ by at most one sample or group."""
    resolved = resolve_groups(operation, groups, n)
    rows = tuple(np.arange(n)[:, None]) if resolved is None else resolved.rows
    if len(rows) < folds:
        raise InputError(
            f"{operation}: {folds} folds need at least {folds} groups.\n"
            f"  got {len(rows)} groups\n"
            f"  A group is never in two folds. Pass fewer folds, or finer groups."
        )
    masks = []
    for part in np.array_split(np.arange(len(rows)), folds):
        mask = np.zeros(n, dtype=bool)
        mask[np.concatenate([rows[at] for at in part])] = True
        masks.append(mask)
    return tuple(masks)
