"""One attention call of a forward: its weights by chunks of queries, and its output."""

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

__all__ = ["AttentionCall", "Over", "Rows", "eager_rows", "fused_rows", "log_of", "shared_heads"]


@dataclass(frozen=True)
class Rows:
    """How to get the weights of some queries.

    Attributes
    ----------
    weights : callable
        A slice of queries → their weights (*lead, queries, keys), at least float32.
    logs : callable, optional
        A slice of queries → a new tensor, the logarithms of the weights, where they cost no more.
    """

    weights: Callable[[slice], Tensor]
    logs: Callable[[slice], Tensor] | None = None

    def then(self, change: Callable[[Tensor], Tensor]) -> Rows:
        """Return the same rows in another arrangement."""
        weights, logs = self.weights, self.logs
        return Rows(
            lambda part: change(weights(part)),
            None if logs is None else lambda part: change(logs(part)),
        )


Over: TypeAlias = Literal["tokens", "channels", "unknown"]
"""Meaning of queries and keys."""


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """One call of softmax attention, which :class:`AttentionRecorder` passes to its handler.

    Use it only inside the handler. Its tensors belong to the running forward, which overwrites them
    later. Do not modify them, and clone tensors that you keep.

    Attributes
    ----------
    name : str
        The module whose forward holds the attention.
    call : int
        Number of earlier attention calls of this module in this forward.
    batch, heads, queries, keys : int
        The sizes of the weights. If attention is in windows, or if the model folds another axis
        into the batch, `batch` is the product, with samples first.
    output : torch.Tensor, shape (batch, heads, queries, d)
        Output of the heads, P·V, before the output projection; in the model's dtype.
    value : torch.Tensor or None, shape (batch, heads, keys, d)
        The values V, repeated if heads share them. None if an einsum has several axes in place of
        `d`.
    over : {"tokens", "channels", "unknown"}
        Whether queries and keys are tokens of the module's input, or channels as in XCiT and DaViT,
        or unknown from the shapes (queries from elsewhere, windows).
    frames : tuple of Frame
        The running modules, outermost first.
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
        """The values."""
        return self._value()

    @property
    def label(self) -> str:
        """The name of the module, with ``:k`` if it is known to hold several calls."""
        return f"{self.name}:{self.call}" if self.call or self._repeated else self.name

    def weights(self, chunk: int = 16) -> Iterator[tuple[slice, Tensor]]:
        """Yield the attention weights, one chunk of queries at a time.

        ::

            P = softmax(scale · q kᵀ + mask)

        Eager attention has computed them already; for fused attention this method computes them.

        Parameters
        ----------
        chunk : int, default 16
            Queries at a time. On a CPU 16 are fast because they stay in the cache.

        Yields
        ------
        slice, torch.Tensor
            Which queries, and their weights (batch, heads, chunk, keys): float32, or float64 if
            those of the model are. Rows sum to 1 over the keys, or to 0 if all keys are masked, or
            to less than 1 if learned sinks, which have no values, get the rest. The weights may be
            memory of the model: do not modify them.
        """
        for part in self._parts("weights", chunk):
            yield part, self._rows.weights(part)

    def weights_and_logs(self, chunk: int = 16) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield the attention weights and their logarithms, one chunk of queries at a time.

        Parameters
        ----------
        chunk : int, default 16
            Queries at a time, as in :meth:`weights`.

        Yields
        ------
        slice, torch.Tensor, torch.Tensor
            Which queries, their weights P as in :meth:`weights`, and log P in the same shape.
            Where P is 0, it is the logarithm of the least positive number, so P·log P is 0 there.
        """
        for part in self._parts("weights_and_logs", chunk):
            if self._rows.logs is None:
                weights = self._rows.weights(part)
                yield part, weights, log_of(weights)
            else:
                logs = self._rows.logs(part)
                weights = logs.exp()
                yield part, weights, logs.clamp_min_(math.log(torch.finfo(logs.dtype).tiny))

    def _parts(self, operation: str, chunk: int) -> Iterator[slice]:
        if not isinstance(chunk, int) or chunk < 1:
            raise InputError(
                f"AttentionCall.{operation}: chunk must be at least 1.\n  got {chunk!r}"
            )
        for start in range(0, self.queries, chunk):
            yield slice(start, min(start + chunk, self.queries))


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
    return Rows(lambda part: weights[..., part, :].to(dtype))


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
        scores = torch.bmm(some.reshape(-1, some.shape[-2], width), keys[0])
        return scores.view(*lead, some.shape[-2], n_keys)

    if mask is None and modified is None and not is_causal:
        return Rows(
            lambda part: scores_of(part).softmax(-1), lambda part: scores_of(part).log_softmax(-1)
        )

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

    return Rows(rows)


def shared_heads(key: Tensor, lead: Sequence[int]) -> Tensor:
    """Repeat the keys or values that heads share, (…, few, K, d) → (…, many, K, d)."""
    if key.shape[:-2] == tuple(lead):
        return key
    few = key.shape[-3] if key.ndim > 2 else 1
    if 1 < few < lead[-1]:  # grouped queries: adjacent heads share
        key = key.repeat_interleave(lead[-1] // few, dim=-3)
    return key.expand(*lead, *key.shape[-2:])


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
