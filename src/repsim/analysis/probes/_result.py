"""The labelled result of linear probes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from repsim.analysis.probes._state import TestedProbe

if TYPE_CHECKING:
    import xarray

__all__ = ["probe_result"]


def probe_result(
    chosen: Mapping[str, TestedProbe], named: Sequence[str], n_test: int
) -> xarray.Dataset:
    """Return the accuracies of probes of layers (rows) and tokens (columns, named ones first)."""
    import xarray

    found = {name for each in chosen.values() for name in each.names}
    numbers = sorted((n for n in found if n.isdecimal() and n not in named), key=int)
    tokens = {token: at for at, token in enumerate([*named, *numbers])}
    variables = {
        "accuracy": ("probe accuracy", "on test"),
        "standard_error": ("standard error of probe accuracy", "binomial, of n_test samples"),
        "ridge": ("ridge", "λ with the best accuracy on the held-out part of train"),
        "holdout_accuracy": ("held-out accuracy", "maximised over λ"),
    }
    shape = (len(chosen), len(tokens))
    values = {name: np.full(shape, np.nan) for name in variables}
    for row, each in enumerate(chosen.values()):
        accuracy = each.correct / n_test
        for at, token in enumerate(each.names):
            cell = row, tokens[token]
            values["accuracy"][cell] = accuracy[at]
            values["standard_error"][cell] = math.sqrt(accuracy[at] * (1 - accuracy[at]) / n_test)
            values["ridge"][cell] = each.ridge[at]
            values["holdout_accuracy"][cell] = each.holdout_accuracy[at]
    return xarray.Dataset(
        {
            name: (
                ("layer", "token"),
                values[name],
                {"long_name": long, "description": description, "units": "1"},
            )
            for name, (long, description) in variables.items()
        },
        coords={"layer": list(chosen), "token": list(tokens)},
    )
