"""Putting another tensor in the place of what one call of a layer returns."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from repsim._errors import CaptureError
from repsim.capture._containers import is_dataclass
from repsim.capture._hooks import eagerly, in_backward, ordinary_modes
from repsim.capture._output import Select, pick
from repsim.capture.layers._walk import named_layers
from repsim.capture.samples._axes import BatchAxis

__all__ = ["spliced"]


@contextmanager
def spliced(
    model: nn.Module,
    layer: str,
    call: int,
    function: Callable[[Tensor], Tensor],
    *,
    axes: BatchAxis,
    select: Select | None = None,
) -> Iterator[None]:
    """Replace the output of one call of a layer by a function of it, inside a ``with`` block.

    Parameters
    ----------
    model : torch.nn.Module
        The model; the block runs one forward.
    layer : str
        The name of the module.
    call : int
        Which of its calls in the forward, from 0.
    function : callable
        Gets the tensor of the output, samples first, and returns one of the same shape.
    axes : BatchAxis
        Which axis holds the samples.
    select : callable, int or str, optional
        Which tensor of the output, as in :class:`Recorder`.

    Yields
    ------
    None

    Raises
    ------
    CaptureError
        The tensor is not a part of the output that can be replaced, or the layer did not run.
    """
    calls = 0

    def replace(_module: nn.Module, _args: object, output: object) -> object:
        nonlocal calls
        if in_backward():
            return None
        calls += 1
        if calls != call + 1:
            return None
        tensor = pick(output, layer, select)
        first = axes.first(tensor, layer, call)
        with ordinary_modes(tensor.device.type):
            new = function(first).to(device=tensor.device, dtype=tensor.dtype)
        whole = _as_it_was(new, tensor, first)
        found = None if whole is None else put_back(output, tensor, whole)
        if found is None:
            raise CaptureError(
                f"stitch: the output of layer {layer!r} cannot be replaced.\n"
                f"  it returned {type(output).__name__}, and the tensor of {tuple(first.shape)} is "
                f"computed from it\n"
                f"  Choose another layer, or a part of the output: select= an index or a key."
            )
        return found

    with eagerly():
        handle = named_layers(model)[layer].register_forward_hook(replace)
        try:
            yield
        finally:
            handle.remove()
    if calls <= call:
        raise CaptureError(
            f"stitch: every forward must run layer {layer!r} at least {call + 1} times.\n"
            f"  the stitched one ran it {calls} times\n"
            f"  Choose a layer that runs in every forward."
        )


def _as_it_was(new: Tensor, tensor: Tensor, first: Tensor) -> Tensor | None:
    """Move the samples of a new tensor back to their axis; None if they were not only moved."""
    if first is tensor:
        return new
    for axis in range(tensor.ndim):
        moved = tensor.movedim(axis, 0)
        same_place = moved.shape == first.shape and moved.stride() == first.stride()
        if same_place and moved.data_ptr() == first.data_ptr():
            return new.movedim(0, axis)
    return None


def put_back(output: Any, old: Tensor, new: Tensor) -> Any:
    """Return an output with a tensor replaced in nested containers; None if it is not in there.

    The containers on the way are copied, because a model may hold on to its own.
    """
    if output is old:
        return new
    if isinstance(output, Mapping):
        for key, item in output.items():
            if (found := put_back(item, old, new)) is not None:
                changed: Any = copy.copy(output)
                changed[key] = found
                return changed
    elif isinstance(output, tuple | list):
        for at, item in enumerate(output):
            if (found := put_back(item, old, new)) is not None:
                items = [*output[:at], found, *output[at + 1 :]]
                named = isinstance(output, tuple) and hasattr(output, "_fields")
                return type(output)(*items) if named else type(output)(items)
    elif is_dataclass(output):
        for name in (each.name for each in dataclasses.fields(output) if each.init):
            if (found := put_back(getattr(output, name), old, new)) is not None:
                return dataclasses.replace(output, **{name: found})
    return None
