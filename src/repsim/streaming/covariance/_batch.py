"""One batch of named activations, checked and in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from repsim._typing import Array
from repsim.arrays import array_namespace, compute_dtype, unlabelled_sides
from repsim.streaming._checks import (
    Sides,
    Widths,
    batch_size,
    in_double,
    named_samples,
    require_features_of_first,
)

__all__ = ["NamedBatch", "named_batch"]


class NamedBatch(NamedTuple):
    """Activations of one batch.

    Attributes
    ----------
    x, y : dict of str to array, shape (n, p)
        By layer, in float64; y is None without a second model.
    widths : tuple
        The layers of both sides and their features.
    double : dict of tuple to bool
        By side ("xs", "ys") and layer: whether the data were float64.
    """

    x: dict[str, Array]
    y: dict[str, Array] | None
    widths: tuple[dict[str, int], dict[str, int] | None]
    double: dict[tuple[str, str], bool]


def named_batch(
    operation: str,
    xs: Mapping[str, Array],
    ys: Mapping[str, Array] | None,
    n_batches: int,
    first: Widths,
    require: Callable[[str, Sides, int], None],
) -> NamedBatch:
    """Check a batch and return it, before anything of it is accumulated.

    Parameters
    ----------
    operation : str
        The caller, for errors.
    xs, ys : mapping of str to array
        What the caller got.
    n_batches : int
        How many batches came before.
    first : tuple
        The layers and features of the first batch, if there was one.
    require : callable
        Raises if values are not finite, or too large for the sums.
    """
    xs, ys = unlabelled_sides(operation, xs=xs, ys=ys)
    x = named_samples(operation, "xs", xs)
    y = None if ys is None else named_samples(operation, "ys", ys)
    widths = _widths(x), None if y is None else _widths(y)
    if n_batches:
        require_features_of_first(operation, first, widths)
    batch_size(operation, xs, ys)
    sides = {"xs": x, "ys": y or {}}
    double = {
        (side, name): _is_double(values)
        for side, arrays in sides.items()
        for name, values in arrays.items()
    }
    x, y = in_double(x), None if y is None else in_double(y)
    require(operation, {"xs": x, "ys": y}, n_batches)
    return NamedBatch(x, y, widths, double)


def _widths(arrays: Mapping[str, Array]) -> dict[str, int]:
    return {name: values.shape[1] for name, values in arrays.items()}


def _is_double(x: Array) -> bool:
    xp = array_namespace(x)
    return bool(compute_dtype(xp, x) == xp.float64)
