"""The blocks of a model in the order in which they run, with the axes of their stream."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from repsim._errors import CaptureError, warn
from repsim.analysis.residual._layout import StreamAxes
from repsim.analysis.residual._stream_samples import Shapes, sample_axes
from repsim.analysis.run._drive import Batch, Forward
from repsim.analysis.run._kept_state import kept_state
from repsim.capture import (
    BlockCall,
    BlockFinder,
    Layers,
    listing,
    residual_blocks,
    select_layers,
)

__all__ = ["FOUND", "Block", "found_blocks"]

FOUND = "blocks"
"""The value of ``blocks=`` that stands for the residual blocks, found by running the model."""


@dataclass(frozen=True)
class Block:
    """One call of a block.

    Attributes
    ----------
    source : BlockCall
        The call.
    label : str
        Its name, with ``:k`` if it runs several times in one forward.
    place : int
        Its place in its chain, from 0.
    is_last : bool
        Whether it ends its chain.
    batch, channels : int
        The axes of samples and of features of its stream.
    """

    source: BlockCall
    label: str
    place: int
    is_last: bool
    batch: int
    channels: int

    @property
    def chain(self) -> int:
        """The number of its chain."""
        return self.source.chain

    def tokens(self, stream: Tensor) -> Tensor:
        """Return a stream as (samples, tokens, features), in float32 at least."""
        x = stream.movedim((self.batch, self.channels), (0, -1))
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        return x.to(torch.promote_types(x.dtype, torch.float32))


def found_blocks(
    model: nn.Module, blocks: Layers, axes: StreamAxes, batch: Batch, forward: Forward | None
) -> list[Block]:
    """Run the model once and return its blocks.

    Parameters
    ----------
    model : torch.nn.Module
        The model.
    blocks : layers
        The option of the caller.
    axes : StreamAxes
        Finds the axes.
    batch : Batch
        The first batch, as prepared for the model.
    forward : callable, optional
        The option of the caller.

    Raises
    ------
    CaptureError
        There are none, or one that was requested by exact name changes the shape of its input.
    """
    exact: set[str] = set()
    if isinstance(blocks, str) and blocks == FOUND:
        with kept_state(model), BlockFinder(model) as finder:
            batch.own().run(model, forward=forward)
        names = residual_blocks(model, (site.block for site in finder.sites()))
        if not names:
            raise CaptureError(
                "block_influence: no module of the model holds a residual connection.\n"
                "  See repsim.residual_sites(model, example) for those that can be seen, or name "
                "the blocks: blocks='layers.*'."
            )
        finder.warn("block_influence", names)
        calls = finder.calls(lambda name, _: name in names)
    else:
        chosen = {layer.name: layer for layer in select_layers(model, blocks)}
        names = list(chosen)
        exact = {name for name, layer in chosen.items() if layer.required}
        with kept_state(model), BlockFinder(model, chosen) as finder:
            batch.own().run(model, forward=forward)
        calls = finder.calls(lambda name, call: chosen[name].wants(call))
        if idle := sorted(exact - {each.name for each in calls}):
            raise CaptureError(f"block_influence: these blocks did not run: {idle[:8]}.")
    if not calls:
        raise CaptureError(
            f"block_influence: none of these blocks ran and returned a tensor: {listing(names)}.\n"
            "  The model may call their forward(), which is not seen, or use their weights.\n"
            "  Name modules that it calls, for example blocks='layers.*'."
        )
    usable = _of_one_shape(calls, exact)
    times = Counter(each.name for each in usable)
    if not axes.is_declared:
        axes.learn(_sample_axes(model, batch, forward, times))
    found: list[Block] = []
    for i, call in enumerate(usable):
        follows = i > 0 and usable[i - 1].chain == call.chain
        label = call.name if times[call.name] == 1 else f"{call.name}:{call.call}"
        place = found[-1].place + 1 if follows else 0
        is_last = i + 1 == len(usable) or usable[i + 1].chain != call.chain
        at = axes.of(label, call.name, call.shape, call.channels, finder)
        found.append(Block(call, label, place, is_last, *at))
    return found


def _sample_axes(
    model: nn.Module, batch: Batch, forward: Forward | None, names: Iterable[str]
) -> dict[str, int]:
    """Return the axis of the samples in the stream of each block, by its name."""

    def shapes(run: Callable[[], object]) -> Shapes:
        with BlockFinder(model, names) as finder:
            run()
        found: dict[str, list[tuple[int, ...]]] = defaultdict(list)
        for call in finder.calls(lambda _name, _call: True):
            found[call.name].append(call.shape)
        return found

    return sample_axes(model, batch, forward, shapes)


def _of_one_shape(calls: list[BlockCall], exact: set[str]) -> list[BlockCall]:
    """Leave out calls whose output has another shape than their input."""
    odd = [each for each in calls if each.place is None]
    named = [each for each in odd if each.name in exact]
    if named or len(odd) == len(calls):
        shown = "".join(f"  {each.name} returned {each.shape}\n" for each in (named or odd)[:8])
        raise CaptureError(
            "block_influence: a block must return the shape that it is given.\n"
            f"{shown}"
            "  Name other blocks, for example blocks='layers.*'."
        )
    if odd:
        shown = ", ".join(f"{each.name} {each.shape}" for each in odd[:8])
        warn(
            "block_influence: blocks that change the shape of their input were left out: "
            f"{shown}{' and more' if len(odd) > 8 else ''}."
        )
    return [each for each in calls if each.place is not None]
