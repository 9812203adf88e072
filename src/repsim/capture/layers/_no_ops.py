"""Layers that return their input: dropout in evaluation, identities, empty containers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from repsim.capture._containers import tensors_in
from repsim.capture._output import UnusableOutput
from repsim.capture.layers._select import Layer

__all__ = ["UNCHANGED", "NoOps"]

UNCHANGED = "returned its input unchanged"


class NoOps:
    """Finds calls that return one of their arguments, unchanged.

    An operation in place returns its argument too, but raises the version of the tensor. Versions
    before a call are seen by hooks, which stay for one forward.

    Parameters
    ----------
    layers : iterable of Layer
        The chosen layers. Only those are looked at that a glob ending in ``*`` took with everything
        else: a name, a type or another pattern means the layers that it finds.
    """

    def __init__(self, layers: Iterable[Layer]) -> None:
        self._layers = [layer for layer in layers if layer.swept]
        self._before: dict[str, list[_Given]] = {}
        self._handles: list[RemovableHandle] = []

    def watch(self, active: Callable[[], bool]) -> Iterator[RemovableHandle]:
        """Place the hooks one by one."""

        def hook(name: str) -> Callable[[nn.Module, object, object], None]:
            def note(_module: nn.Module, args: object, kwargs: object) -> None:
                if active():
                    self._before[name] = [_Given(each) for each in tensors_in((args, kwargs))]

            return note

        for layer in self._layers:
            handle = layer.module.register_forward_pre_hook(hook(layer.name), with_kwargs=True)
            self._handles.append(handle)
            yield handle

    def end(self) -> None:
        """Remove the hooks for good, after a forward that was recorded."""
        self._layers = []
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._before.clear()

    def check(self, layer: Layer, tensor: Tensor) -> None:
        """Raise an UnusableOutput if a call returned its input."""
        for given in self._before.pop(layer.name, ()):
            if given.is_unchanged(tensor):
                raise UnusableOutput(
                    f"Recorder: layer {layer.name!r} {UNCHANGED}.",
                    brief=UNCHANGED,
                    quiet=True,
                    repair="all_modules=True to keep layers that return their input.",
                )


class _Given:
    """An argument of a call, and what shows whether the call changed it in place."""

    def __init__(self, tensor: Tensor) -> None:
        # Tensors of inference mode have no versions. Their values are kept until the call ends.
        self._tensor = tensor
        self._values = tensor.clone() if tensor.is_inference() else None
        self._version = 0 if tensor.is_inference() else tensor._version

    def is_unchanged(self, output: Tensor) -> bool:
        """Whether an output is this argument, as it was before the call."""
        if output is not self._tensor:
            return False
        if self._values is not None:
            return torch.equal(output, self._values)
        return output._version == self._version
