"""Batches cut to a few samples, wherever a first axis holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repsim.capture._containers import parts_of, rebuilt

__all__ = ["cut", "have_one_size", "length_of_items", "lengths_in", "taken", "uncut_indices"]

Rows = Callable[[int], list[int] | None]
"""Which rows to take of a first axis of this length; None keeps them all."""


def cut(batch: Any, n: int, size: int, *, packed: bool = False) -> Any:
    """Return a batch of `size` samples: the first of `n`, repeated if there are fewer.

    >>> x, lengths = torch.arange(8).reshape(4, 2), [3, 5, 4, 2]
    >>> cut({"x": x, "lengths": lengths, "scale": 2.0}, n=4, size=2)
    {'x': tensor([[0, 1],
            [2, 3]]), 'lengths': [3, 5], 'scale': 2.0}

    Parameters
    ----------
    batch : object
        Tensors, arrays and lists in tuples, lists, mappings and dataclasses. Those whose first axis
        has the length n are cut; other values are returned unchanged.
    n, size : int
        The number of samples that the batch has and shall have.
    packed : bool, default False
        Whether a first axis of k·n holds k rows of each sample.
    """
    return taken(batch, n, [i % n for i in range(size)], packed=packed)


def taken(batch: Any, n: int, rows: Sequence[int], *, packed: bool = False) -> Any:
    """Return a batch of these samples of its n, in this order; see :func:`cut`.

    >>> taken((torch.arange(3), ["a", "b", "c"]), n=3, rows=[2, 0])
    (tensor([2, 0]), ['c', 'a'])
    """

    def of_axis(length: int) -> list[int] | None:
        k, rest = divmod(length, n)
        if rest or k == 0 or (k > 1 and not packed):
            return None
        return [row * k + j for row in rows for j in range(k)]

    return _cut(batch, of_axis)


def lengths_in(batch: Any) -> Iterator[tuple[int, bool]]:
    """Yield the length of every first axis, and whether it is that of a list of like items.

    The order is depth first, a list before its items, and the same for batches of one structure.
    """
    if isinstance(batch, Tensor | np.ndarray):
        if batch.ndim:
            yield (batch.size(0) if isinstance(batch, Tensor) else len(batch)), False
        return
    if isinstance(batch, list) and batch:
        yield len(batch), _are_alike(batch)
    for child in parts_of(batch):
        yield from lengths_in(child)


def length_of_items(batch: Any, n: int) -> int | None:
    """Return the length of the first axis that the images in a list of n have in common.

    They may be n samples, such as videos (frames, channels, height, width), or n crops of each
    sample; the length is then the number of samples. It is None for other lists, and if the length
    is 1 or n.

    >>> frames = torch.zeros(3, 2, 8, 8)
    >>> length_of_items({"pixels": [frames, frames]}, n=2)
    3
    >>> others = [frames, "name"], [frames, frames[:1]], [frames[0], frames[0]], [frames[:2]] * 2
    >>> [length_of_items(each, n=2) for each in others]
    [None, None, None, None]
    """
    if isinstance(batch, list) and len(batch) == n:
        shapes = [tuple(x.shape) for x in batch if isinstance(x, Tensor) and not x.is_nested]
        lengths = {shape[0] if len(shape) > 3 else 1 for shape in shapes}
        if len(shapes) == n and len(lengths) == 1 and not lengths & {1, n}:
            return lengths.pop()
    found = (length_of_items(child, n) for child in parts_of(batch))
    return next((length for length in found if length is not None), None)


def uncut_indices(batch: Any, n: int, *, packed: bool) -> bool:
    """Whether integers remain whole where others are cut: they may count what is cut away.

    >>> counts = torch.tensor([3, 1, 2, 2])
    >>> uncut_indices({"counts": counts}, n=2, packed=False)
    True
    >>> [uncut_indices(each, n=2, packed=False) for each in (counts[:2], counts > 1, counts / 2)]
    [False, False, False]
    >>> [uncut_indices(each, n=2, packed=True) for each in (counts, counts[:3], counts[0])]
    [False, True, False]
    """
    if isinstance(batch, Tensor):
        whole = batch.size(0) != n and not (packed and batch.size(0) % n == 0) if batch.ndim else 0
        return bool(whole) and not batch.is_floating_point() and batch.dtype != torch.bool
    return any(uncut_indices(child, n, packed=packed) for child in parts_of(batch))


def have_one_size(batch: Any, n: int) -> bool:
    """Whether a table of sizes, integers (n, 2) to (n, 4), says that all n samples have one size.

    Only then does a packed axis of k·n hold k rows of each of them.
    """
    if isinstance(batch, Tensor):
        is_table = batch.ndim == 2 and batch.shape[0] == n and 2 <= batch.shape[1] <= 4
        integers = not batch.is_floating_point() and not batch.is_complex()
        return is_table and integers and bool((batch == batch[0]).all())
    return any(have_one_size(child, n) for child in parts_of(batch))


def _cut(value: Any, rows: Rows) -> Any:
    if isinstance(value, Tensor):
        index = rows(value.size(0)) if value.ndim else None
        return value if index is None else _rows_of(value, index)
    if isinstance(value, np.ndarray):
        index = rows(len(value)) if value.ndim else None
        return value if index is None else value[index]
    if isinstance(value, list):
        index = rows(len(value))
        if index is not None:
            return type(value)(value[row] for row in index)
    plain = isinstance(value, tuple) and not hasattr(value, "_fields")
    if plain and value and all(isinstance(item, str | bytes) for item in value):
        index = rows(len(value))  # names of samples, as the default collation returns them
        return value if index is None else tuple(value[row] for row in index)
    return rebuilt(value, partial(_cut, rows=rows))


def _rows_of(tensor: Tensor, rows: list[int]) -> Tensor:
    """Copy rows: a model may overwrite its input."""
    if tensor.is_nested:
        parts = tensor.unbind()
        return torch.nested.as_nested_tensor([parts[row] for row in rows], layout=tensor.layout)
    return tensor.index_select(0, torch.tensor(rows, device=tensor.device))


def _are_alike(items: list[Any]) -> bool:
    """Whether a list may hold one item for each sample."""
    if len({type(item) for item in items}) > 1:
        return False
    return len({item.ndim for item in items if isinstance(item, Tensor | np.ndarray)}) < 2
