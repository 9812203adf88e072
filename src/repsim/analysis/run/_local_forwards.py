"""Forwards of DistributedDataParallel that exchange nothing with other ranks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["local_forwards"]

EXCHANGES = ("require_forward_param_sync", "require_backward_grad_sync")


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
    flags = [(each, name, getattr(each, name)) for each in wrappers for name in EXCHANGES]
    try:
        for wrapper, name, _ in flags:
            setattr(wrapper, name, False)
        yield
    finally:
        for wrapper, name, value in flags:
            setattr(wrapper, name, value)
