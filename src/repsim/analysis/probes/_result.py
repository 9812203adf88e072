"""The labelled result of linear probes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from repsim.analysis.probes._state import TestedProbe
from repsim.results import LINEAR_PROBE

if TYPE_CHECKING:
    import xarray

__all__ = ["probe_result"]


def probe_result(
    chosen: Mapping[str, TestedProbe], named: Sequence[str], n_test: int
) -> xarray.Dataset:
    """Return the accuracies of probes of layers (rows) and tokens (columns, named ones first)."""
    found = {name for each in chosen.values() for name in each.names}
    numbers = sorted((n for n in found if n.isdecimal() and n not in named), key=int)
    tokens = {token: at for at, token in enumerate([*named, *numbers])}
    shape = (len(chosen), len(tokens))
    values = {name: np.full(shape, np.nan) for name in LINEAR_PROBE.variables}
    for row, each in enumerate(chosen.values()):
        accuracy = each.correct / n_test
        error = np.sqrt(accuracy * (1 - accuracy) / n_test)
        if each.by_sequence.n:  # tokens of one sequence are dependent
            error = each.by_sequence.result()[1]
        for at, token in enumerate(each.names):
            cell = row, tokens[token]
            values["accuracy"][cell] = accuracy[at]
            values["standard_error"][cell] = error[at]
            values["ridge"][cell] = each.ridge[at]
            values["holdout_accuracy"][cell] = each.holdout_accuracy[at]
    return LINEAR_PROBE.dataset(values, {"layer": list(chosen), "token": list(tokens)})
