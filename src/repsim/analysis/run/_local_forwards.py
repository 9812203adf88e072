"""Forwards of DistributedDataParallel that exchange nothing with other ranks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from torch import nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["local_forwards"]


@contextmanager
def local_forwards(*models: nn.Module) -> Iterator[None]:
    """Keep buffers and gradients from being exchanged in forwards of wrapped models.

    Ranks with fewer batches, or none, call their model less often, so the others would wait.
    """
    wrappers = [
        module
        for model in models
        for module in model.modules()
        if isinstance(module, DistributedDataParallel)
    ]
    kept = [
        (each, each.require_forward_param_sync, each.require_backward_grad_sync, each.reducer)
        for each in dict.fromkeys(wrappers)
    ]
    try:
        for wrapper, *_, reducer in kept:
            wrapper.require_forward_param_sync = wrapper.require_backward_grad_sync = False
            wrapper.reducer = cast(Any, _LaterReducer(reducer))
        yield
    finally:
        for wrapper, forward, backward, reducer in kept:
            wrapper.require_forward_param_sync = forward
            wrapper.require_backward_grad_sync = backward
            wrapper.reducer = reducer


class _LaterReducer:
    """A reducer that leaves to a later forward what the first one after a backward exchanges."""

    def __init__(self, reducer: Any) -> None:
        self._reducer = reducer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reducer, name)

    def _rebuild_buckets(self) -> bool:
        return False
