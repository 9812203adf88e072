"""What the code of a function does: its steps, and the names that it reads and writes."""

from __future__ import annotations

import dis
import os
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

__all__ = ["Uses", "globals_of", "is_own", "steps_of", "uses_of"]

WITHOUT_EFFECT = {"CACHE", "EXTENDED_ARG", "NOP", "RESUME"}
"""Instructions that follow from the lines of the source, or from the length of the code."""

READS = ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR")
WRITES = (
    *("STORE_ATTR", "STORE_GLOBAL", "STORE_DEREF"),
    *("DELETE_ATTR", "DELETE_GLOBAL", "DELETE_DEREF"),
)
INTO_CONTAINERS = ("STORE_SUBSCR", "DELETE_SUBSCR", "STORE_SLICE")
CHANGING = {
    *("add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem"),
    *("popleft", "remove", "setdefault", "sort", "update"),
}
"""Methods that change a list, a dict or a set; those of tensors end in one underscore."""

STANDARD = os.path.dirname(os.__file__)
REPSIM = str(Path(__file__).parents[3]) + os.sep


@dataclass
class Uses:
    """What code names.

    Attributes
    ----------
    reads : set of str
        Attributes, and texts, which may be keys or the names of attributes.
    writes : set of str
        Attributes, and variables outside of the function: what they hold is a state.
    changes : bool
        Whether it may change the items of a container or of a tensor.
    """

    reads: set[str] = field(default_factory=set)
    writes: set[str] = field(default_factory=set)
    changes: bool = False

    def add(self, other: Uses) -> None:
        """Take what other code names into account."""
        self.reads |= other.reads
        self.writes |= other.writes
        self.changes = self.changes or other.changes


@lru_cache(maxsize=4096)
def uses_of(code: CodeType) -> Uses:
    """Return what code and the functions in it name."""
    uses = Uses()
    for each in dis.get_instructions(code):
        if each.opname in READS:
            name = str(each.argval)
            uses.reads.add(name)
            in_place = name.endswith("_") and not name.endswith("__")
            uses.changes = uses.changes or in_place or name in CHANGING
        elif each.opname in WRITES:
            uses.writes.add(each.argval)
        elif each.opname in INTO_CONTAINERS:
            uses.changes = True
        elif isinstance(each.argval, CodeType):
            uses.add(uses_of(each.argval))
        elif each.opcode in dis.hasconst and isinstance(each.argval, str):
            uses.reads.add(each.argval)
    return uses


@lru_cache(maxsize=4096)
def globals_of(code: CodeType) -> tuple[str, ...]:
    """Return the variables of the module that code reads, in order."""
    names = []
    for each in dis.get_instructions(code):
        if each.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            names.append(str(each.argval))
        elif isinstance(each.argval, CodeType):
            names += globals_of(each.argval)
    return tuple(dict.fromkeys(names))


def steps_of(code: CodeType) -> list[Any]:
    """Return what code does, without lines, files and the names of its own variables.

    >>> def one(x): return 2 * x
    >>> def another(y):
    ...     "With other names."
    ...     return 2 * y
    >>> steps_of(one.__code__) == steps_of(another.__code__)
    True
    >>> steps_of(one.__code__) == steps_of((lambda x: 3 * x).__code__)
    False
    """
    steps: list[Any] = []
    for each in dis.get_instructions(code):
        if each.opname in WITHOUT_EFFECT:
            continue
        if each.opcode in dis.hasjrel or each.opcode in dis.hasjabs:
            steps.append(each.opname)  # its distance depends on the lines of the source
        elif each.opcode in dis.hasconst:
            steps.append([each.opname, _constant(each.argval)])
        elif each.opcode in dis.hasname:
            steps.append([each.opname, str(each.argval)])
        else:
            steps.append([each.opname, each.arg])
    return steps


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return steps_of(value)
    if isinstance(value, tuple):
        return [_constant(each) for each in value]
    if isinstance(value, frozenset):  # in no fixed order
        return sorted(map(repr, value))
    return repr(value)


def is_own(function: FunctionType) -> bool:
    """Whether the caller wrote a function: it is not of Python, repsim or an installed package."""
    file = function.__code__.co_filename
    parts = file.replace(os.sep, "/").split("/")
    is_installed = "site-packages" in parts or "dist-packages" in parts
    return not (is_installed or file.startswith((STANDARD, REPSIM, "<frozen")))
