"""One attention call of a forward: its weights by chunks of queries, and what it put out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from repsim._errors import InputError
from repsim.capture.attention._frames import Frame
from repsim.capture.tokens._evidence import ModelInput
from repsim.capture.tokens._rules import Convolution, Move

__all__ = ["AttentionCall", "Over", "Rows", "eager_rows", "fused_rows", "shared_heads"]

Rows: TypeAlias = Callable[[slice], Tensor]
"""A slice of queries → their weights (*lead, queries, keys), at least float32."""

Over: TypeAlias = Literal["tokens", "channels", "unknown"]
"""What queries and keys are."""


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """One call of softmax attention, as :class:`AttentionRecorder` hands it to its handler.

    It is meant for use inside the handler: its tensors are those of the running forward, which goes
    on to overwrite them. Do not modify them; clone what is to be kept.

    Attributes
    ----------
    name : str
        The module whose forward holds the attention.
    call : int
        How many attention calls of this module came before it in this forward.
    batch, heads, queries, keys : int
        The sizes of the weights. Where attention is in windows, or the model folds another axis
        into the batch, `batch` is that product: samples in front.
    output : torch.Tensor, shape (batch, heads, queries, d)
        What the heads put out, P·V, before the output projection; in the model's dtype.
    value : torch.Tensor or None, shape (batch, heads, keys, d)
        What is weighted, V; repeated where heads share it. None where an einsum has several axes in
        place of `d`.
    over : {"tokens", "channels", "unknown"}
        Whether queries and keys are tokens of the module's input; or channels, as in XCiT and
        DaViT; or neither can be told from the shapes (queries from elsewhere, windows).
    frames : tuple of Frame
        The modules that are running, from the outermost in.
    convolutions : list of Convolution
        The convolutions before this call.
    moves : list of Move
        The paddings and cyclic shifts before this call, of tensors with four axes.
    input : ModelInput
        The sizes of what the model was called with.
    """

    name: str
    call: int
    batch: int
    heads: int
    queries: int
    keys: int
    output: Tensor
    over: Over
    frames: tuple[Frame, ...]
    convolutions: list[Convolution]
    moves: list[Move]
    input: ModelInput
    _rows: Rows = field(repr=False)
    _value: Callable[[], Tensor | None] = field(repr=False)
    _repeated: bool = False

    @property
    def module(self) -> nn.Module:
        """The module whose forward holds the attention."""
        return self.frames[-1].module

    @property
    def value(self) -> Tensor | None:
        """What is weighted."""
        return self._value()

    @property
    def label(self) -> str:
        """The module's name, with ``:k`` where it is known to hold several calls."""
        return f"{self.name}:{self.call}" if self.call or self._repeated else self.name

    def weights(self, chunk: int = 16) -> Iterator[tuple[slice, Tensor]]:
        """Yield the attention weights, a chunk of queries at a time.

        ::

            P = softmax(scale · q kᵀ + mask)

        Eager attention has them already; for fused attention they are computed here.

        Parameters
        ----------
        chunk : int, default 16
            Queries at a time. On a CPU 16 are fast, for they stay in the cache.

        Yields
        ------
        slice, torch.Tensor
            Which queries, and their weights (batch, heads, chunk, keys): float32, or float64 where
            the model's are. Rows sum to 1 over the keys, or to 0 where all keys are masked. What
            is yielded may be memory of the model: do not modify it.
        """
        if not isinstance(chunk, int) or chunk < 1:
            raise InputError(f"AttentionCall.weights: chunk must be at least 1.\n  got {chunk!r}")
        for start in range(0, self.queries, chunk):
            part = slice(start, min(start + chunk, self.queries))
            yield part, self._rows(part)


def eager_rows(weights: Tensor) -> Rows:
    """Take rows from weights (*lead, queries, keys) that exist."""
    dtype = _at_least_float32(weights.dtype)
    return lambda part: weights[..., part, :].to(dtype)


def fused_rows(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    *,
    is_causal: bool,
    scale: float | None,
) -> Rows:
    """Compute rows of ``scaled_dot_product_attention``, which keeps none.

    Parameters
    ----------
    query, key : torch.Tensor
        (*lead, queries, d) and (*lead or fewer heads, keys, d).
    mask : torch.Tensor, optional
        Broadcast to (*lead, queries, keys). Boolean: True takes part. Otherwise it is added.
    is_causal : bool
        Whether query i sees keys up to i, counted from the first key however many there are.
    scale : float, optional
        By default 1/√d.
    """
    *lead, _, width = query.shape
    n_keys = key.shape[-2]
    dtype = _at_least_float32(query.dtype)
    factor = 1 / math.sqrt(width) if scale is None else scale
    key = shared_heads(key, lead)
    # One copy of the keys, made in the first chunk: matmul would copy a transposed view in each.
    keys: list[Tensor] = []

    def rows(part: slice) -> Tensor:
        if not keys:
            keys.append(key.to(dtype).reshape(-1, n_keys, width).transpose(1, 2))
        some = query[..., part, :].to(dtype).mul(factor)
        scores = torch.bmm(some.reshape(-1, some.shape[-2], width), keys[0])
        scores = scores.view(*lead, some.shape[-2], n_keys)
        if mask is None and not is_causal:
            return scores.softmax(-1)
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
        # A query without any key is 0/0, for which the kernels put out 0.
        nothing = (scores == -torch.inf).all(-1, keepdim=True)
        return scores.softmax(-1).masked_fill(nothing, 0.0)

    return rows


def shared_heads(key: Tensor, lead: Sequence[int]) -> Tensor:
    """Repeat the keys or values that heads share, (…, few, K, d) → (…, many, K, d)."""
    if key.shape[:-2] == tuple(lead):
        return key
    few = key.shape[-3] if key.ndim > 2 else 1
    if 1 < few < lead[-1]:  # grouped queries: neighbours share
        key = key.repeat_interleave(lead[-1] // few, dim=-3)
    return key.expand(*lead, *key.shape[-2:])


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
