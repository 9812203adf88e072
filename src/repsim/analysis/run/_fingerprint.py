"""Digests that show whether a resumed run uses the same model and data."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from repsim._errors import StateError
from repsim.capture import parts_of, unwrap

__all__ = [
    "BatchLog",
    "digest",
    "label_of",
    "model_digest",
    "modules_digest",
    "shows_values",
]

SAMPLED = 4096
"""Elements read of a tensor. Batches that differ in any sample differ in some of these."""

ADDRESS = re.compile("0x[0-9a-fA-F]+")
"""Of an object in memory, which differs from one process to the next."""

SPARSE = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc)


def digest(value: Any) -> str:
    """Return 16 hexadecimal digits: the same for equal values, almost surely others for unequal.

    For a tensor the digest uses shape, dtype and at most 4096 evenly spread elements, so a change
    of only other elements goes unnoticed. For objects that are not tensors, numbers, strings or
    containers it uses the type.
    """
    state = hashlib.blake2b(digest_size=8)
    _feed(state, value)
    return state.hexdigest()


def shows_values(value: Any) -> bool:
    """Whether a digest depends on all values: they are on the processor, and in no other object."""
    if isinstance(value, Tensor):
        return value.device.type == "cpu"
    if isinstance(value, np.ndarray):
        return value.dtype.kind not in "OUS"
    if isinstance(value, Mapping | list | tuple) or is_dataclass(value):
        return all(map(shows_values, parts_of(value)))
    return value is None or isinstance(value, str | bytes | int | float | np.generic)


def model_digest(model: nn.Module, *, with_shards: bool = True) -> str:
    """Return the digest of a model's parameters and buffers, with their names.

    Without shards it is the same on every rank: if each rank holds a part of a parameter, only the
    dtype of this parameter counts.
    """
    root = unwrap(model)
    weights: dict[str, Any] = {**dict(root.named_parameters()), **dict(root.named_buffers())}
    if not with_shards:
        weights = {
            name: str(x.dtype) if "_flat_param" in name or hasattr(x, "placements") else x
            for name, x in weights.items()
        }
    return digest(weights)


def modules_digest(model: nn.Module) -> str:
    """Return the digest of a model's modules: their names, classes and options as torch shows them.

    Another activation, stride or epsilon changes the outputs with the same weights. An option that
    a module does not show goes unnoticed here; `settings_digest` sees it.
    """
    modules = [
        [name, type(module).__qualname__, ADDRESS.sub("", module.extra_repr())]
        for name, module in unwrap(model).named_modules()
    ]
    return digest(modules)


def label_of(value: Any) -> str:
    """Return a name for an option that is the same from one process to the next."""
    if value is None or isinstance(value, str | int | float | bool):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k!r}: {label_of(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(label_of, value)) + "]"
    if isinstance(value, np.generic):
        return repr(value.item())
    if isinstance(value, Tensor | np.ndarray):
        return digest(value)
    if isinstance(value, re.Pattern):
        return repr(value)
    name = getattr(value, "name", None) or getattr(value, "__qualname__", None)
    return str(name or type(value).__name__)


def _is_wrapper(value: Any) -> bool:
    return is_traceable_wrapper_subclass(value)


def _parts(value: Any) -> dict[str, Any]:
    """Return the plain tensors inside a tensor of a subclass."""
    names, _ = value.__tensor_flatten__()
    return {name: getattr(value, name) for name in names}


def _feed(state: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        _feed_tensor(state, value)
    elif isinstance(value, np.ndarray) and value.dtype.kind not in "OUS":
        _feed(state, torch.from_numpy(np.ascontiguousarray(value)))
    elif isinstance(value, Mapping):
        state.update(f"mapping {len(value)}".encode())
        for key, each in value.items():
            state.update(repr(key).encode())
            _feed(state, each)
    elif isinstance(value, list | tuple):
        state.update(f"sequence {len(value)}".encode())
        for each in value:
            _feed(state, each)
    elif value is None or isinstance(value, str | bytes | int | float | np.generic):
        state.update(repr(value).encode())
    else:
        state.update(type(value).__qualname__.encode())
        for each in parts_of(value):  # of a dataclass
            _feed(state, each)


def _feed_tensor(state: Any, value: Tensor) -> None:
    if is_lazy(value):
        state.update(b"not initialized")
    elif _is_wrapper(value):
        # Shards and quantised weights: what is in this process.
        _feed(state, _parts(value))
    elif value.is_nested:
        _feed(state, value.unbind())
    elif value.is_quantized:
        _feed(state, [value.int_repr(), str(value.qscheme())])
    elif value.layout in SPARSE:
        entries = value.detach().to_sparse().coalesce()
        _feed(state, [tuple(value.shape), entries.indices(), entries.values()])
    else:
        state.update(f"{tuple(value.shape)} {value.dtype}".encode())
        if value.numel() and value.device.type != "meta" and value.layout == torch.strided:
            flat = value.detach().reshape(-1)
            step = max(1, -(-flat.numel() // SAMPLED))
            if step > 1 and step % 2 == 0:
                step += 1  # an odd step visits every column of a last axis of even size
            part = flat[::step].cpu().contiguous()
            state.update(part.view(torch.uint8).numpy().tobytes())


class BatchLog:
    """The digests of the batches counted so far; the data of a resumed run must match them.

    Parameters
    ----------
    operation, path : str
        For messages.
    known : list of list of str
        The digests by pass: the value of :attr:`known` when the state was written.

    Attributes
    ----------
    latest : str
        The digest of the latest batch.
    """

    def __init__(self, operation: str, path: str, known: list[list[str]]) -> None:
        self.operation, self.path, self.known = operation, path, known
        self._pass, self._at = -1, 0
        self.latest = ""

    def begin_pass(self) -> None:
        """Start a pass over the data, after checking that the previous pass was complete."""
        self.end_pass()
        self._pass, self._at = self._pass + 1, 0
        if self._pass == len(self.known):
            self.known.append([])

    def end_pass(self) -> None:
        """Check that the data did not end before the last counted batch."""
        if self._pass >= 0 and self._at < len(self.known[self._pass]):
            raise self.refusal(
                f"the data ended after {self._at} batches; "
                f"{len(self.known[self._pass])} had been counted"
            )

    def was_counted(self, batch: Any) -> bool:
        """Return whether this batch was counted before; raise if its digest differs."""
        self.latest, at = digest(batch), self._at
        self._at += 1
        known = self.known[self._pass]
        if at < len(known):
            if known[at] != self.latest:
                raise self.refusal(f"batch {at} of pass {self._pass} (from 0) is another")
            return True
        if self._pass + 1 < len(self.known):
            raise self.refusal(f"pass {self._pass} (from 0) now has more than {at} batches")
        return False

    def count(self) -> None:
        """Record that the latest batch is counted."""
        self.known[self._pass].append(self.latest)

    def refusal(self, what: str) -> StateError:
        """Return the error that says how the data differ."""
        return StateError(
            f"{self.operation}: the data are not those that {self.path!r} was begun with.\n"
            f"  {what}\n"
            f"  Pass the same batches in the same order: without shuffle, or with a seeded one. "
            f"To begin anew, delete it."
        )
