"""Running a model without a trace: random state, buffers and what forwards keep in attributes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

__all__ = ["kept_state"]

_OF_MODULE = frozenset(vars(nn.Module()))
"""Attributes that torch keeps of every module."""

MOST_BYTES = 1 << 20
"""Larger buffers are not copied: they hold quantised weights, or caches that forwards overwrite."""


@contextmanager
def kept_state(model: nn.Module) -> Iterator[None]:
    """Restore the random state, buffers, and numbers and tensors in attributes of modules.

    A model may count its calls, or keep a state of the batch before: the samples of the next batch
    must not meet the state of others.
    """
    devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    # A lazy module becomes an ordinary one in its first forward, and must stay so.
    modules = [m for m in model.modules() if not _is_lazy(m)]
    own = (buffer for module in modules for buffer in module.buffers(recurse=False))
    buffers = [(b, b.clone(), b._version) for b in own if b.nbytes <= MOST_BYTES]
    tables = [(m, dict(m._buffers)) for m in modules]
    kept = [(m, _values(m)) for m in modules]
    try:
        with torch.random.fork_rng(devices=[d for d in devices if d is not None]):
            yield
    finally:
        with torch.no_grad():
            for buffer, before, version in buffers:
                if buffer._version != version:
                    buffer.copy_(before)
        for module, table in tables:
            if isinstance(module, torch.jit.ScriptModule):  # its buffers are set one by one
                for name, value in table.items():
                    setattr(module, name, value)
                continue
            module._buffers.update(table)
            for name in module._buffers.keys() - table.keys():
                del module._buffers[name]
        for module, values in kept:
            for name, value in _values(module).items():
                is_new_flag = isinstance(value, bool) and not isinstance(values.get(name), bool)
                if is_new_flag:  # of a wrapper that the first forward sets up
                    continue
                if name in values:
                    vars(module)[name] = values[name]
                else:
                    del vars(module)[name]


def _is_lazy(module: nn.Module) -> bool:
    own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    return any(map(is_lazy, own))


def _values(module: nn.Module) -> dict[str, Any]:
    """Return the attributes that hold a number, a tensor or nothing, by name."""
    return {
        name: value
        for name, value in vars(module).items()
        if name not in _OF_MODULE
        and (value is None or isinstance(value, int | float | Tensor | tuple))
    }
