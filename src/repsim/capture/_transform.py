"""Applying a transform inside a hook, independently of the mode of the forward."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from repsim._errors import InputError
from repsim._options import require_bool
from repsim._shown import did_you_mean
from repsim.arrays import active_autocast
from repsim.capture._output import owned
from repsim.capture._reduce import REDUCERS

__all__ = ["Applied", "LayerTransform", "Transform", "resolve_transform"]


@runtime_checkable
class LayerTransform(Protocol):
    """A transform that gets the name of its layer; a true `wants_layer` marks it."""

    wants_layer: bool

    def __call__(self, tensor: Tensor, layer: str, call: int, /) -> Any:
        """Transform one output; `layer` is the module's name, `call` counts its calls from 0."""


Transform: TypeAlias = str | Callable[[Tensor], Any] | LayerTransform | None
"""Types of ``transform=``."""


class Applied:
    """A transform as hooks call it: it turns a tensor of the forward into the value to keep.

    Parameters
    ----------
    transform : {"flatten", "cls", "first", "last", "mean"}, callable or None
        None stands for a copy.
    detach : bool
        Whether to cut the value from the autograd graph.

    Raises
    ------
    InputError
        There is no transform of this name, or it is not callable.
    """

    def __init__(self, transform: Transform, *, detach: bool) -> None:
        require_bool("Recorder", "detach", detach)
        self._function = resolve_transform(transform)
        self._wants_layer = getattr(self._function, "wants_layer", False)
        self._detach = detach

    def __call__(self, tensor: Tensor, layer: str, call: int) -> Any:
        """Transform the output of one call of a layer; the result shares no memory with it."""
        if self._is_ordinary(tensor):
            return self._value(tensor, layer, call)
        with ExitStack() as stack:
            inference = torch.is_inference_mode_enabled()
            if inference:  # autograd refuses inference tensors, and values must be usable later
                stack.enter_context(torch.inference_mode(False))
            if self._detach or inference:  # leaving inference mode turns gradients on
                stack.enter_context(torch.no_grad())
            else:
                # Activation checkpointing must not recompute the tensors that a transform saves for
                # backward, because hooks do not record then. Hide them from its pack hooks.
                stack.enter_context(torch.autograd.graph.saved_tensors_hooks(_same, _same))
            # Hooks run inside the caller's autocast: a matmul in a transform would be bfloat16.
            for device in _autocast(tensor):
                stack.enter_context(torch.autocast(device, enabled=False))
            return self._value(tensor, layer, call)

    def _is_ordinary(self, tensor: Tensor) -> bool:
        """Whether the forward already runs in the mode for transforms, as most do."""
        return (
            self._detach
            and not torch.is_grad_enabled()
            and not torch.is_inference_mode_enabled()
            and not _autocast(tensor)
        )

    def _value(self, tensor: Tensor, layer: str, call: int) -> Any:
        if self._function is None:
            return tensor.clone()
        try:
            if self._wants_layer:
                value = self._function(tensor, layer, call)
            else:
                value = self._function(tensor)
        except Exception as error:
            error.add_note(
                f"repsim: in transform= on layer {layer!r} (call {call}), {tuple(tensor.shape)}"
            )
            raise
        return owned(value, tensor)


def _autocast(tensor: Tensor) -> list[str]:
    """Return the device types with active autocast, among the tensor's device and the CPU."""
    return active_autocast(torch, {tensor.device.type, "cpu"})


def _same(tensor: Tensor) -> Tensor:
    return tensor


def resolve_transform(
    transform: Transform, operation: str = "Recorder"
) -> Callable[..., Any] | None:
    """Return the reducer of a name, or the callable or None itself; raise on anything else.

    Parameters
    ----------
    transform : str, callable or None
        A key of :data:`REDUCERS`, a function of an output, or None for the output itself.
    operation : str, default "Recorder"
        The first word of the error message.

    Returns
    -------
    callable or None
        The reducer, or the argument itself.

    Raises
    ------
    InputError
        An unknown name, or an object that is not callable.
    """
    if isinstance(transform, str):
        if transform not in REDUCERS:
            raise InputError(
                f"{operation}: there is no transform {transform!r}.\n"
                f"  one of: {', '.join(map(repr, REDUCERS))}, repsim.capture.token(i), or a "
                f"function{did_you_mean(transform, REDUCERS)}"
            )
        return REDUCERS[transform]
    if transform is not None and not callable(transform):
        raise InputError(
            f"{operation}: transform must be a name, a callable or None, got {transform!r}."
        )
    return transform
