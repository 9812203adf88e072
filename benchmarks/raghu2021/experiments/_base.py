"""The parts of an experiment: measurements, their pictures, and findings."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from raghu2021.lab import Lab

__all__ = [
    "Experiment",
    "Finding",
    "Measurement",
    "Picture",
    "Results",
    "by_seed",
    "number",
    "verdict",
]

HOLDS, IN_PART, FAILS, UNDEFINED = "holds", "in part", "does not hold", "undefined"

Results: TypeAlias = Mapping[str, xr.Dataset]
"""Results by the name of their measurement; one that is missing could not be made."""


@dataclass(frozen=True)
class Measurement:
    """One result of one or more models, made once and kept on disk."""

    name: str
    roles: tuple[str, ...]
    measure: Callable[[], xr.Dataset]


@dataclass(frozen=True)
class Picture:
    """A drawn figure, the name of its file, its caption, and its description."""

    name: str
    figure: Figure
    caption: str
    alt: str

    def png(self) -> bytes:
        """The figure as a PNG file."""
        file = io.BytesIO()
        self.figure.savefig(file, format="png", dpi=150)
        return file.getvalue()


@dataclass(frozen=True)
class Finding:
    """A claim of the paper, and its verdict here.

    The criterion is stated before anything is measured; with several seeds each of them
    must meet it, and it is met in part if some seeds or some of its conditions meet it.
    """

    figure: str
    """Which figure of the paper."""
    claim: str
    paper: str
    """What the paper found, in its own terms."""
    criterion: str
    measured: str
    control: str
    verdict: str


class Experiment(Protocol):
    """A module with these functions."""

    def measurements(self, lab: Lab) -> Iterable[Measurement]:
        """The measurements for the available models."""
        ...

    def pictures(self, lab: Lab, results: Results) -> Iterable[Picture]:
        """Draw what has been measured."""
        ...

    def findings(self, lab: Lab, results: Results) -> Iterable[Finding]:
        """Judge the claims of the paper that the models can test."""
        ...


def verdict(met: Iterable[bool], *numbers: float) -> str:
    """Return the verdict on conditions; it is undefined if a number is undefined."""
    met = list(met)
    if not met or any(math.isnan(value) for value in numbers):
        return UNDEFINED
    if all(met):
        return HOLDS
    return IN_PART if any(met) else FAILS


def number(value: float, error: float | None = None, digits: int = 3) -> str:
    """Return a number as text, with its standard error if it has one."""
    text = f"{value:.{digits}f}"
    if error is not None and not math.isnan(error):
        text += f" ± {error:.{digits}f}"
    return text.replace("-", "−")


def by_seed(values: Iterable[float], errors: Iterable[float] | None = None, digits: int = 3) -> str:
    """Return the numbers of several seeds as text: the first, and the others in brackets."""
    values = list(values)
    first, *others = (
        [number(value, None, digits) for value in values]
        if errors is None
        else [number(v, e, digits) for v, e in zip(values, errors, strict=True)]
    )
    if not others:
        return first
    return f"{first} (other seed{'s' * (len(others) > 1)}: {', '.join(others)})"


def panels(count: int, *, width: float, height: float, columns: int = 3) -> tuple[Figure, list]:
    """Return a figure with this number of Axes, in rows."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for ax in axes[count:]:
        ax.set_axis_off()
    return figure, list(axes[:count])
