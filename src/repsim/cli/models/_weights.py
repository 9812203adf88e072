"""Weights from a file, in formats that cannot run code."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repsim.cli._needs import need
from repsim.cli._outcome import DataError, UsageError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["check_weights", "file_digest", "load_weights"]

WRAPPED = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts store the state dict."""


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a complete state dict into a model.

    Parameters
    ----------
    model : torch.nn.Module
        The model; it is changed.
    path : pathlib.Path
        ``.safetensors``, or a file of ``torch.save``, read with ``weights_only=True``. A state dict
        under "state_dict", "model_state_dict" or "model" is found, and the prefix "module." of
        DataParallel is removed.

    Raises
    ------
    UsageError
        There is no such file.
    DataError
        The file holds something else, or the parameters are not those of the model.
    """
    check_weights(path)
    state = _read(path)
    for key in WRAPPED:
        if isinstance(state.get(key), Mapping):
            state = state[key]
    if state and all(str(name).startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    if problems := _problems(model.state_dict(), state):
        listed = "\n  ".join(problems)
        raise DataError(
            f"the weights are not those of the model.\n  {path}\n  {listed}\n"
            f"  Name the model that these weights belong to."
        )
    model.load_state_dict(state)


def _problems(own: Mapping[str, Any], state: Mapping[Any, Any]) -> list[str]:
    """Return in what a state dict differs from that of the model, a line for each kind."""
    from torch import Tensor

    others, shapes = [], []
    for name, value in own.items():
        found = state.get(name)
        # What a module keeps beside its tensors is its own to check.
        if name not in state or not isinstance(value, Tensor):
            continue
        if not isinstance(found, Tensor):
            others.append(f"{name} {type(found).__name__}")
        elif found.shape != value.shape:
            shapes.append(f"{name} {tuple(found.shape)}, expected {tuple(value.shape)}")
    return [
        f"{what}: {', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}"
        for what, names in (
            ("missing", sorted(own.keys() - state)),
            ("unknown", sorted(map(str, state.keys() - own))),
            ("not a tensor", others),
            ("shape", shapes),
        )
        if names
    ]


def _refusal(error: Exception) -> str:
    """Return why torch cannot read a file, without its advice to read it unsafely."""
    text = str(error)
    if found := re.search(r"Unsupported global: GLOBAL (\S+)", text):
        return f"it holds {found[1]}, which is no tensor"
    if not text or text.startswith("Weights only load failed"):
        return "torch.save did not write it, or it holds objects other than tensors"
    return text.partition("\n")[0]


def check_weights(path: Path) -> None:
    """Raise on a missing file before a model is built."""
    if not path.is_file():
        raise UsageError(f"--weights: there is no such file.\n  got {path}")


def file_digest(path: Path) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _read(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        safetensors = need("safetensors.torch", f"--weights {path}")
        try:
            state: Any = safetensors.load_file(path)
        except MemoryError:
            raise
        except Exception as error:  # the error of the format has no public name
            raise DataError(
                f"--weights: the file is damaged, or is not a safetensors file.\n  {path}: {error}"
            ) from error
        return dict(state)
    torch = need("torch", f"--weights {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    # A pickle of other objects than tensors could run code, so torch refuses it. A damaged file
    # raises errors of many types.
    except Exception as error:
        raise DataError(
            "--weights: not a state dict that can be read without running code.\n"
            f"  {path}: {_refusal(error)}\n"
            "  Save a plain state dict: safetensors.torch.save_file(model.state_dict(), path), "
            "or torch.save(model.state_dict(), path)."
        ) from error
    if not isinstance(state, Mapping):
        raise DataError(
            f"--weights: holds no state dict.\n  {path}: {type(state).__name__}\n"
            f"  Save model.state_dict(), not the model."
        )
    return dict(state)
