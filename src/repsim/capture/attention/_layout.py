"""Which axes of attention weights are heads, and whether what attends are tokens or channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from repsim.capture.attention._call import Over, Rows
from repsim.capture.attention._frames import Frame

__all__ = ["HeadAxis", "attends_over", "find_heads"]

# What libraries call the number of heads: torch, timm and torchvision; Hugging Face; others.
_HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "heads")


@dataclass(frozen=True)
class HeadAxis:
    """How the leading axes of (*lead, queries, keys) are (batch, heads).

    Attributes
    ----------
    lead : tuple of int
        The leading axes; where batch and heads share one, it stands here as two.
    axis : int
        Which of them are the heads.
    """

    lead: tuple[int, ...]
    axis: int

    @property
    def heads(self) -> int:
        """The number of heads."""
        return self.lead[self.axis]

    @property
    def batch(self) -> int:
        """The product of the other leading axes."""
        return math.prod(self.lead) // self.heads if self.heads else 0

    def arrange(self, tensor: Tensor) -> Tensor:
        """(*lead, a, b) → (batch, heads, a, b), without a copy where the heads come last."""
        tensor = tensor.reshape(*self.lead, *tensor.shape[-2:])
        return tensor.movedim(self.axis, -3).reshape(self.batch, self.heads, *tensor.shape[-2:])

    def arranged(self, rows: Rows) -> Rows:
        """The same rows, (batch, heads, chunk, keys)."""
        return lambda part: self.arrange(rows(part))


def find_heads(
    lead: Sequence[int], module: nn.Module, batch: int | None, heads: int | None = None
) -> HeadAxis | None:
    """Find the heads among the leading axes of the weights; None where that cannot be told.

    Parameters
    ----------
    lead : sequence of int
        The axes before (queries, keys).
    module : torch.nn.Module
        Whose attention it is: its ``num_heads`` and the like are a hint.
    batch : int or None
        The model's batch size.
    heads : int, optional
        The number of heads, where it is known.
    """
    sizes = tuple(int(size) for size in lead)
    hint = heads if heads is not None else _declared_heads(module)
    if not sizes:
        return HeadAxis((1, 1), 1)
    if len(sizes) == 1:
        if hint and sizes[0] % hint == 0:
            return HeadAxis((sizes[0] // hint, hint), 1)
        return HeadAxis((sizes[0], 1), 1) if sizes[0] == batch else None
    if len(sizes) == 2:
        # (batch, heads) everywhere, unless all that is known says the contrary.
        swapped = hint is not None and sizes[0] == hint != sizes[1] and sizes[1] == batch
        return HeadAxis(sizes, 0 if swapped else 1)
    places = [axis for axis, size in enumerate(sizes) if axis and size == hint]
    return HeadAxis(sizes, places[0] if len(places) == 1 else len(sizes) - 1)


def attends_over(
    frame: Frame, axes: HeadAxis, queries: int, keys: int, value: Tensor | None
) -> Over:
    """Tell tokens from channels, by the shape of the module's input and the layout of the values.

    Over channels, `heads · keys` is the number of channels and a value vector has an entry for
    each token; over tokens it is the other way round. Where a head has as many channels as there
    are tokens, both hold, and memory decides: a linear layer puts channels next to one another.
    """
    shape = frame.shape
    if shape is None or len(shape) not in (3, 4):
        return "unknown"
    found: set[Over] = set()
    for samples, tokens, channels, channel_last in _readings(shape):
        if not samples or axes.batch % samples:
            continue
        as_tokens = queries == keys == tokens
        as_channels = (
            value is not None and value.shape[-1] == tokens and axes.heads * keys == channels
        )
        if as_tokens and as_channels:
            found.add(_by_memory(value, channel_last) if value is not None else "unknown")
        elif as_tokens:
            found.add("tokens")
        elif as_channels:
            found.add("channels")
    if "channels" in found:
        return "channels"
    return found.pop() if len(found) == 1 else "unknown"


def _declared_heads(module: nn.Module) -> int | None:
    for name in _HEADS:
        heads = getattr(module, name, None)
        if isinstance(heads, int) and heads > 0:
            return heads
    return None


def _readings(shape: tuple[int, ...]) -> list[tuple[int, int, int, bool]]:
    """What a module's input can be: samples, tokens, channels, and whether channels are last.

    (n, tokens, channels), (tokens, n, channels), (n, h, w, channels) or (n, channels, h, w).
    """
    if len(shape) == 3:
        a, b, c = shape
        return [(a, b, c, True), (b, a, c, True)]
    n, a, b, c = shape
    return [(n, a * b, c, True), (n, b * c, a, False)]


def _by_memory(value: Tensor, channel_last: bool) -> Over:
    """Tell values (…, tokens, channels) from (…, channels, tokens) by which of them is dense."""
    if value.is_contiguous():
        return "unknown"  # a copy: its layout says nothing of where it came from
    keys_step, width_step = value.stride()[-2:]
    if (width_step == 1) == (keys_step == 1):
        return "unknown"
    return "tokens" if (width_step == 1) == channel_last else "channels"
