"""Texts that look padded, in a batch without a mask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from repsim.capture._near import values_of

__all__ = ["padded_texts"]

IDS = "input_ids"


def padded_texts(batch: Any) -> tuple[int, int] | None:
    """Return the token that pads the texts of a batch, and how many it pads; None if none does.

    >>> padded_texts({"input_ids": torch.tensor([[5, 6, 7], [5, 0, 0], [8, 0, 0]])})
    (0, 2)

    Such a token stands at one end of at least two texts, twice or more, and nowhere else. At least
    one text reaches that end, or all but one token of it.
    """
    ids = batch.get(IDS) if isinstance(batch, Mapping) else batch
    if isinstance(ids, tuple | list) and ids:
        ids = ids[0]
    if not isinstance(ids, Tensor) or ids.ndim != 2 or min(ids.shape) < 3:
        return None
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        return None
    near = values_of(ids)
    for each in (near, near.flip(1)):
        last = each[:, -1]
        runs = (each == last[:, None]).flip(1).cumprod(1).sum(1)
        for token in sorted(set(last[runs > 1].tolist())):
            here = last == token
            padded = int((runs[here] > 1).sum())
            nowhere_else = int((each == token).sum()) == int(runs[here].sum())
            if padded > 1 and nowhere_else and int((runs * here).min()) < 2:
                return int(token), padded
    return None
