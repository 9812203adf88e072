"""The ids of the samples of a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from repsim._errors import InputError
from repsim.analysis._call import naming
from repsim.arrays import to_numpy

__all__ = ["SampleIds", "check_sample_ids", "ids_of"]

SampleIds: TypeAlias = Callable[[Any], Any]
"""Type of ``sample_ids=``: a function from a batch to the ids of its samples."""


def check_sample_ids(operation: str, sample_ids: object) -> None:
    """Raise before any work if ``sample_ids`` is not callable."""
    if sample_ids is not None and not callable(sample_ids):
        raise InputError(
            f"{operation}: sample_ids must be a callable from a batch to its ids.\n"
            f"  got {type(sample_ids).__name__}"
        )


def ids_of(operation: str, sample_ids: SampleIds, batch: Any) -> list[Any]:
    """Return the ids of the samples of a batch: one number or string per sample."""
    with naming("sample_ids=", batch):
        ids = sample_ids(batch)
    if isinstance(ids, Tensor | np.ndarray):
        ids = to_numpy(ids).tolist()
    listed = isinstance(ids, list | tuple)
    found = [_plain(each) for each in ids] if listed else []
    strange = [each for each in found if not isinstance(each, int | float | str | bytes)]
    if strange or not listed:
        inside = f" with an item of type {type(strange[0]).__name__}" if strange else ""
        raise InputError(
            f"{operation}: sample_ids must return one number or string per sample.\n"
            f"  got {type(ids).__name__}{inside}\n"
            f"  For example sample_ids=lambda batch: batch[2], of a data set that returns "
            f"(image, label, index)."
        )
    return found


def _plain(each: Any) -> Any:
    """Return a number of NumPy or torch as one of Python."""
    is_number = isinstance(each, np.generic) or (isinstance(each, Tensor) and each.ndim == 0)
    return each.item() if is_number else each
