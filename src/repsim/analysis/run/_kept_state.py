"""Running a model without a trace: random state, buffers and what forwards keep in attributes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from repsim.analysis._devices import kept_random_state
from repsim.capture import tensors_in

__all__ = ["kept_state"]

_OF_MODULE = frozenset(vars(nn.Module()))
"""Attributes that torch keeps of every module."""

MOST_BYTES = 1 << 20
"""Larger tensors are not copied: they hold quantised weights, or caches that forwards overwrite."""


@contextmanager
def kept_state(model: nn.Module) -> Iterator[None]:
    """Restore the random state, buffers, and numbers and tensors in attributes of modules.

    A model may count its calls, or keep a state of the batch before: the samples of the next batch
    must not meet the state of others. A state may be in a list or a dict, too.
    """
    # A lazy module becomes an ordinary one in its first forward, and must stay so.
    modules = [m for m in model.modules() if not _is_lazy(m)]
    tables = [(m, dict(m._buffers)) for m in modules]
    kept = [(m, _values(m)) for m in modules]
    lists = [(x, copy.copy(x)) for _, values in kept for x in values.values() if _holds_items(x)]
    own = tensors_in([*(table for _, table in tables), *(values for _, values in kept)])
    tensors = [(each, each.clone(), _version(each)) for each in own if _may_change(each)]
    try:
        with kept_random_state(model):
            yield
    finally:
        with torch.no_grad():
            for tensor, before, version in tensors:
                if version is None or tensor._version != version:
                    tensor.copy_(before)
        for module, table in tables:
            if isinstance(module, torch.jit.ScriptModule):  # its buffers are set one by one
                for name, value in table.items():
                    setattr(module, name, value)
                continue
            module._buffers.update(table)
            for name in module._buffers.keys() - table.keys():
                del module._buffers[name]
        for held, items in lists:
            _restore_items(held, items)
        for module, values in kept:
            for name, value in _values(module).items():
                if isinstance(module, torch.jit.ScriptModule):
                    setattr(module, name, values[name])
                    continue
                is_new_flag = isinstance(value, bool) and not isinstance(values.get(name), bool)
                is_new_list = _holds_items(value) and name not in values
                if is_new_flag or is_new_list:  # of a wrapper that the first forward sets up
                    continue
                if name in values:
                    vars(module)[name] = values[name]
                else:
                    del vars(module)[name]


def _is_lazy(module: nn.Module) -> bool:
    own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    return any(map(is_lazy, own))


def _may_change(tensor: Tensor) -> bool:
    """Whether a forward may write into a tensor, and the tensor is small enough to be copied."""
    if tensor.is_nested or tensor.layout != torch.strided or 0 in tensor.stride():
        return False  # it has no bytes to count, or its entries share memory
    writable = torch.is_inference_mode_enabled() or not tensor.is_inference()
    return writable and tensor.nbytes <= MOST_BYTES


def _version(tensor: Tensor) -> int | None:
    """Return the number of changes in place; None if torch does not count them."""
    return None if tensor.is_inference() else tensor._version


def _values(module: nn.Module) -> dict[str, Any]:
    """Return the attributes that may hold a state, by name."""
    held = vars(module)
    if isinstance(module, torch.jit.ScriptModule):  # its attributes lie outside of Python
        kinds: Any = torch._C.ConcreteModuleType.from_jit_type(module._c._type())
        attributes = kinds.get_attributes().items()
        held = {
            name: getattr(module, name)
            for name, (_, is_parameter) in attributes
            if not is_parameter
        }
    return {
        name: value for name, value in held.items() if name not in _OF_MODULE and _is_state(value)
    }


def _is_state(value: Any) -> bool:
    """Whether a value is a number, a tensor, a tuple or nothing; or a list or a dict of these."""
    items = value
    if isinstance(value, dict):
        items = value.values()
    elif not isinstance(value, list):
        items = [value]
    return all(item is None or isinstance(item, int | float | Tensor | tuple) for item in items)


def _holds_items(value: Any) -> bool:
    return isinstance(value, list | dict)


def _restore_items(held: Any, items: Any) -> None:
    """Put items back, unless a list or a dict now holds other things, as those of a wrapper."""
    if not _is_state(held):
        return
    held.clear()
    if isinstance(held, list):
        held.extend(items)
    else:
        held.update(items)
