"""Sums over the stream of a model: how far each block, and each span of blocks, turns it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from repsim._errors import CaptureError, InputError, NonFiniteError
from repsim.analysis._precision import sum_dtype
from repsim.analysis.residual._found_blocks import Block
from repsim.analysis.residual._influence_totals import (
    InfluenceTotals,
    Place,
    left_out_for_masks,
)
from repsim.analysis.run._drive import Batch
from repsim.analysis.run._first_bad import FirstBad
from repsim.analysis.run._sequence_means import SequenceMeans
from repsim.capture import Masks, UnusableOutput, listing, watching_blocks

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["InfluenceSums"]


@dataclass(frozen=True)
class _Stream:
    """The tokens of a stream: directions, norms, which are real, and how many."""

    units: Tensor  # (B, N, C)
    norms: Tensor  # (B, N)
    real: Tensor | None  # (B, N)
    counts: Tensor  # (B,)

    def on(self, device: torch.device) -> _Stream:
        """Return the stream on a device."""
        real = None if self.real is None else self.real.to(device)
        units, norms, counts = (x.to(device) for x in (self.units, self.norms, self.counts))
        return _Stream(units, norms, real, counts)

    def sums(self, values: Tensor) -> Tensor:
        """Return the sums of values (..., B, N) over the real tokens of each sample."""
        if self.real is not None:
            # Not a product with the mask: padding may hold NaN.
            values = values.masked_fill(~self.real, 0.0)
        return values.to(sum_dtype(values.device)).sum(-1)


class InfluenceSums:
    """The sums of all blocks over the batches so far.

    Parameters
    ----------
    blocks : sequence of Block
        The blocks, in the order in which they run.
    spans : sequence of int
        The spans, in blocks, in increasing order.
    masks : Masks
        Which tokens are real.
    last : bool
        Whether to use only the last real token of each sample.
    """

    def __init__(
        self, blocks: Sequence[Block], spans: Sequence[int], masks: Masks, *, last: bool
    ) -> None:
        self._blocks = {block.source.key: block for block in blocks}
        self._spans, self._masks, self._last = list(spans), masks, last
        self._n_samples = 0
        self._batch: Batch | None = None
        self._first = 0
        self._rows = 0
        self._own = {key: SequenceMeans() for key in self._blocks}
        self._between: dict[Place, SequenceMeans] = {}
        self._inputs: dict[tuple[str, int], _Stream] = {}
        self._streams: dict[Place, _Stream] = {}
        self._finished: set[tuple[str, int]] = set()
        self._first_bad = FirstBad(_not_finite)
        self._left_out: dict[int, str] = {}  # by chain

    def watching(self, model: nn.Module) -> AbstractContextManager[Callable[[], None]]:
        """Return a block in which the forwards of the model are added."""
        calls = [block.source for block in self._blocks.values()]
        return watching_blocks(model, calls, self._entered, self._left)

    def start(self, batch: Batch) -> None:
        """Start the next batch, in the form that the model gets."""
        self._first = batch.number if self._batch is None else self._first
        self._batch = batch
        self._masks.start(batch.value)
        self._inputs.clear()
        self._streams.clear()
        self._finished.clear()

    def finish(self) -> None:
        """Count a finished batch, and check it if that need not wait for an accelerator."""
        assert self._batch is not None, "start() comes first"
        waiting = [
            block.label
            for key, block in self._blocks.items()
            if key not in self._finished and block.chain not in self._left_out
        ]
        if waiting:
            raise self._other_blocks(waiting)
        self._n_samples += self._batch.n_samples(self._rows)
        self._inputs.clear()
        self._streams.clear()
        self._first_bad.check(wait=False)

    # -- what the hooks pass on ------------------------------------------------------------------

    def _entered(self, key: tuple[str, int], tensor: Tensor) -> None:
        block = self._blocks[key]
        if (stream := self._stream(block, tensor)) is not None:
            self._inputs[key] = stream
            self._arrive(block, block.place, stream)

    def _left(self, key: tuple[str, int], tensor: Tensor) -> None:
        block, before = self._blocks[key], self._inputs.pop(key, None)
        after = None if before is None else self._stream(block, tensor)
        if before is None or after is None:
            return
        after = after.on(before.units.device)
        # 1 − cos of unit vectors, without the cancellation of the difference.
        turned = (after.units - before.units).square().sum(-1) / 2
        grown = after.norms / _nonzero(before.norms)
        self._own[key].add(before.sums(torch.stack([turned, grown])), before.counts)
        self._finished.add(key)
        if block.is_last:
            self._arrive(block, block.place + 1, after)

    def _arrive(self, block: Block, place: int, now: _Stream) -> None:
        """Compare the stream at a place with those of the blocks before it."""
        chain, spans = block.chain, [span for span in self._spans if span <= place]
        if any((chain, place - span) not in self._streams for span in spans):
            raise self._other_blocks([block.label])
        if spans:
            before = (self._streams[chain, place - span].units for span in spans)
            # The blocks of a large model may be on several devices.
            there = (units.to(now.units.device) for units in before)
            sums = torch.stack([now.sums(_angle(units, now.units)) for units in there])
            self._between.setdefault((chain, place), SequenceMeans()).add(sums, now.counts)
        self._streams[chain, place] = now
        self._streams.pop((chain, place - self._spans[-1]), None)

    def _stream(self, block: Block, tensor: Tensor) -> _Stream | None:
        """Return the tokens of a stream; None if it is left out."""
        if block.chain in self._left_out:
            return None
        x = block.tokens(tensor)
        shape = tuple(x.shape[:2])
        try:
            real = self._masks.of(block.label, shape) if tensor.ndim > 2 else None
        except UnusableOutput as problem:
            self._left_out[block.chain] = f"{block.label} {problem.brief}"
            return None
        if real is not None and real.shape != shape:
            self._left_out[block.chain] = (
                f"{block.label} {tuple(tensor.shape)}, mask {tuple(real.shape)}"
            )
            return None
        self._rows = len(x)
        real = None if real is None else real.to(x.device)
        counts = x.new_full((len(x),), x.shape[1]) if real is None else real.sum(1)
        if self._last:
            at = counts.long() - 1 if real is None else real.cumsum(1).argmax(1)
            x, real = x[torch.arange(len(x), device=x.device), at][:, None], None
            counts = torch.ones_like(counts)
        norms = torch.linalg.vector_norm(x, dim=-1)
        finite = torch.isfinite(norms)
        finite = finite.all() if real is None else (finite | ~real).all()
        self._first_bad.add(block.label, finite, self._number)
        return _Stream(x / _nonzero(norms)[..., None], norms, real, counts)

    @property
    def _number(self) -> int:
        assert self._batch is not None, "start() comes first"
        return self._batch.number

    def _other_blocks(self, labels: Sequence[str]) -> InputError:
        return InputError(
            "block_influence: every batch must run the same blocks in the same order.\n"
            f"  batch {self._number}: {listing(labels)} did not run as in batch {self._first}\n"
            "  Leave out blocks that run for some inputs only: blocks=[...]."
        )

    # -- the result ------------------------------------------------------------------------------

    def totals(self) -> InfluenceTotals:
        """Return the sums of this process after checking them."""
        self._report()
        own = {key: means.on_host() for key, means in self._own.items()}
        between = {place: means.on_host() for place, means in self._between.items()}
        blocks = list(self._blocks.values())
        return InfluenceTotals(
            blocks, self._spans, own, between, dict(self._left_out), self._n_samples
        )

    def _report(self) -> None:
        self._masks.check_used()
        self._first_bad.check(wait=True)
        if {block.chain for block in self._blocks.values()} == set(self._left_out):
            raise CaptureError(left_out_for_masks(self._left_out))


def _angle(x: Tensor, y: Tensor) -> Tensor:
    """Return the angle between unit vectors over π, exact for small angles (Kahan)."""
    apart, together = (torch.linalg.vector_norm(z, dim=-1) for z in (x - y, x + y))
    return 2 / math.pi * torch.atan2(apart, together)


def _nonzero(norms: Tensor) -> Tensor:
    """NaN in place of 0, so a direction is NaN and not infinite."""
    return torch.where(norms > 0, norms, torch.nan)


def _not_finite(label: str, batch: int) -> NonFiniteError:
    return NonFiniteError(
        f"block_influence: NaN or infinity in the stream of block {label!r}, batch {batch}.\n"
        "  Does the input contain it? In half precision sums overflow: try float32."
    )
