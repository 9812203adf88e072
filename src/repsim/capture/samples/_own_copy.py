"""Copies of batches, one for each forward, because a model may change what it gets."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from repsim.capture._containers import is_dataclass, rebuilt

__all__ = ["own_copy"]


def own_copy(value: Any) -> Any:
    """Return a batch that shares no memory with `value`.

    >>> import torch
    >>> batch = {"x": torch.ones(2), "scale": 3.0}
    >>> own_copy(batch)["x"].mul_(0), batch["x"]
    (tensor([0., 0.]), tensor([1., 1.]))
    >>> layer = torch.nn.Identity()
    >>> own_copy([layer])[0] is layer
    True

    A model may normalise its images in place, or append to a cache of keys and values. The next
    forward on the batch, of this model or of another one, must not meet the changes.

    Parameters
    ----------
    value : object
        Tensors and arrays in tuples, lists, mappings, dataclasses and other objects. Gradients pass
        through copies of tensors. What refuses to be copied is shared: modules, locks, files and
        generators of random numbers. An object that holds such a thing is copied around it.
    """
    return _copied(value, {})


def _copied(value: Any, objects: dict[int, Any]) -> Any:
    """Return the copy; ``objects`` holds those that were copied before, by id."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, Mapping | list | tuple):
        return rebuilt(value, lambda item: _copied(item, objects))
    if is_dataclass(value):
        return _with_own_attributes(value, [f.name for f in dataclasses.fields(value)], objects)
    return _other(value, objects)


def _other(value: Any, objects: dict[int, Any]) -> Any:
    if isinstance(value, nn.Module | type) or not hasattr(value, "__dict__"):
        return value
    try:
        return copy.deepcopy(value)
    except Exception:  # it holds what cannot be copied, such as a lock
        return _with_own_attributes(value, list(vars(value)), objects)


def _with_own_attributes(value: Any, names: list[str], objects: dict[int, Any]) -> Any:
    """Return an object like this one, with copies of these attributes."""
    if id(value) in objects:  # an object may refer to itself
        return objects[id(value)]
    try:
        copied = copy.copy(value)
    except Exception:  # such as a file: the model gets it itself
        return value
    objects[id(value)] = copied
    for name in names:
        # Past the class, which may be frozen.
        object.__setattr__(copied, name, _copied(getattr(value, name), objects))
    return copied
