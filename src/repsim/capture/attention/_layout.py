"""Which axis of attention weights is the heads, and whether tokens or channels attend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from repsim.capture.attention._call import Over
from repsim.capture.attention._frames import Frame
from repsim.capture.attention._rows import Rows, Scratch

__all__ = ["HeadAxis", "attends_over", "find_heads"]

# Names for the number of heads: in torch, timm and torchvision; in Hugging Face; in others.
_HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "heads")


@dataclass(frozen=True)
class HeadAxis:
    """How the leading axes of (*lead, queries, keys) map to (batch, heads).

    Attributes
    ----------
    lead : tuple of int
        The leading axes; if batch and heads share one axis, it is listed as two.
    axis : int
        Which of them are the heads.
    shared : bool
        Whether batch and heads share one axis.
    """

    lead: tuple[int, ...]
    axis: int
    shared: bool = False

    @property
    def heads(self) -> int:
        """The number of heads."""
        return self.lead[self.axis]

    @property
    def batch(self) -> int:
        """The product of the other leading axes."""
        return math.prod(self.lead) // self.heads if self.heads else 0

    def arrange(self, tensor: Tensor) -> Tensor:
        """(*lead, a, b) → (batch, heads, a, b), without a copy if the heads come last."""
        if self.axis == 1 and tensor.shape[:-2] == self.lead and len(self.lead) == 2:
            return tensor  # as a rule
        tensor = tensor.reshape(*self.lead, *tensor.shape[-2:])
        return tensor.movedim(self.axis, -3).reshape(self.batch, self.heads, *tensor.shape[-2:])

    def arranged(self, rows: Rows) -> Rows:
        """The same rows, (batch, heads, chunk, keys)."""
        powers, cut = rows.powers, rows.cut

        def arranged_powers(part: slice, scratch: Scratch) -> tuple[Tensor, Tensor]:
            assert powers is not None, "only where there are powers"
            found, logs = powers(part, scratch)
            return self.arrange(found), self.arrange(logs)

        together = self.batch // self.lead[0] if self.axis and self.lead[0] else 0

        def of_samples(some: slice) -> Rows:
            assert cut is not None, "only where the first axis can be cut"
            few = slice(some.start // together, some.stop // together)
            part = HeadAxis((few.stop - few.start, *self.lead[1:]), self.axis, self.shared)
            heads = self.heads if self.shared else 1
            return part.arranged(cut(slice(few.start * heads, few.stop * heads)))

        return Rows(
            lambda part: self.arrange(rows.weights(part)),
            None if powers is None else arranged_powers,
            None if cut is None or not together else of_samples,
            together or 1,
        )


def find_heads(
    lead: Sequence[int], module: nn.Module, batch: int | None, heads: int | None = None
) -> HeadAxis | None:
    """Find the heads among the leading axes of the weights; None if they cannot be found.

    Parameters
    ----------
    lead : sequence of int
        The axes before (queries, keys).
    module : torch.nn.Module
        The module of the attention; attributes such as ``num_heads`` are a hint.
    batch : int or None
        The model's batch size.
    heads : int, optional
        The number of heads, if known.
    """
    sizes = tuple(int(size) for size in lead)
    hint = heads if heads is not None else _declared_heads(module)
    if not sizes:
        return HeadAxis((1, 1), 1)
    if len(sizes) == 1:
        if hint and sizes[0] % hint == 0:
            return HeadAxis((sizes[0] // hint, hint), 1, shared=True)
        return HeadAxis((sizes[0], 1), 1, shared=True) if sizes[0] == batch else None
    if len(sizes) == 2:
        # (batch, heads), unless all evidence contradicts it.
        swapped = hint is not None and sizes[0] == hint != sizes[1] and sizes[1] == batch
        return HeadAxis(sizes, 0 if swapped else 1)
    places = [axis for axis, size in enumerate(sizes) if axis and size == hint]
    return HeadAxis(sizes, places[0] if len(places) == 1 else len(sizes) - 1)


def attends_over(
    frame: Frame, axes: HeadAxis, queries: int, keys: int, value: Tensor | None
) -> Over:
    """Distinguish tokens from channels, by the module's input and the layout of the values.

    For attention over channels, `heads · keys` is the number of channels and a value vector has one
    entry per token. For attention over tokens it is the reverse. If a head has as many channels as
    there are tokens, both hold, and the memory layout decides: a linear layer stores channels
    contiguously.
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
    """Possible axes of a module's input: samples, tokens, channels; whether channels are last.

    (n, tokens, channels), (tokens, n, channels), (n, h, w, channels) or (n, channels, h, w).
    """
    if len(shape) == 3:
        a, b, c = shape
        return [(a, b, c, True), (b, a, c, True)]
    n, a, b, c = shape
    return [(n, a * b, c, True), (n, b * c, a, False)]


def _by_memory(value: Tensor, channel_last: bool) -> Over:
    """Distinguish values (…, tokens, channels) from (…, channels, tokens) by their strides."""
    if value.is_contiguous():
        return "unknown"  # a copy: its layout does not show its origin
    keys_step, width_step = value.stride()[-2:]
    if (width_step == 1) == (keys_step == 1):
        return "unknown"
    return "tokens" if (width_step == 1) == channel_last else "channels"
