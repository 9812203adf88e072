"""What every result says of where it comes from."""

from __future__ import annotations

import torch
from torch import nn

from repsim._version import __version__
from repsim.capture import unwrap

__all__ = ["model_label", "versions"]


def model_label(model: nn.Module, name: str | None = None) -> str:
    """Return the name a result gives a model: the caller's, or that of its class."""
    return type(unwrap(model)).__name__ if name is None else name


def versions() -> dict[str, str]:
    """Return the versions that a result depends on, for its ``attrs``."""
    return {"torch_version": str(torch.__version__), "repsim_version": __version__}
