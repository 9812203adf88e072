"""Rows of ``flex_attention``, whose scores functions of the model change and mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from repsim.capture.attention._rows import Rows, fused_rows

__all__ = ["flex_rows"]

Mod = Callable[..., Tensor]
"""A function of (score,) sample, head, query and key, all numbers, and of further tensors."""


def flex_rows(args: Sequence[Any]) -> Rows:
    """Compute rows of a call of the operator inside ``flex_attention``.

    Parameters
    ----------
    args : sequence
        Its arguments: query, key, value, the function of scores, the mask of blocks whose last item
        is the function of the mask, the scale, options, and the tensors that both functions use.
    """
    query, key, _, score_mod, block_mask, scale = args[:6]
    mask_mod = block_mask[-1]
    scored_with, masked_with = args[7:9]

    def modified(scores: Tensor, part: slice) -> Tensor:
        places = [torch.arange(size, device=scores.device) for size in scores.shape]
        places[2] = places[2] + part.start
        scores = _everywhere(score_mod, len(scored_with), scores)(scores, *places, *scored_with)
        kept = _everywhere(mask_mod, len(masked_with))(*places, *masked_with)
        return scores.masked_fill(~kept, -torch.inf)

    return fused_rows(query, key, None, is_causal=False, scale=scale, modified=modified)


def _everywhere(mod: Mod, n_more: int, score: Tensor | None = None) -> Mod:
    """Turn a function of one sample, head, query and key into one of all."""
    for axis in (3, 2, 1, 0):
        places = tuple(0 if each == axis else None for each in range(4))
        scores = () if score is None else (0,)
        mod = torch.vmap(mod, in_dims=(*scores, *places, *(None,) * n_more))
    return mod
