"""The samples of a batch that no rank has seen before, and batches cut to them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor

from repsim._errors import InputError
from repsim.analysis._call import keywords_in
from repsim.analysis.run._drive import Batch
from repsim.capture import parts_of
from repsim.capture.samples import have_one_size, lengths_in, taken

__all__ = ["NewSamples"]


@dataclass(frozen=True)
class NewSamples:
    """The rows of a batch whose samples no rank has seen before in the pass.

    Attributes
    ----------
    rows : list of int
        The rows that count.
    n_ids : int
        The number of rows of the batch, by the ids.
    ids : list
        The ids of the rows that count.
    """

    rows: list[int]
    n_ids: int
    ids: list[Any] = field(default_factory=list)

    def of(self, batch: Batch) -> Batch | None:
        """Return the batch with these samples only; None if there are none.

        Raises
        ------
        InputError
            Which parts of the batch belong to which sample is unclear.
        """
        if not self.rows:
            return None
        if len(self.rows) == self.n_ids:
            return replace(batch, ids=self.ids)
        value, n = batch.value, self.n_ids
        problem = _problem(value, n)
        if problem is not None:
            raise InputError(
                f"{batch.operation}: batch {batch.number} (counted from 0) has samples that were "
                f"counted before, and cannot be cut to the {len(self.rows)} others of its {n}.\n"
                f"  {problem}\n"
                "  Return tensors or lists whose first axis holds the samples. Or distribute the "
                "data so that no\n  sample comes twice, and leave sample_ids out."
            )
        packed = have_one_size(value, n)
        if _is_structure(value):
            cut: Any = type(value)(taken(each, n, self.rows, packed=packed) for each in value)
        else:
            cut = taken(value, n, self.rows, packed=packed)
        return replace(batch, value=cut, ids=self.ids)


def _is_structure(batch: Any) -> bool:
    """Whether a list is what the default collation returns, (inputs, labels, ids)."""
    if not isinstance(batch, list) or not batch:
        return False
    return isinstance(batch[0], Tensor) or keywords_in(batch) is batch[0]


def _problem(batch: Any, n: int) -> str | None:
    """Return why a batch cannot be cut by the first axes of n; None if it can."""
    lengths = [length for length, _ in lengths_in(batch)]
    if n not in lengths:
        return f"the lengths of its first axes are {lengths[:8]}"
    packed = have_one_size(batch, n)
    if isinstance(batch, list | tuple) and isinstance(batch[0], Tensor):
        first = len(batch[0]) if batch[0].ndim else 0
        if first != n and not (packed and first and first % n == 0):
            return f"its first item, the input of the model, has {first} rows"
    for shape in _shapes(batch):
        if shape[0] > n and shape[0] % n == 0 and not packed:
            return f"an axis of {shape[0]} may hold {shape[0] // n} rows of each sample"
        if shape[0] != n and n in shape[1:2]:
            return f"axis 1 of a tensor {shape} may hold the samples"
    children = batch if isinstance(batch, tuple) or _is_structure(batch) else (batch,)
    return next((found for each in children if (found := _unclear(each, n))), None)


def _unclear(value: Any, n: int) -> str | None:
    """Return why a part of a batch is unclear: a sequence of n that may be samples or parts."""
    if isinstance(value, tuple) and len(value) == n and not hasattr(value, "_fields"):
        if all(isinstance(each, str | bytes) for each in value):
            return None
        return f"it holds a tuple of {n}, which may be samples or parts of them"
    if isinstance(value, list) and len(value) == n:
        if all(n in (length for length, _ in lengths_in(each)) for each in value):
            return f"it holds a list of {n}, which may be samples or parts of them"
        return None
    return next((found for each in parts_of(value) if (found := _unclear(each, n))), None)


def _shapes(value: Any) -> Iterator[tuple[int, ...]]:
    """Yield the shapes of tensors and arrays that are not the samples of a list."""
    if isinstance(value, Tensor | np.ndarray):
        if value.ndim and not getattr(value, "is_nested", False):
            yield tuple(value.shape)
    elif not isinstance(value, list) or _is_structure(value):
        for each in parts_of(value):
            yield from _shapes(each)
