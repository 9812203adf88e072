"""The provenance of results: names and versions for their attributes."""

from __future__ import annotations

import torch
from torch import nn

from repsim._version import __version__
from repsim.capture import Transform, unwrap

__all__ = ["model_label", "transform_label", "versions"]


def model_label(model: nn.Module, name: str | None = None) -> str:
    """Return the name of a model in a result: the caller's, or that of its class."""
    return type(unwrap(model)).__name__ if name is None else name


def versions() -> dict[str, str]:
    """Return the versions that a result depends on, for its ``attrs``."""
    return {"torch_version": str(torch.__version__), "repsim_version": __version__}


def transform_label(transform: Transform, *, nothing: str = "flatten") -> str:
    """Return a name for ``attrs`` that is the same in every process."""
    if transform is None:
        return nothing
    if isinstance(transform, str):
        return transform
    name = getattr(transform, "name", None) or getattr(transform, "__qualname__", None)
    return str(name or type(transform).__name__)
