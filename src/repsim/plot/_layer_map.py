"""From what a caller holds to the one thing the pictures draw: a map of layers by layers."""

from __future__ import annotations

from textwrap import wrap

import xarray as xr

from repsim.measures import layer_map

__all__ = ["layer_map", "layer_names", "measure_label", "model_name"]

LABEL_WIDTH = 36
"""Characters of a line beside the colour bar."""


def layer_names(array: xr.DataArray, dim: str) -> list[str]:
    """Return the names along `dim`, in execution order; positions where there are no names."""
    return [str(name) for name in array[dim].values]


def model_name(array: xr.DataArray, side: str) -> str:
    """Return the name of the model on `side` ("x" or "y"), or the side where it has none."""
    return str(array.attrs.get(f"model_{side}") or side)


def measure_label(array: xr.DataArray) -> str:
    """Return which similarity this is, with kernel and estimator: "CKA (linear, unbiased)".

    A long one is broken into lines: it stands beside a bar, and must not be longer than that.
    """
    name = str(array.attrs.get("long_name", array.name))
    name = "CKA" if name == "cka" else name.replace("_", " ")
    options = [str(array.attrs[key]) for key in ("kernel", "estimator") if array.attrs.get(key)]
    # A kernel is given as it is made, Linear(); its parentheses say nothing where they are empty.
    options = [option.lower() if option.endswith("()") else option for option in options]
    text = f"{name} ({', '.join(o.removesuffix('()') for o in options)})" if options else name
    return "\n".join(wrap(text, LABEL_WIDTH))
