"""Packages of models, imported when a test first uses them and not during collection."""

from __future__ import annotations

import importlib
from typing import Any


class Package:
    """A package that is imported when an attribute is first looked up."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith(
            "_"
        ):  # pytest looks this up on every object while it collects tests
            raise AttributeError(attribute)
        return getattr(importlib.import_module(self._name), attribute)


diffusers, timm, torchvision, transformers = map(
    Package, ("diffusers", "timm", "torchvision", "transformers")
)
