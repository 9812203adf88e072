"""Padding in a batch without a mask that is read: by other masks, or by the texts themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from repsim.capture._near import values_of
from repsim.capture._sequences import AUTO

__all__ = [
    "lengths_of_series",
    "padded_texts",
    "series_of",
    "text_of",
    "unread_mask",
    "unread_padding",
]

IDS = "input_ids"

MOST_ITEMS = 8
"""Items of a list in which masks are searched: more are samples, and not parts of a batch."""

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


def unread_padding(batch: Any) -> str | None:
    """Say where a batch without a mask that is read is padded; None if nothing shows it.

    Parameters
    ----------
    batch : object
        The batch of a model.
    """
    if (unread := unread_mask(batch)) is not None:
        place, mask = unread
        wanted = "function of the batch"
        if mask.ndim == 2:
            wanted = f"lambda batch: {f'~{place}.bool()' if 'padding_mask' in place else place}"
        return (
            f"{place} is not read, so padding counts.\n"
            f"  {tuple(mask.shape)}, and no batch[{AUTO!r}]\n"
            f"  Pass mask={wanted}, a tensor (samples, positions) that is true where a "
            f"position is real.\n  mask=None says that all positions are real."
        )
    if (found := padded_texts(batch)) is None:
        return None
    token, rows = found
    return (
        f"the texts look padded, and the batch has no {AUTO}, so padding counts.\n"
        f"  {rows} texts of a batch begin or end with copies of token {token}, which is nowhere "
        f"else\n  Put {AUTO} into the batch, as the tokeniser returns it. mask=None says that all "
        f"positions are real."
    )


def unread_mask(batch: Any) -> tuple[str, Tensor] | None:
    """Return a mask of padding that has another name or place than the usual one, and its place.

    >>> unread_mask([{"x": torch.ones(2, 3), "src_key_padding_mask": torch.eye(2, 3) > 0}])[0]
    "batch[0]['src_key_padding_mask']"

    It is None if there is none. If all entries of a mask are alike, nothing is padding.
    """
    for place, name, mask in _named_tensors(batch, "batch"):
        if not name.endswith(
            UNREAD if place == f"batch[{name!r}]" else (*UNREAD, "attention_mask")
        ):
            continue
        if mask.is_nested or mask.ndim < 2 or mask.is_complex():
            continue
        near = values_of(mask)
        if bool((near != near.flatten()[:1]).any()):
            return place, mask
    return None


def _named_tensors(value: Any, place: str) -> Iterator[tuple[str, str, Tensor]]:
    """Yield the tensors of mappings and dataclasses in a batch: place, name and tensor."""
    if isinstance(value, tuple | list):
        for number, item in enumerate(value[:MOST_ITEMS]):
            if not isinstance(item, Tensor):
                yield from _named_tensors(item, f"{place}[{number}]")
        return
    if isinstance(value, Mapping):
        named = [(f"{place}[{key!r}]", key, item) for key, item in value.items()]
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [each.name for each in dataclasses.fields(value)]
        named = [(f"{place}.{name}", name, getattr(value, name)) for name in names]
    else:
        return
    for inner, name, item in named:
        if isinstance(item, Tensor):
            yield inner, str(name), item
        else:
            yield from _named_tensors(item, inner)


def series_of(batch: Any) -> list[Tensor] | None:
    """Return the series of a batch, floating-point tensors of one axis; None if it has none.

    Parameters
    ----------
    batch : object
        A batch in the form that the model gets. Series are in a list that is the batch or a value
        of it.

    Returns
    -------
    list of torch.Tensor, or None
        The series.
    """
    for item in batch.values() if isinstance(batch, Mapping) else [batch]:
        if isinstance(item, list | tuple) and item:
            series = [x for x in item if isinstance(x, Tensor) and x.ndim == 1]
            if len(series) == len(item) and all(x.is_floating_point() for x in series):
                return series
    return None


def lengths_of_series(batch: Any, n: int) -> tuple[int, int] | None:
    """Return the least and the greatest length of a list of n series; None if they are equal.

    >>> lengths_of_series({"past_values": [torch.ones(9), torch.ones(7)]}, 2)
    (7, 9)
    """
    series = series_of(batch)
    lengths = set() if series is None or len(series) != n else {len(x) for x in series}
    return (min(lengths), max(lengths)) if len(lengths) > 1 else None


def text_of(batch: Any) -> Tensor | None:
    """Return the tokens (B, N) of the texts of a batch; None if it has no texts.

    Parameters
    ----------
    batch : object
        A mapping with ``input_ids``, the tokens themselves, or a tuple or list led by them.

    Returns
    -------
    torch.Tensor or None
        Of integers, on the device of the batch.
    """
    ids = batch.get(IDS) if isinstance(batch, Mapping) else batch
    if isinstance(ids, tuple | list) and ids:
        ids = ids[0]
    if not isinstance(ids, Tensor) or ids.is_nested or ids.ndim != 2:
        return None
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        return None
    return ids


def padded_texts(batch: Any) -> tuple[int, int] | None:
    """Return the token that pads the texts of a batch, and how many it pads; None if none does.

    >>> padded_texts({"input_ids": torch.tensor([[5, 6, 7], [5, 0, 0], [8, 0, 0]])})
    (0, 2)
    >>> padded_texts({"input_ids": torch.tensor([[5, 6, 7], [5, 0, 0], [8, 9, 0]])}) is None
    True

    Such a token stands at one end of at least two texts, twice or more, and nowhere else. Not all
    texts end with the same number of it, which may be a fixed end of every text.
    """
    ids = text_of(batch)
    if ids is None or min(ids.shape) < 3:
        return None
    near = values_of(ids)
    for each in (near, near.flip(1)):
        last = each[:, -1]
        runs = (each == last[:, None]).flip(1).cumprod(1).sum(1)
        for token in sorted(set(last[runs > 1].tolist())):
            here = last == token
            padded = int((runs[here] > 1).sum())
            nowhere_else = int((each == token).sum()) == int(runs[here].sum())
            fewest = int((runs * here).min())
            if padded > 1 and nowhere_else and (fewest < 2 or int(runs.max()) > fewest):
                return int(token), padded
    return None
