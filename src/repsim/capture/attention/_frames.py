"""A stack of the modules whose forward is running."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from repsim._errors import CaptureError
from repsim.capture._containers import tensors_in
from repsim.capture._hooks import in_backward
from repsim.capture.layers._walk import unwrap
from repsim.capture.tokens._evidence import ModelInput
from repsim.capture.tokens._queries import SecondSequence

__all__ = ["Frame", "Frames"]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One module whose forward is running.

    Attributes
    ----------
    name : str
        Its first name in the model, without wrappers; for the root the name of its class.
    module : torch.nn.Module
        The module itself.
    shape : tuple of int, or None
        The shape of its first tensor argument; None without one, and for nested tensors.
    pairs : tuple of (int, int)
        Pairs of whole numbers among its arguments, such as ``input_dimensions=(7, 7)``.
    cross : bool
        Whether it gets a second sequence, from which its keys come.
    other : tuple of int, or None
        The shape of the second sequence that the module gets; None without one.
    """

    name: str
    module: nn.Module
    shape: tuple[int, ...] | None
    pairs: tuple[tuple[int, int], ...] = ()
    cross: bool = False
    other: tuple[int, ...] | None = None


class Frames:
    """The stack of running modules, maintained by hooks on every module of a model.

    Code outside the modules of the model has no frame. Modules that activation checkpointing runs
    again in the backward pass add no frame.

    Parameters
    ----------
    model : torch.nn.Module
        The model; wrappers are ignored, also in the names.
    """

    def __init__(self, model: nn.Module) -> None:
        self.root = unwrap(model)
        self.stack: list[Frame] = []
        self.input: ModelInput | None = None
        self.ran: bool = False
        self._thread = threading.get_ident()
        self._second = SecondSequence()

    def hooks(self) -> Iterator[Any]:
        """Place the hooks one by one, so the caller can remove those that exist."""
        self._thread = threading.get_ident()
        for name, module in _first_names(self.root):
            if isinstance(module, torch.jit.ScriptModule):
                continue  # takes no hooks
            if name and _holds_no_attention(module):
                continue  # it would cost time without information
            yield module.register_forward_pre_hook(
                self._enter(name or type(module).__name__), with_kwargs=True, prepend=True
            )
            yield module.register_forward_hook(self._leave, always_call=True)

    def clear(self) -> None:
        """Forget the last forward."""
        self.stack.clear()
        self.input = None
        self.ran = False

    def _enter(self, name: str) -> Any:
        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if threading.get_ident() != self._thread:
                raise CaptureError(
                    f"AttentionRecorder: layer {name!r} runs in another thread, where attention "
                    f"would be missed.\n"
                    "  DataParallel on several devices does that. Call model.module inside the "
                    "block: its batch is whole, on one device."
                )
            if in_backward():
                return
            with torch._C.DisableTorchFunction():  # reading shapes must not reach the mode
                if module is self.root:
                    self.stack.clear()  # always_call hooks are not called on a KeyboardInterrupt
                if not self.stack and (module is self.root or not self.ran):
                    self.input = ModelInput.of((args, kwargs))
                self.ran = True
                shape, pairs = _shape(args, kwargs), _pairs(args, kwargs)
                cross = self._is_cross(module, args, kwargs)
                other = self._second.shape(module, args, kwargs)
            self.stack.append(Frame(name, module, shape, pairs, cross, other))

        return enter

    def _is_cross(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether a module gets a second sequence, from which its keys come."""
        if isinstance(module, nn.MultiheadAttention):
            given = {**dict(zip(("query", "key"), args, strict=False)), **kwargs}
            return given.get("key") is not given.get("query")
        return self._second.is_given(module, args, kwargs)

    def _leave(self, module: nn.Module, *_: object) -> None:
        # If another hook raised before ours, this module was never put on the stack.
        if self.stack and self.stack[-1].module is module and not in_backward():
            self.stack.pop()


def _holds_no_attention(module: nn.Module) -> bool:
    """Whether this is a layer of torch.nn without children: linear, norm, activation, softmax.

    Subclasses count, such as the norms of timm. A softmax module then counts for its parent.
    Convolutions must be seen when called alone.
    """
    if next(module.children(), None) is not None or isinstance(module, nn.Conv2d):
        return False
    kinds = {each.__module__ for each in type(module).__mro__ if each is not nn.Module}
    return any(kind.startswith("torch.nn.modules.") for kind in kinds - {nn.Sequential.__module__})


def _first_names(root: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module once, including wrappers inside the model, with names without wrappers."""
    seen: set[int] = set()

    def descend(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
        inner = unwrap(module)
        if id(inner) in seen:
            return
        seen.add(id(inner))
        yield name, inner
        for key, child in inner.named_children():
            yield from descend(child, f"{name}.{key}" if name else key)

    return descend(root, "")


def _shape(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, ...] | None:
    first = args[0] if args and isinstance(args[0], Tensor) else None  # as a rule
    if first is None:
        first = next(tensors_in((args, kwargs)), None)
    return None if first is None or first.is_nested else tuple(first.shape)


def _pairs(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[int, int], ...]:
    return tuple(
        (value[0], value[1])
        for value in (*args, *kwargs.values())
        if isinstance(value, tuple | list)
        and len(value) == 2
        and type(value[0]) is int
        and type(value[1]) is int
    )
