"""One attention call of a forward: its weights by chunks of queries, and its output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from torch import Tensor, nn

from repsim._options import as_count
from repsim.capture.attention._frames import Frame
from repsim.capture.attention._rows import Rows, Scratch, powers_in
from repsim.capture.tokens._evidence import ModelInput
from repsim.capture.tokens._rules import Convolution, Move

__all__ = ["AttentionCall", "Over"]


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
    _scratch: Scratch = field(default_factory=Scratch, repr=False)
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

    @property
    def unscaled(self) -> bool:
        """Whether :meth:`powers` gives rows that are not divided by their sums yet."""
        return self._rows.powers is not None

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

    def powers(self, entries: int = 1 << 20) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
        """Yield the attention weights as powers of 2, a part of the batch at a time.

        ::

            E = 2^L     P_ij = E_ij / Σ_j E_ij if unscaled, else E_ij

        They cost less than :meth:`weights`, because sums over the keys can be divided in place of
        the rows. Parts are whole samples, or some queries of one sample if that is larger. The
        tensors are memory that the next part overwrites, so clone those that you keep. You may
        overwrite L, but not E, which may be memory of the model.

        Parameters
        ----------
        entries : int, default 2**20
            About the most weights at a time; a part has at least 16 queries. On a CPU the default
            is fast because parts stay in the cache.

        Yields
        ------
        slice, slice, torch.Tensor, torch.Tensor
            Which samples of the batch, which queries, E and L, both (samples, heads, queries,
            keys). Where E is 0, L is a finite negative number, so E·L is 0 there.
        """
        entries = as_count("AttentionCall.powers", "entries", entries)
        samples, chunk = self._part(entries)
        for start in range(0, self.batch, samples):
            some, rows = slice(start, min(start + samples, self.batch)), self._rows
            if rows.cut is not None and samples < self.batch:
                rows = rows.cut(some)
            for part in self._parts("powers", chunk):
                yield some, part, *powers_in(rows, part, self._scratch)

    def _part(self, entries: int) -> tuple[int, int]:
        """Return the samples and the queries at a time."""
        together = self.batch if self._rows.cut is None else self._rows.together
        row = max(1, together * self.heads * self.keys)
        if row * self.queries <= entries:
            return max(1, together * (entries // max(1, row * self.queries))), self.queries or 1
        most = max(16, entries // row)
        return max(1, together), -(-self.queries // -(-self.queries // most))  # of equal size

    def _parts(self, operation: str, chunk: int) -> Iterator[slice]:
        chunk = as_count(f"AttentionCall.{operation}", "chunk", chunk)
        for start in range(0, self.queries, chunk):
            yield slice(start, min(start + chunk, self.queries))
