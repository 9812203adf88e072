"""Nested states as flat arrays, so a checkpoint needs no pickles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["from_arrays", "to_arrays"]

_REST = "values"
_ARRAY = "__array__"


def to_arrays(state: Any) -> dict[str, Any]:
    """Return the arrays of a nested state by name, and all other values as JSON in one array.

    >>> import numpy as np
    >>> arrays = to_arrays({"sums": [np.arange(2)], "batches": 3})
    >>> sorted(arrays)
    ['array0', 'values']
    >>> from_arrays(arrays)
    {'sums': [array([0, 1])], 'batches': 3}
    """
    arrays: dict[str, Any] = {}

    def without(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            name = f"array{len(arrays)}"
            arrays[name] = value
            return {_ARRAY: name}
        if isinstance(value, Mapping):
            return {_key(str(key)): without(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [without(each) for each in value]
        return value.item() if isinstance(value, np.generic) else value

    text = json.dumps(without(state))
    return {**arrays, _REST: np.frombuffer(text.encode(), dtype=np.uint8)}


def from_arrays(arrays: Mapping[str, Any]) -> Any:
    """Return the nested state that :func:`to_arrays` flattened."""

    def whole(value: dict[str, Any]) -> Any:
        if value.keys() == {_ARRAY}:
            return arrays[value[_ARRAY]]
        return {key[:-1] if key.startswith(_ARRAY) else key: each for key, each in value.items()}

    return json.loads(arrays[_REST].tobytes(), object_hook=whole)


def _key(key: str) -> str:
    """Lengthen a key that could be taken for the mark of an array."""
    return key + "_" if key.startswith(_ARRAY) else key
