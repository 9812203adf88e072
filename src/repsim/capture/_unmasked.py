"""Padding in a batch without a mask that is read: by other masks, or by the texts themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from repsim.capture._near import values_of

__all__ = ["padded_texts", "unread_mask"]

IDS = "input_ids"

UNREAD = (
    "padding_mask",
    "pixel_mask",
    "pixel_attention_mask",
    "encoder_attention_mask",
    "feature_attention_mask",
    "audio_attention_mask",
    "features_mask",
    "input_mask",
)
"""How the keys of further masks of padding end, in torch and in models of transformers."""


def unread_mask(batch: Any) -> str | None:
    """Return the key of a mask of padding by another name than the usual one; None if none is.

    >>> unread_mask({"x": torch.ones(2, 3), "src_key_padding_mask": torch.eye(2, 3) > 0})
    'src_key_padding_mask'

    If all its entries are alike, nothing is padding.
    """
    for key, mask in batch.items() if isinstance(batch, Mapping) else ():
        if not (isinstance(key, str) and key.endswith(UNREAD) and isinstance(mask, Tensor)):
            continue
        if mask.is_nested or mask.ndim < 2 or mask.is_complex():
            continue
        near = values_of(mask)
        if bool((near != near.flatten()[:1]).any()):
            return key
    return None


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
