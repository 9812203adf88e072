"""The description of a map of layers by layers, or of models by models."""

from __future__ import annotations

from textwrap import wrap
from typing import Any

import xarray as xr

from repsim.plot.parts._plain import plain
from repsim.results import layer_map, layer_names, model_names, side_titles
from repsim.results import measure_label as _on_one_line

__all__ = ["as_layers", "layer_map", "layer_names", "measure_label", "model_names", "side_titles"]

SCORE = "score"
"""The variable of a map of models by models."""

LABEL_WIDTH = 36
"""Characters of a line beside the colour bar."""


def as_layers(result: Any) -> tuple[Any, bool]:
    """Return a map of models by models with the dimensions of layers, and whether it is one.

    Of a Dataset its variable "score" is taken. Any other result is returned as it is.
    """
    array = result
    if isinstance(result, xr.Dataset) and SCORE in result.data_vars:
        array = result[SCORE].assign_attrs({**result.attrs, **result[SCORE].attrs})
    if not isinstance(array, xr.DataArray) or set(array.dims) != {"model_x", "model_y"}:
        return result, False
    array = array.drop_vars(set(array.coords) - {"model_x", "model_y"})
    return array.rename(model_x="layer_x", model_y="layer_y"), True


def measure_label(
    array: xr.DataArray, *, direction: bool = False, characters: int = LABEL_WIDTH
) -> str:
    """Return which similarity this is, with kernel and estimator: "CKA (linear, unbiased)".

    A long description is broken into lines, because it must not be longer than the colour bar.
    """
    return plain("\n".join(wrap(_on_one_line(array, direction=direction), characters)))
