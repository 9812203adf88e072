"""The modes in which a model runs, and checks that its hooks record once, in one thread."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from threading import Lock, get_ident
from typing import Any

import torch
from torch import nn

from repsim._errors import CaptureError, InputError
from repsim.arrays import active_autocast

__all__ = [
    "OneThread",
    "eagerly",
    "evaluating",
    "in_backward",
    "is_scripted",
    "ordinary_modes",
    "refuse_replica",
]


@contextmanager
def eagerly() -> Iterator[None]:
    """Run compiled code eagerly, because it ignores hooks and modes that were added later.

    The model does not show where compiled code is: it may be a wrapper around the model, or a
    function that its forward calls. The stance is one for the process, and blocks of several
    threads need not end in the order in which they began: the last one restores it.
    """
    with _lock:
        if _stance.kept is None and "torch._dynamo" in sys.modules:
            _stance.kept = torch.compiler.set_stance("force_eager")
        _stance.users += 1
    try:
        yield
    finally:
        with _lock:
            _stance.users -= 1
            if _stance.users == 0 and _stance.kept is not None:
                _stance.kept.__exit__(None, None, None)
                _stance.kept = None


@dataclass
class _Stance:
    """The blocks that run compiled code eagerly, and what restores the stance before them."""

    users: int = 0
    kept: Any = None


_lock, _stance = Lock(), _Stance()


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Keep models in evaluation mode, and restore the flag of every submodule afterwards.

    Some modules do more than to set a flag when their mode changes: they add low-rank weights to
    the others, or put averaged weights in their place. Their own methods undo this.

    Parameters
    ----------
    *models : torch.nn.Module
        The models. A frozen batch norm inside a training model stays frozen.

    Yields
    ------
    None

    Raises
    ------
    InputError
        A model has no evaluation mode.
    """
    flags = [(module, module.training) for model in models for module in model.modules()]
    try:
        for model in models:
            _evaluate(model)
        yield
    finally:
        _restore(flags)


def _evaluate(model: nn.Module) -> None:
    try:
        model.eval()
    except NotImplementedError as error:
        raise InputError(
            f"{type(model).__name__}.eval() is not implemented, so the model cannot be put in "
            "evaluation mode.\n"
            "  A module of torch.export is one graph without layers.\n"
            "  Pass the model as it was before torch.export.export, or what torch.export.unflatten "
            "makes of the\n  program, if it was exported in evaluation mode."
        ) from error


def _restore(flags: Sequence[tuple[nn.Module, bool]]) -> None:
    try:
        for module, training in flags:
            # A module comes before those inside it, so each ends in its own mode.
            if module.training != training and type(module).train is not nn.Module.train:
                module.train(training)
    finally:
        for module, training in flags:
            module.training = training


def in_backward() -> bool:
    """Whether this runs inside a backward pass, where activation checkpointing runs modules again.

    Their hooks run again with them.
    """
    return torch._C._current_graph_task_id() != -1


def refuse_replica(layer: str, module: nn.Module) -> None:
    """Raise a CaptureError in a replica of DataParallel, which has a part of the batch."""
    if getattr(module, "_is_replica", False):
        raise CaptureError(
            f"Recorder: layer {layer!r} runs in a DataParallel replica.\n"
            "  Call model.module inside the block: its batch is whole, on one device."
        )


def is_scripted(module: nn.Module) -> bool:
    """Whether the inside of a module is invisible to hooks and modes."""
    return isinstance(module, torch.jit.ScriptModule)


def ordinary_modes(device: str) -> ExitStack:
    """Return a block without gradients, inference mode and autocast."""
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        for kind in active_autocast(torch, {device, "cpu"}):
            stack.enter_context(torch.autocast(kind, enabled=False))
        return stack.pop_all()


class OneThread:
    """A check that all forwards of a block run in one thread."""

    def __init__(self) -> None:
        self._first: int | None = None

    def forget(self) -> None:
        """Begin a new block."""
        self._first = None

    @property
    def is_this(self) -> bool:
        """Whether this is the thread of the forwards."""
        return self._first in (None, get_ident())

    def check(self) -> None:
        """Raise a CaptureError if a forward ran in another thread before."""
        self._first = self._first or get_ident()
        if not self.is_this:
            raise CaptureError(
                "Recorder: two threads call the model while its layers are recorded.\n"
                "  Their outputs would be mixed, and the train/eval flags that one thread restores "
                "are those that the other needs.\n"
                "  Give each thread a copy.deepcopy(model), or run one after the other."
            )
