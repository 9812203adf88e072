"""Applying a transform inside a hook: in whatever mode the forward runs, the value is ordinary."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from repsim._errors import InputError
from repsim.capture._output import owned
from repsim.capture._reduce import REDUCERS

__all__ = ["Applied", "LayerTransform", "Transform", "resolve_transform"]


@runtime_checkable
class LayerTransform(Protocol):
    """A transform that is told which layer it works on; a true `wants_layer` marks it."""

    wants_layer: bool

    def __call__(self, tensor: Tensor, layer: str, call: int, /) -> Any:
        """Transform one output; `layer` is the module's name, `call` counts its calls from 0."""


Transform: TypeAlias = str | Callable[[Tensor], Any] | LayerTransform | None
"""What ``transform=`` accepts."""


class Applied:
    """A transform as hooks call it, from a tensor of the forward to a value that is kept.

    Parameters
    ----------
    transform : {"flatten", "cls", "mean"}, callable or None
        None stands for a copy.
    detach : bool
        Whether to cut the value from the autograd graph.

    Raises
    ------
    InputError
        There is no transform of this name, or it is no callable.
    """

    def __init__(self, transform: Transform, *, detach: bool) -> None:
        self._function = resolve_transform(transform)
        self._wants_layer = getattr(self._function, "wants_layer", False)
        self._detach = detach

    def __call__(self, tensor: Tensor, layer: str, call: int) -> Any:
        """Transform the output of one call of a layer, and own the memory of the result."""
        if self._is_ordinary(tensor):
            return self._value(tensor, layer, call)
        with ExitStack() as stack:
            inference = torch.is_inference_mode_enabled()
            if inference:  # values are for ordinary use later, and inference tensors bar autograd
                stack.enter_context(torch.inference_mode(False))
            if self._detach or inference:  # leaving inference mode turns gradients on
                stack.enter_context(torch.no_grad())
            else:
                # What a transform saves for backward is not activation checkpointing's to recompute
                # (hooks do not record then), so keep it from checkpointing's own pack hooks.
                stack.enter_context(torch.autograd.graph.saved_tensors_hooks(_same, _same))
            # Hooks run inside the caller's autocast: a matmul in a transform would be bfloat16.
            for device in _autocast(tensor):
                stack.enter_context(torch.autocast(device, enabled=False))
            return self._value(tensor, layer, call)

    def _is_ordinary(self, tensor: Tensor) -> bool:
        """Whether the forward runs as a transform should: most do, and then nothing is entered."""
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
    """Return the kinds of device whose operations are cast now, of the tensor's and the host's."""
    return [
        device
        for device in {tensor.device.type, "cpu"}
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    ]


def _same(tensor: Tensor) -> Tensor:
    return tensor


def resolve_transform(
    transform: Transform, operation: str = "Recorder"
) -> Callable[..., Any] | None:
    """Turn a reducer's name into it; pass a callable and None through; explain the rest.

    Parameters
    ----------
    transform : str, callable or None
        A key of :data:`REDUCERS`, a function of an output, or None for the output itself.
    operation : str, default "Recorder"
        What the error message begins with.

    Returns
    -------
    callable or None
        The reducer, or what was passed.

    Raises
    ------
    InputError
        An unknown name or something that cannot be called.
    """
    if isinstance(transform, str):
        if transform not in REDUCERS:
            raise InputError(
                f"{operation}: there is no transform {transform!r}.\n"
                f"  one of: {', '.join(map(repr, REDUCERS))}, token(i), or a callable"
            )
        return REDUCERS[transform]
    if transform is not None and not callable(transform):
        raise InputError(
            f"{operation}: transform must be a name, a callable or None, got {transform!r}."
        )
    return transform
