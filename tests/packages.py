"""Packages of models, imported when a test first uses them: collecting needs none of them."""

from __future__ import annotations

import importlib
from typing import Any


class Package:
    """A package whose attributes are looked up in the package, which that imports."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):  # asked of everything in a module, by whoever collects tests
            raise AttributeError(attribute)
        return getattr(importlib.import_module(self._name), attribute)


diffusers, timm, torchvision, transformers = map(
    Package, ("diffusers", "timm", "torchvision", "transformers")
)
