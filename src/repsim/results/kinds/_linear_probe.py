"""Accuracy of linear probes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from repsim.results._findings import Finding, Table
from repsim.results._kind import Kind, Variable
from repsim.results._reading import model_of, names_of, optional_values, values_of
from repsim.results._registry import register
from repsim.results._text import percent

if TYPE_CHECKING:
    import xarray

__all__ = ["LINEAR_PROBE", "SingleTokens", "chosen_tokens", "single_tokens"]

PROBES = ("layer", "token")

VARIABLES = {
    "accuracy": Variable(PROBES, "probe accuracy", "on test"),
    "standard_error": Variable(
        PROBES,
        "standard error of probe accuracy",
        "binomial; of tokens by sequence",
    ),
    "ridge": Variable(PROBES, "ridge", "λ with the best accuracy on the held-out part of train"),
    "holdout_accuracy": Variable(PROBES, "held-out accuracy", "maximised over λ"),
}


def chosen_tokens(result: xarray.Dataset) -> dict[int, str]:
    """Return the choices that are not single tokens: place along "token", and label."""
    return {
        at: token.replace("_", " ").replace("cls", "CLS")
        for at, token in enumerate(names_of(result, "token"))
        if not token.isdigit()
    }


class SingleTokens(NamedTuple):
    """Accuracy (layer) of the probes of single tokens, NaN for a layer that has none."""

    low: Any
    median: Any
    high: Any
    names: list[str]


def single_tokens(result: xarray.Dataset, variable: str = "accuracy") -> SingleTokens | None:
    """Summarise the probes of single tokens, whose names are numbers; None if there are none."""
    names = names_of(result, "token")
    single = [at for at, token in enumerate(names) if token.isdigit()]
    if not single:
        return None
    values = values_of(result, variable, *PROBES)[:, single]
    out = np.full((3, len(values)), np.nan)
    for i, row in enumerate(values):
        known = row[np.isfinite(row)]
        if known.size:
            out[:, i] = known.min(), np.median(known), known.max()
    low, median, high = out
    return SingleTokens(low, median, high, [names[at] for at in single])


def findings(result: xarray.Dataset) -> list[Finding]:
    """Return the best layer of each choice of tokens, single tokens of the last layer, chance."""
    layers = names_of(result, "layer")
    accuracy = values_of(result, "accuracy", *PROBES)
    errors = optional_values(result, "standard_error", *PROBES)
    found = []
    for j, label in chosen_tokens(result).items():
        if np.isfinite(accuracy[:, j]).any():
            best = int(np.nanargmax(accuracy[:, j]))
            text = f"{accuracy[best, j]:.1%}"
            # Where all answers are right the estimate of the error is zero, which bounds nothing.
            if errors is not None and errors[best, j] > 0:
                error = float(errors[best, j])
                text += f" ± {error:.1%}" if error >= 0.0005 else " ± <0.1%"
            found.append(Finding(f"best accuracy, {label}", text, layers[best]))
    single = single_tokens(result)
    if single is not None and np.isfinite(single.median[-1]):
        found.append(
            Finding(
                "accuracy of single tokens, median, last layer",
                percent(single.median[-1]),
                f"{percent(single.low[-1])} to {percent(single.high[-1])}",
            )
        )
    if "chance" in result.attrs:
        found.append(Finding("most frequent class", f"{float(result.attrs['chance']):.1%}"))
    return found


def table(result: xarray.Dataset) -> Table:
    """Return the accuracy of each layer and choice of tokens."""
    rows: list[list[object]] = [
        [name, *map(float, row)]
        for name, row in zip(
            names_of(result, "layer"), values_of(result, "accuracy", *PROBES), strict=True
        )
    ]
    title = f"Accuracy of a linear probe, {model_of(result)}"
    if "chance" in result.attrs:
        title += f", chance {float(result.attrs['chance']):.3f}"
    return Table(title, ["layer", *names_of(result, "token")], rows)


LINEAR_PROBE = register(
    Kind("linear_probe", "Linear probe", VARIABLES, ("accuracy",), findings, table)
)
