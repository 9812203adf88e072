"""Representation similarity: do these two networks see alike.

``repsim.cka(x, y)`` on arrays of any framework; ``repsim.compare(model_x, model_y, data=...)`` on
unmodified torch models; ``repsim.MinibatchCKA`` in between, on batches of named activations.

The names that need more than NumPy load on first use, so that ``import repsim`` loads neither
torch nor pandas, xarray, matplotlib or jax.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from repsim import kernels
from repsim._errors import (
    ArrayTypeError,
    CaptureError,
    DegenerateWarning,
    InputError,
    LayerNotFoundError,
    NonFiniteError,
    RepsimError,
    RepsimWarning,
    StateError,
)
from repsim._version import __version__
from repsim.measures import cka, cka_from_gram, hsic

if TYPE_CHECKING:
    from repsim import plot
    from repsim.analysis import compare
    from repsim.capture import Recorder
    from repsim.streaming import MinibatchCKA

_LAZY = {
    "MinibatchCKA": "repsim.streaming",
    "Recorder": "repsim.capture",
    "compare": "repsim.analysis",
    "plot": "repsim",
}

__all__ = [
    "ArrayTypeError",
    "CaptureError",
    "DegenerateWarning",
    "InputError",
    "LayerNotFoundError",
    "MinibatchCKA",
    "NonFiniteError",
    "Recorder",
    "RepsimError",
    "RepsimWarning",
    "StateError",
    "__version__",
    "cka",
    "cka_from_gram",
    "compare",
    "hsic",
    "kernels",
    "plot",
]


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'repsim' has no attribute {name!r}")
    if _LAZY[name] == "repsim":
        return importlib.import_module(f"repsim.{name}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
