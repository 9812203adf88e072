"""The functions that a call comes to, and the values that they name."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from inspect import getattr_static
from types import FunctionType, MethodType, ModuleType
from typing import Any

from torch import nn

from repsim.analysis.run.settings._code import Uses, globals_of, is_own, uses_of

__all__ = ["Reach"]


class Reach:
    """The functions that a call comes to, as far as their code shows it.

    Functions of the caller are followed into the functions and values that they name. Those of
    installed packages are followed only within their class.

    Attributes
    ----------
    functions : list
        The functions, in the order in which they are found.
    values : list of (str, object)
        The names and values of variables outside of the functions, defaults and bound arguments.
    uses : Uses
        What all functions together name.
    """

    def __init__(self) -> None:
        self.functions: list[FunctionType] = []
        self.values: list[tuple[str, Any]] = []
        self.uses = Uses()
        self._seen: set[int] = set()
        self._kept: list[Any] = []  # so that the number of no object is given again

    def follow(self, value: Any) -> None:
        """Add a function, or an object that is called, and all that it comes to."""
        self._name("", value)
        n_names = -1
        while n_names != len(self.uses.reads):  # a method may name further methods
            n_names = len(self.uses.reads)
            for _, each in list(self.values):
                self._within(each)

    def follow_method(self, kind: type, name: str) -> None:
        """Add a method, and the methods of its class that it comes to."""
        self._methods(kind, name)
        n_names = -1
        while n_names != len(self.uses.reads):
            n_names = len(self.uses.reads)
            for each in sorted(self.uses.reads):
                self._methods(kind, each)

    def _within(self, value: Any) -> None:
        """Add the functions of an object or a module of Python that the code names."""
        if isinstance(value, type | FunctionType | nn.Module):
            return
        if callable(value):
            self._methods(type(value), "__call__")
        for name in sorted(self.uses.reads):
            if isinstance(value, ModuleType):
                found = vars(value).get(name)
                if isinstance(found, FunctionType) and is_own(found):
                    self._function(found)
            else:
                self._methods(type(value), name)

    def _methods(self, kind: type, name: str) -> None:
        if name in ("__init__", "__new__"):
            return
        for each in kind.__mro__:  # a method may call that of the base class
            if each not in (nn.Module, object):
                for function in _functions_in(vars(each).get(name)):
                    self._function(function)

    def _function(self, function: FunctionType) -> None:
        if id(function) in self._seen:
            return
        self._seen.add(id(function))
        self._kept.append(function)
        self.functions.append(function)
        code = function.__code__
        self.uses.add(uses_of(code))
        if not is_own(function):
            return
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                self._name(name, cell.cell_contents)
            except ValueError:  # the variable has no value yet
                continue
        for number, value in enumerate(function.__defaults__ or ()):
            self._name(f"default {number}", value)
        for name, value in (function.__kwdefaults__ or {}).items():
            self._name(f"default {name}", value)
        for name in globals_of(code):
            if name in function.__globals__:
                self._name(name, function.__globals__[name])

    def _name(self, name: str, value: Any) -> None:
        wrapped = getattr_static(value, "__wrapped__", None)
        if isinstance(wrapped, FunctionType):  # by a decorator, perhaps of a package
            self._name(name, wrapped)
        if isinstance(value, FunctionType):
            self._function(value)
            self.values.append((name, value))
        elif isinstance(value, MethodType):
            self._name(name, value.__func__)
            self._name(name, value.__self__)
        elif isinstance(value, partial):
            self._name(name, value.func)
            for number, each in enumerate(value.args):
                self._name(f"{name} argument {number}", each)
            for key, each in value.keywords.items():
                self._name(f"{name} argument {key}", each)
        else:
            self.values.append((name, value))


def _functions_in(found: Any) -> Iterator[FunctionType]:
    """Yield the functions behind a method, a property or a method without a `self`."""
    if isinstance(found, property):
        found = found.fget
    found = getattr(found, "__func__", found)
    if isinstance(found, FunctionType):
        yield found
