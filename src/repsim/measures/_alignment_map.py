"""The map of layers of two of several models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from repsim._errors import InputError
from repsim._options import got
from repsim.results import ALIGNMENT, measured_map, names_of

if TYPE_CHECKING:
    import xarray

__all__ = ["alignment_map"]


def alignment_map(result: xarray.Dataset, model_x: str, model_y: str) -> xarray.Dataset:
    """Return every layer of one model with every layer of another, from a result of `alignment`.

    >>> import numpy as np, repsim
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((40, 6))
    >>> models = {"a": {"1": x, "2": x**3}, "b": {"1": x[:, ::-1], "2": x**2, "3": abs(x)}}
    >>> result = repsim.alignment(models, permutations=0, progress=False)
    >>> repsim.alignment_map(result, "a", "b").mutual_knn.round(2).values.tolist()[0]
    [1.0, 0.39, 0.39]

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`repsim.alignment` returned.
    model_x, model_y : str
        Names of two of its models, or one name twice.

    Returns
    -------
    xarray.Dataset
        As :func:`repsim.compare` returns it: a variable of the measure's name, dims ("layer_x",
        "layer_y"). Pictures and pages of maps take it.

    Raises
    ------
    InputError
        There is no such model, or `result` is another result.

    Notes
    -----
    Cost: a copy of the map.

    References
    ----------
    Huh, Cheung, Wang, Isola 2024, arXiv:2405.07987.
    """
    import xarray

    if not isinstance(result, xarray.Dataset) or not ALIGNMENT.fits(result):
        raise InputError(
            f"alignment_map: result must be what repsim.alignment returned.\n"
            f"  got {type(result).__name__}"
        )
    for dim, name in (("model_x", model_x), ("model_y", model_y)):
        names = names_of(result, dim)
        if not isinstance(name, str) or name not in names:
            raise InputError(
                f"alignment_map: result has no model {got(name)}.\n"
                f"  {dim}: {', '.join(map(repr, names))}"
            )
    here = result.sel(model_x=model_x, model_y=model_y)
    xs, ys = ([str(each) for each in here[f"layers_{side}"].values if each] for side in "xy")
    values = here["layer_map"].transpose("place_x", "place_y").values[: len(xs), : len(ys)]
    attrs = result["score"].attrs
    found = measured_map(values, xs, ys, {**attrs, "long_name": attrs["of_layers"]}, {})
    return found.assign_attrs(
        {**result.attrs, "model_x": model_x, "model_y": model_y, "measure": attrs["measure"]}
    )
