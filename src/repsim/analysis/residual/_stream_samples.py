"""Finding by evidence which axis of a residual stream holds the samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

from torch import nn

from repsim.analysis.run._cut_runs import BatchRefusedError, answers
from repsim.analysis.run._drive import Batch, Forward
from repsim.capture.samples import SIZES

__all__ = ["Shapes", "sample_axes"]

Shapes: TypeAlias = Mapping[str, Sequence[tuple[int, ...]]]
"""The shapes of the tensors of a forward, in order, by what has them."""


def sample_axes(
    model: nn.Module,
    batch: Batch,
    forward: Forward | None,
    shapes: Callable[[Callable[[], object]], Shapes],
) -> dict[str, int]:
    """Run a model on 2 and on 3 samples of a batch; return the axes that grow from 2 to 3.

    Parameters
    ----------
    model : torch.nn.Module
        The model, in evaluation mode.
    batch : Batch
        The first batch, as prepared for the model.
    forward : callable, optional
        The option of the caller.
    shapes : callable
        Calls its argument, which runs a forward, and returns the shapes in it.

    Returns
    -------
    dict
        The axis by the name of what has the tensors; empty where the forwards do not show it.
    """

    def ask(run: Callable[[int], object]) -> list[Shapes]:
        return [shapes(partial(run, size)) for size in SIZES]

    for _, answer in answers(batch, model, forward, None, ask):
        if isinstance(answer, BatchRefusedError):
            continue
        two, three = answer
        found = {name: _grown(two[name], three.get(name, ())) for name in two}
        if known := {name: axis for name, axis in found.items() if axis is not None}:
            return known
    return {}


def _grown(two: Sequence[tuple[int, ...]], three: Sequence[tuple[int, ...]]) -> int | None:
    """Return the one axis of all tensors that grows from 2 to 3 while the others stay."""
    axes: set[int | None] = set()
    for a, b in zip(two, three, strict=False):
        grown = [axis for axis, pair in enumerate(zip(a, b, strict=False)) if pair == SIZES]
        others_stay = len(a) == len(b) and sum(x != y for x, y in zip(a, b, strict=True)) == 1
        axes.add(grown[0] if grown and others_stay else None)
    return axes.pop() if len(axes) == 1 and len(two) == len(three) else None
