"""A value with its standard error and an interval, on the scale on which it is most normal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from repsim._errors import InputError

__all__ = ["Interval", "check_level", "interval"]

Values = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Interval:
    """A value, how well it is known, and from what.

    Attributes
    ----------
    measure : str
        Name of the measure.
    value : float
        Of all samples, in the measure's unit.
    standard_error : float
        In the measure's unit.
    low, high : float
        Ends of the interval.
    level : float
        Probability with which such intervals are meant to contain the population's value.
    replicates : array, shape (k,), float64
        The value without each sample (group), or for each half of them.
    n_samples : int
        n.
    n_groups : int or None
        How many groups were left out or drawn whole.
    """

    measure: str
    value: float
    standard_error: float
    low: float
    high: float
    level: float
    replicates: Values
    n_samples: int
    n_groups: int | None

    def __contains__(self, value: float) -> bool:
        """Whether a value lies in the interval, ends included."""
        return self.low <= value <= self.high

    def __repr__(self) -> str:
        return (
            f"Interval({self.measure}={self.value:.4f} ± {self.standard_error:.4f}, "
            f"{self.level:.0%} in [{self.low:.4f}, {self.high:.4f}])"
        )


def check_level(operation: str, level: float) -> float:
    """Return the level of an interval, or say that it is none."""
    if isinstance(level, float) and 0 < level < 1:
        return level
    raise InputError(
        f"{operation}: level must be a probability in (0, 1).\n  got {level!r}\n"
        f"  For 95 %: level=0.95."
    )


def interval(
    value: float, error: float, error_z: float, level: float, *, fisher: bool
) -> tuple[float, float]:
    """Return the ends of a normal interval, of a correlation on Fisher's scale.

    Parameters
    ----------
    value, error : float
        Value and standard error.
    error_z : float
        Standard error of artanh(value); not finite where a replicate is ±1, and error/(1 − value²)
        then takes its place.
    level : float
        In (0, 1).
    fisher : bool
        tanh(artanh(value) ± q error_z), which stays within (−1, 1); otherwise value ± q error.
    """
    from statistics import NormalDist

    q = NormalDist().inv_cdf((1 + level) / 2)
    if math.isnan(value) or not fisher:
        return value - q * error, value + q * error
    left = 1 - value * value
    if left <= 1e-12:  # the same up to rounding, without any sample too
        return value, value
    if not math.isfinite(error_z):
        error_z = error / left
    centre = math.atanh(value)
    return math.tanh(centre - q * error_z), math.tanh(centre + q * error_z)
