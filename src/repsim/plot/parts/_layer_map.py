"""The description of a map of layers by layers."""

from __future__ import annotations

from textwrap import wrap

import xarray as xr

from repsim.plot.parts._plain import plain
from repsim.results import layer_map, layer_names, model_name
from repsim.results import measure_label as _on_one_line

__all__ = ["layer_map", "layer_names", "measure_label", "model_name"]

LABEL_WIDTH = 36
"""Characters of a line beside the colour bar."""


def measure_label(array: xr.DataArray) -> str:
    """Return which similarity this is, with kernel and estimator: "CKA (linear, unbiased)".

    A long description is broken into lines, because it must not be longer than the colour bar.
    """
    return plain("\n".join(wrap(_on_one_line(array), LABEL_WIDTH)))
