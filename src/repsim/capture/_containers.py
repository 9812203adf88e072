"""What models take and return: tensors in tuples, lists, mappings and dataclasses."""

from __future__ import annotations

import copy
import dataclasses
from collections import UserDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

__all__ = ["is_dataclass", "parts_of", "rebuilt", "tensors_in"]


def tensors_in(value: object) -> Iterator[Tensor]:
    """Yield the tensors in nested tuples, lists, mappings and dataclasses, depth first, in order.

    Parameters
    ----------
    value : object
        What a module gets or returns.

    Yields
    ------
    torch.Tensor
        Each tensor; values that are neither tensors nor containers are skipped.
    """
    if isinstance(value, Tensor):
        yield value
        return
    for part in parts_of(value):
        yield from tensors_in(part)


def parts_of(value: Any) -> Iterator[Any]:
    """Yield the items of a mapping, a sequence or a dataclass; nothing for other values.

    >>> list(parts_of({"a": 1, "b": [2]}))
    [1, [2]]

    Parameters
    ----------
    value : object
        Anything.

    Yields
    ------
    object
        Its parts, in order; not the parts of these.
    """
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, tuple | list):
        yield from value
    elif is_dataclass(value):
        yield from (getattr(value, field.name) for field in dataclasses.fields(value))


def rebuilt(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return a container of the same class with changed parts; other values as they are.

    >>> rebuilt({"a": 1, "b": [2]}, lambda part: part * 2)
    {'a': 2, 'b': [2, 2]}

    Parameters
    ----------
    value : object
        A mapping, a list, a tuple or a dataclass. A mapping that is neither a dict nor a UserDict
        becomes a dict.
    change : callable
        Returns what takes the place of a part.

    Returns
    -------
    object
        The new container; ``value`` itself if it is none, or a dataclass whose parts all stay.
    """
    if isinstance(value, Mapping):
        return _like(value, {key: change(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        items = [change(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if is_dataclass(value):
        names = [each.name for each in dataclasses.fields(value) if each.init]
        changed = {
            name: new for name in names if (new := change(part := getattr(value, name))) is not part
        }
        return dataclasses.replace(value, **changed) if changed else value
    return value


def is_dataclass(value: Any) -> bool:
    """Whether a value is an instance of a dataclass, and not the class."""
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _like(mapping: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    """Return a mapping of these items, with the class and the attributes of another one."""
    if isinstance(mapping, UserDict):  # as the encodings of tokenisers
        copied: Any = copy.copy(mapping)
        copied.data = items
        return copied
    if type(mapping) is dict or not isinstance(mapping, dict):
        return items
    copied = copy.copy(mapping)  # as the outputs of transformers, whose items are attributes too
    for key, item in items.items():
        copied[key] = item
    return copied
