"""The map of a measure over all pairs of prepared representations, with its warning of chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from repsim._typing import Array
from repsim.measures._registry import Item, Measure
from repsim.measures.pairs import (
    attrs_of_measure,
    values_of_pairs,
    warn_of_highest,
    without_infinite,
)
from repsim.results import map_of_layers

if TYPE_CHECKING:
    import xarray

__all__ = ["map_of_pairs"]


def map_of_pairs(
    operation: str,
    measure: Measure,
    settings: dict[str, object],
    names_x: Sequence[str],
    names_y: Sequence[str] | None,
    pair: Callable[[str, str, str], tuple[Item, Item, Any]],
    n: int,
) -> xarray.DataArray:
    """Compare prepared items of all pairs, and return the values with names and attributes.

    >>> from repsim.measures import MEASURES, map_of_pairs
    >>> import numpy as np
    >>> measure, x = MEASURES["nbs"], np.array([[0.0, 1.0], [2.0, 0.0], [1.0, 3.0]])
    >>> arrays = {"a": x, "b": 2 * x}
    >>> items = {name: measure.prepare("mine", z, name=name) for name, z in arrays.items()}
    >>> pair = lambda name_x, side_y, name_y: (items[name_x], items[name_y], x.dtype)
    >>> map_of_pairs("mine", measure, {}, ["a", "b"], None, pair, n=3).values.round(6).tolist()
    [[1.0, 1.0], [1.0, 1.0]]

    The last step of :func:`repsim.pairwise` and :class:`repsim.StreamingCovariance`.

    Parameters
    ----------
    operation : str
        The first word of the warning.
    measure : Measure
        What compares.
    settings : dict
        All its options.
    names_x, names_y : sequence of str
        The names of both sides; without ``names_y`` those of x are compared with each other.
    pair : callable
        ``pair(name_x, side_y, name_y)`` → two items and the dtype of the value; ``side_y`` is
        ``"xs"`` where x is compared with itself, else ``"ys"``.
    n : int
        Samples.

    Returns
    -------
    xarray.DataArray, dims ("layer_x", "layer_y")
        As :func:`repsim.pairwise` returns it.

    Warns
    -----
    ChanceWarning
        Once, of the pair with the highest value by chance, if the measure's function warns of it.
    """
    other = "xs" if names_y is None else "ys"
    columns = names_x if names_y is None else names_y
    floors: dict[str, Array] = {}
    values = values_of_pairs(
        measure,
        settings,
        names_x,
        columns,
        lambda a, b: pair(a, other, b),
        lambda a, b: f"xs[{a!r}] with {other}[{b!r}]",
        floors,
        half=names_y is None and measure.symmetric,
    )
    warn_of_highest(operation, measure, floors)
    attrs = attrs_of_measure(measure, settings, n)
    values = without_infinite(operation, values)
    return map_of_layers(values, names_x, columns, measure.name, attrs)
