"""Digests of functions of the caller, and of what modules keep in attributes."""

from __future__ import annotations

import enum
import math
import operator
import os
import re
import sys
from collections.abc import Mapping
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from repsim.analysis.run._fingerprint import digest, model_digest, modules_digest
from repsim.analysis.run.settings._code import Uses, is_own, steps_of
from repsim.analysis.run.settings._reach import Reach
from repsim.arrays import active_autocast
from repsim.capture import unwrap

__all__ = ["autocast_of", "code_digest", "codes_of", "of_process", "settings_digest"]

_OF_MODULE = frozenset(vars(nn.Module()))
"""Attributes that torch keeps of every module."""

DATES = (1e9, 4e9)
"""Seconds since 1970 of the years in which programs run: such a number is the time of a run."""

DEVICE = re.compile(r"(cpu|cuda|mps|xpu|hpu|npu|tpu|xla|meta)(:\d+)?")

DEEPEST = 4
"""Containers and objects within each other that are looked into."""

MOST_ITEMS = 1000
"""Items of a container that are looked at; of a longer one, evenly spread."""

IGNORED = "ignored"
"""In the place of a value that may differ between two runs of the same program."""


def code_digest(value: Any) -> str | None:
    """Return the digest of the code of a function and of the values that it uses.

    It is None for what is not called, such as a text or a number. The values are those of defaults,
    closures, variables of the module and attributes. What the code itself changes is a state, such
    as a counter, and is left out; so are paths, devices and times. Code of installed packages
    counts by its names.

    >>> def scaled(factor): return lambda x: factor * x
    >>> two = code_digest(scaled(2))
    >>> two == code_digest(scaled(2)), two == code_digest(scaled(2.5))
    (True, False)
    """
    if not callable(value) and not isinstance(value, Mapping):
        return None
    if isinstance(value, Mapping):
        found = {str(key): code for key, each in value.items() if (code := code_digest(each))}
        return digest(found) if found else None
    reach = _reach_of(value)
    described = [
        *_codes(reach),
        *([name, _described(each, name, reach.uses, modules=True)] for name, each in reach.values),
    ]
    return f"{digest(described)} (Python {sys.version_info[0]}.{sys.version_info[1]})"


def codes_of(functions: Mapping[str, Any]) -> dict[str, str]:
    """Return the digest of each option that holds functions, under a name for messages."""
    codes = {f"code and values of {name}": code_digest(each) for name, each in functions.items()}
    return {name: code for name, code in codes.items() if code is not None}


def settings_digest(model: nn.Module, *, codes: bool = True) -> str:
    """Return the digest of the attributes that the forwards of a model's modules read.

    Of these, numbers, texts, tensors, functions and containers of them count, unless a forward
    changes them. The code of forwards and hooks that the caller wrote counts, too. Without `codes`,
    functions in attributes and hooks do not count.
    """
    modules = list(unwrap(model).named_modules())
    reaches: dict[type, Reach] = {}
    for _, module in modules:
        kind = type(module)
        if kind not in reaches:
            reaches[kind] = Reach()
            reaches[kind].follow_method(kind, "forward")
    everywhere: set[str] = set()
    for reach in reaches.values():
        everywhere |= reach.uses.reads
    for kind, reach in reaches.items():
        for name in sorted(everywhere):  # a module may call the methods of its children
            reach.follow_method(kind, name)
    described: list[Any] = [[kind.__qualname__, _codes(each)] for kind, each in reaches.items()]
    for name, module in modules:
        used = reaches[type(module)].uses
        found = _attributes(module, Uses(everywhere, used.writes, used.changes), codes)
        hooks = _hooks(module) if codes else []
        if found or hooks:
            described.append([name, found, hooks])
    return digest(described)


def _attributes(module: nn.Module, uses: Uses, codes: bool) -> dict[str, Any]:
    """Return the attributes of one module that its forward, or that of another, reads."""
    if type(module).__module__.startswith("torch.distributed"):  # a wrapper of the run
        return {}
    held = {
        name: _described(value, name, uses, codes=codes)
        for name, value in sorted(vars(module).items())
        if name in uses.reads and name not in uses.writes and name not in _OF_MODULE
    }
    return {name: value for name, value in held.items() if value is not IGNORED}


def _hooks(module: nn.Module) -> list[str | None]:
    """Return the digests of the caller's hooks of a module, which may change outputs."""
    hooks = (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
    return [code_digest(each) for each in hooks if any(map(is_own, _reach_of(each).functions))]


def _reach_of(function: Any) -> Reach:
    reach = Reach()
    reach.follow(function)
    return reach


def _codes(reach: Reach) -> list[Any]:
    return [steps_of(each.__code__) for each in reach.functions if is_own(each)]


def _described(
    value: Any,
    name: str,
    uses: Uses,
    *,
    codes: bool = False,
    modules: bool = False,
    depth: int = 0,
) -> Any:
    """Return what counts of a value, in a form that :func:`digest` takes.

    Functions count with `codes`, and what a module of torch computes with `modules`.
    """

    def inside(each: Any, key: str = "") -> Any:
        return _described(each, key, uses, codes=codes, modules=modules, depth=depth + 1)

    if name in uses.writes or depth > DEEPEST:
        return IGNORED
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | np.generic):
        return IGNORED if _is_of_the_run(value) else f"{type(value).__name__} {value!r}"
    if isinstance(value, tuple):
        return [inside(each) for each in value]
    if isinstance(value, frozenset):
        return sorted(digest(inside(each)) for each in value)
    if isinstance(value, list | set | Mapping | Tensor | np.ndarray):
        return IGNORED if uses.changes else _items(value, inside, uses)
    if isinstance(value, FunctionType | MethodType | partial):
        if codes:
            return code_digest(value)
        # The code of the caller is among the functions, whatever their names.
        is_other = isinstance(value, FunctionType) and not is_own(value)
        return getattr(value, "__qualname__", IGNORED) if is_other else IGNORED
    if isinstance(value, enum.Enum | torch.dtype | torch.layout | re.Pattern):
        return str(value)
    if isinstance(value, ModuleType):
        return value.__name__
    if isinstance(value, nn.Module):
        kind = type(value).__qualname__
        return [kind, settings_digest(value, codes=False), model_digest(value)] if modules else kind
    if isinstance(value, operator.itemgetter | operator.attrgetter | operator.methodcaller):
        return repr(value)
    held = {} if isinstance(value, type) else _held(value)
    if not held:
        return getattr(value, "__qualname__", type(value).__qualname__)
    read = {
        key: inside(each, key)
        for key, each in sorted(held.items())
        if key in uses.reads and key not in uses.writes
    }
    return [type(value).__qualname__, read]


def _held(value: Any) -> dict[str, Any]:
    """Return the attributes that an object holds itself, also in slots."""
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    in_slots = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    return in_slots | getattr(value, "__dict__", {})


def _items(value: Any, inside: Any, uses: Uses) -> Any:
    """Return what counts of a container or of a tensor."""
    if isinstance(value, Tensor | np.ndarray):
        return value
    if isinstance(value, set):
        return sorted(digest(inside(each)) for each in value)
    items = list(value)
    if isinstance(value, Mapping):
        # Of a table of settings only those that the code names, if it names any.
        items = [key for key in value if isinstance(key, str) and key in uses.reads] or items
    some = items[:: -(-len(items) // MOST_ITEMS) or 1]
    found = (
        [[inside(key), inside(value[key])] for key in some]
        if isinstance(value, Mapping)
        else [inside(each) for each in some]
    )
    return [len(items), found]


def _is_of_the_run(value: Any) -> bool:
    """Whether a value says where or when a program runs, and not what it computes."""
    if isinstance(value, str):
        return "/" in value or os.sep in value or DEVICE.fullmatch(value) is not None
    return isinstance(value, float) and math.isfinite(value) and DATES[0] < value < DATES[1]


def autocast_of(model: nn.Module) -> str | None:
    """Return the dtype of ``torch.autocast`` on the devices of a model; None without it."""
    kinds = {each.device.type for each in (*model.parameters(), *model.buffers())}
    active = [kind for kind in active_autocast(torch) if kind in kinds]
    return ", ".join(str(torch.get_autocast_dtype(kind)) for kind in active) or None


def of_process(model: nn.Module, **functions: Any) -> dict[str, str | None]:
    """Return the digests of a model and of the functions of a call, under names for messages.

    They must be equal when a run goes on, but the ranks of a group may differ in them.
    """
    return {
        "modules": modules_digest(model),
        "attributes and code": settings_digest(model),
        "weights": model_digest(model),
        "autocast": autocast_of(model),
        **codes_of(functions),
    }
