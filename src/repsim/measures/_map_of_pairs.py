"""The map of a measure over all pairs of prepared representations, with its warning of chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace

from repsim._typing import Array
from repsim._version import __version__
from repsim.arrays import accumulator_dtype, scalar, to_numpy
from repsim.estimators import HIGH_FLOOR, warn_of_chance
from repsim.measures._registry import Item, Measure
from repsim.results import attribute, map_of_layers

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
    half = names_y is None and measure.symmetric
    values: dict[tuple[str, str], Array] = {}
    floors: dict[str, Array] = {}
    for i, a in enumerate(names_x):
        for j, b in enumerate(columns):
            if half and j < i:  # known already, and the same up to rounding
                values[a, b] = values[b, a]
                continue
            item_x, item_y, dtype = pair(a, other, b)
            value = measure.compare(item_x, item_y, **settings)
            values[a, b] = scalar(array_namespace(value), value, dtype)
            if measure.floor is not None and item_x is not item_y:
                floor = measure.floor(item_x, item_y, **settings)
                if floor is not None:
                    floors[f"xs[{a!r}] with {other}[{b!r}]"] = floor
    _warn_of_the_highest(operation, measure, floors)
    return map_of_layers(
        np.reshape(_to_host(list(values.values())), (len(names_x), len(columns))),
        names_x,
        columns,
        measure.name,
        {
            "long_name": measure.name.replace("_", " "),
            "units": measure.units,
            "measure": measure.name,
            "kind": "similarity" if measure.similarity else "dissimilarity",
            **{name: attribute(value) for name, value in settings.items()},
            "n_samples": n,
            "repsim_version": __version__,
        },
    )


def _warn_of_the_highest(operation: str, measure: Measure, floors: dict[str, Array]) -> None:
    """Warn once of the pair that independent data would make most alike."""
    if measure.floor_words is None or not floors:
        return
    read = np.nan_to_num(_to_host(list(floors.values())))
    worst = int(np.argmax(read))
    if read[worst] > HIGH_FLOOR:
        where = f" for {list(floors)[worst]}"
        warn_of_chance(operation, measure.floor_words, float(read[worst]), where)


def _to_host(values: list[Array]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Read all values at once, which waits once for an accelerator and not once per pair."""
    xp = array_namespace(values[0])
    wide = accumulator_dtype(xp, values[0])
    stacked = xp.stack([xp.astype(value, wide, copy=False) for value in values])
    return np.asarray(to_numpy(stacked), dtype=np.float64)
