"""Every public name, once, with the place where the reference documents it."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["PACKAGES", "PublicName", "all_names", "docstring_of"]

OPEN = ("measures", "inference", "attention", "capture", "kernels", "plot", "report")
"""Packages whose whole ``__all__`` is public."""

PACKAGES = ("analysis", *OPEN[:2], "streaming", "storage", *OPEN[2:])
"""Packages with public names, in the order of the reference.

Of packages that are not in `OPEN`, only the names that `repsim` itself exports are public.
"""


@dataclass(frozen=True)
class PublicName:
    """A public name.

    Parameters
    ----------
    path : str
        The name in user code: ``"repsim.cka"``, ``"repsim.kernels.RBF"``.
    value : object
        The object.
    package : str
        The page of the reference that lists it: one of `PACKAGES`, or ``"errors"``.
    """

    path: str
    value: Any
    package: str

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]

    @property
    def kind(self) -> str:
        """``"function"``, ``"class"``, ``"exception"`` or ``"data"``."""
        if inspect.isclass(self.value):
            return "exception" if issubclass(self.value, BaseException) else "class"
        return "function" if inspect.isfunction(self.value) else "data"


def all_names() -> list[PublicName]:
    """Return the names that `repsim` exports, then those that only its packages export."""
    repsim = importlib.import_module("repsim")
    found: dict[str, PublicName] = {}
    seen: set[int] = set()
    for name in repsim.__all__:
        value = getattr(repsim, name)
        if inspect.ismodule(value) or name == "__version__":
            continue
        home = value.__module__.split(".")[1]
        package = "errors" if home == "_errors" else home
        found[name] = PublicName(f"repsim.{name}", value, package)
        seen.add(id(value))
    for package in OPEN:
        module = importlib.import_module(f"repsim.{package}")
        for name in module.__all__:
            value = getattr(module, name)
            if id(value) not in seen or not callable(value):
                path = f"repsim.{package}.{name}"
                found[path] = PublicName(path, value, package)
    return list(found.values())


def docstring_of(public: PublicName) -> str:
    """Return its docstring, or the string below the assignment of a constant or an alias."""
    if public.kind != "data":
        return inspect.getdoc(public.value) or ""
    folder = Path(typing.cast(str, importlib.import_module(f"repsim.{public.package}").__file__))
    for path in sorted(folder.parent.rglob("*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        for statement, after in itertools.pairwise(body):
            targets = (
                [statement.target]
                if isinstance(statement, ast.AnnAssign)
                else statement.targets
                if isinstance(statement, ast.Assign)
                else []
            )
            named = any(isinstance(t, ast.Name) and t.id == public.name for t in targets)
            text = after.value if named and isinstance(after, ast.Expr) else None
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                return inspect.cleandoc(text.value)
    return ""
