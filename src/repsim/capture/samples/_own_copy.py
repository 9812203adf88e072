"""Copies of batches, one for each forward, because a model may change what it gets."""

from __future__ import annotations

import copy
import dataclasses
from collections import UserDict
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

__all__ = ["own_copy"]


def own_copy(value: Any) -> Any:
    """Return a batch that shares no memory with `value`.

    >>> import torch
    >>> batch = {"x": torch.ones(2), "scale": 3.0}
    >>> own_copy(batch)["x"].mul_(0), batch["x"]
    (tensor([0., 0.]), tensor([1., 1.]))

    A model may normalise its images in place, or append to a cache of keys and values. The next
    forward on the batch, of this model or of another one, must not meet the changes.

    Parameters
    ----------
    value : object
        Tensors and arrays in tuples, lists, mappings, dataclasses and other objects. Gradients pass
        through copies of tensors. Modules, and objects that refuse to be copied (generators of
        random numbers), are returned themselves.
    """
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, Mapping):
        items = {key: own_copy(item) for key, item in value.items()}
        if not isinstance(value, UserDict):
            return items
        encoding = copy.copy(value)  # keeps the class, as that of the encodings of tokenisers
        encoding.data = items
        return encoding
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(own_copy, value))
    if isinstance(value, list | tuple):
        return type(value)(map(own_copy, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        copied = copy.copy(value)
        for field in dataclasses.fields(value):  # also those of a frozen class
            object.__setattr__(copied, field.name, own_copy(getattr(value, field.name)))
        return copied
    return _other(value)


def _other(value: Any) -> Any:
    if isinstance(value, nn.Module) or not hasattr(value, "__dict__"):
        return value
    try:
        return copy.deepcopy(value)
    except Exception:  # it holds what cannot be copied, such as a lock: the model gets it itself
        return value
