"""Rows of attention weights, and of their powers of 2, for the queries that are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "Rows",
    "Scratch",
    "eager_rows",
    "fused_rows",
    "log_of",
    "powers_in",
    "shared_heads",
]

LOG2_E = math.log2(math.e)


class Scratch:
    """Memory that one part of the weights after the other uses.

    New memory for every part would cost more time than the arithmetic, because the system clears
    its pages.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def take(
        self, use: str, shape: Sequence[int], dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """Return a contiguous tensor for one use, with any values."""
        size = math.prod(shape)
        kept = self._kept.get(use)
        if kept is None or kept.numel() < size or (kept.dtype, kept.device) != (dtype, device):
            kept = self._kept[use] = torch.empty(size, dtype=dtype, device=device)
        return kept[:size].view(*shape)

    def clear(self) -> None:
        """Return the memory."""
        self._kept.clear()


@dataclass(frozen=True)
class Rows:
    """How to get the weights of some queries.

    Attributes
    ----------
    weights : callable
        A slice of queries → their weights (*lead, queries, keys), at least float32.
    powers : callable, optional
        A slice of queries and scratch memory → their weights before these are divided by the sums
        of their rows, as powers of 2, and the exponents, both in the scratch memory. They cost less
        than the weights.
    cut : callable, optional
        A slice of the first axis → its rows. None if that axis cannot be cut.
    together : int
        How many samples one entry of the first axis holds; `cut` takes multiples of them.
    """

    weights: Callable[[slice], Tensor]
    powers: Callable[[slice, Scratch], tuple[Tensor, Tensor]] | None = None
    cut: Callable[[slice], Rows] | None = None
    together: int = 1


def powers_in(rows: Rows, part: slice, scratch: Scratch) -> tuple[Tensor, Tensor]:
    """Return the powers of some queries, and their exponents in scratch memory."""
    if rows.powers is not None:
        return rows.powers(part, scratch)
    weights = rows.weights(part)
    logs = scratch.take("logs", weights.shape, weights.dtype, weights.device)
    torch.clamp_min(weights, torch.finfo(weights.dtype).tiny, out=logs)
    return weights, logs.log2_()


def log_of(weights: Tensor) -> Tensor:
    """Return the logarithm of weights, of the least positive number for zeros.

    >>> log_of(torch.tensor([1.0, 0.0])).isfinite().tolist()
    [True, True]

    Parameters
    ----------
    weights : torch.Tensor
        Weights of attention, any shape, at least 0.

    Returns
    -------
    torch.Tensor
        A new tensor of the same shape and dtype.
    """
    return weights.clamp_min(torch.finfo(weights.dtype).tiny).log_()


def eager_rows(weights: Tensor) -> Rows:
    """Take rows from existing weights (*lead, queries, keys)."""
    dtype = _at_least_float32(weights.dtype)
    return Rows(
        lambda part: weights[..., part, :].to(dtype),
        cut=(lambda some: eager_rows(weights[some])) if weights.ndim > 2 else None,
    )


def fused_rows(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    *,
    is_causal: bool,
    scale: float | None,
    modified: Callable[[Tensor, slice], Tensor] | None = None,
) -> Rows:
    """Compute rows of ``scaled_dot_product_attention``, which does not keep its weights.

    Parameters
    ----------
    query, key : torch.Tensor
        (*lead, queries, d) and (*lead or fewer heads, keys, d).
    mask : torch.Tensor, optional
        Broadcast to (*lead, queries, keys). A boolean mask is True where a key takes part; any
        other mask is added.
    is_causal : bool
        Whether query i attends to keys up to i, counted from the first key.
    scale : float, optional
        By default 1/√d.
    modified : callable, optional
        A function of the scores of a slice of queries that changes and masks them.
    """
    *lead, _, width = query.shape
    n_keys = key.shape[-2]
    dtype = _at_least_float32(query.dtype)
    factor = 1 / math.sqrt(width) if scale is None else scale
    key = shared_heads(key, lead)
    # Copy the keys once, in the first chunk; matmul would copy a transposed view in every chunk.
    keys: list[Tensor] = []

    def scores_of(part: slice) -> Tensor:
        if not keys:
            keys.append(key.to(dtype).reshape(-1, n_keys, width).transpose(1, 2))
        some = query[..., part, :].to(dtype).mul(factor)
        n = some.shape[-2]
        return torch.bmm(some.reshape(-1, n, width), keys[0]).view(*lead, n, n_keys)

    def exponents_in(part: slice, scratch: Scratch) -> Tensor:
        """The scores in base 2: exp(score) is 2 to their power."""
        some = query[..., part, :]
        n = some.shape[-2]
        asked = scratch.take("query", some.shape, dtype, query.device)
        _scale_into(asked, some, factor * LOG2_E)
        if n == query.shape[-2]:  # asked for once, so the copy need not last
            kept = scratch.take("keys", key.shape, dtype, query.device).copy_(key)
            across = kept.view(-1, n_keys, width).transpose(1, 2)
        else:
            if not keys:
                keys.append(key.to(dtype).reshape(-1, n_keys, width).transpose(1, 2))
            across = keys[0]
        logs = scratch.take("logs", (len(across), n, n_keys), dtype, query.device)
        torch.bmm(asked.view(-1, n, width), across, out=logs)
        return logs.view(*lead, n, n_keys)

    def of_samples(some: slice) -> Rows:
        here = mask
        if mask is not None and mask.ndim == query.ndim and len(mask) > 1:
            here = mask[some]
        return fused_rows(query[some], key[some], here, is_causal=is_causal, scale=scale)

    # A function of scores gets the number of each sample, and counts from the first.
    whole = not lead or modified is not None or (mask is not None and mask.ndim > query.ndim)
    cut = None if whole else of_samples

    if mask is None and modified is None and not is_causal:

        def powers(part: slice, scratch: Scratch) -> tuple[Tensor, Tensor]:
            logs = exponents_in(part, scratch)
            # The largest power of a row is 1. On a CPU powers of 2 take a fourth of the time of
            # torch.exp, and rows are divided by their sums after other sums are taken.
            logs.sub_(logs.amax(-1, keepdim=True))
            found = scratch.take("powers", logs.shape, dtype, logs.device)
            return torch.exp2(logs, out=found), logs

        return Rows(lambda part: scores_of(part).softmax(-1), powers, cut)

    def rows(part: slice) -> Tensor:
        scores = scores_of(part)
        if modified is not None:
            scores = modified(scores, part)
        if is_causal:
            at = torch.arange(part.start, part.stop, device=scores.device)
            later = torch.arange(n_keys, device=scores.device) > at[:, None]
            scores = scores.masked_fill(later, -torch.inf)
        if mask is not None:
            here = mask if mask.shape[-2] == 1 else mask[..., part, :]
            if here.dtype == torch.bool:
                scores = scores.masked_fill(~here, -torch.inf)
            else:
                scores = scores + here.to(dtype)
        # A query without keys is 0/0; the kernels return 0 for it.
        nothing = (scores == -torch.inf).all(-1, keepdim=True)
        return scores.softmax(-1).masked_fill(nothing, 0.0)

    return Rows(rows, cut=cut)


def shared_heads(key: Tensor, lead: Sequence[int]) -> Tensor:
    """Repeat the keys or values that heads share, (…, few, K, d) → (…, many, K, d)."""
    if key.shape[:-2] == tuple(lead):
        return key
    few = key.shape[-3] if key.ndim > 2 else 1
    if 1 < few < lead[-1]:  # grouped queries: adjacent heads share
        key = key.repeat_interleave(lead[-1] // few, dim=-3)
    return key.expand(*lead, *key.shape[-2:])


def _scale_into(target: Tensor, source: Tensor, factor: float) -> None:
    """Write factor · source in the precision of the target."""
    if source.dtype == target.dtype:
        torch.mul(source, factor, out=target)
    else:
        target.copy_(source).mul_(factor)


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
