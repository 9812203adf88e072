"""A value with its standard error and confidence interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from repsim._options import as_number

__all__ = ["Interval", "check_level", "interval"]

Values = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Interval:
    """A value with its standard error, interval and replicates.

    Attributes
    ----------
    measure : str
        Name of the measure.
    value : float
        The value of all samples, in the measure's unit.
    standard_error : float
        In the measure's unit.
    low, high : float
        Ends of the interval.
    level : float
        Nominal probability that such an interval contains the population value.
    replicates : array, shape (k,), float64
        The value without each sample (group), or of each half.
    n_samples : int
        n.
    n_groups : int or None
        Number of groups that were left out or drawn as a whole.
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
        """Whether a value lies in the interval, including its ends."""
        return self.low <= value <= self.high

    def __repr__(self) -> str:
        return (
            f"Interval({self.measure}={self.value:.4f} ± {self.standard_error:.4f}, "
            f"{100 * self.level:.6g}% in [{self.low:.4f}, {self.high:.4f}])"
        )


def check_level(operation: str, level: float) -> float:
    """Return the level of an interval, or raise if it is none."""
    return as_number(operation, "level", level, above=0, below=1, hint="For 95 %: level=0.95.")


def interval(
    value: float,
    error: float,
    error_z: float,
    level: float,
    *,
    fisher: bool,
    freedom: int | None = None,
) -> tuple[float, float]:
    """Return the ends of a normal interval, of a correlation on Fisher's scale.

    Parameters
    ----------
    value, error : float
        Value and standard error.
    error_z : float
        Standard error of artanh(value). If a replicate is ±1 it is not finite, and error/(1 −
        value²) is used instead.
    level : float
        In (0, 1).
    fisher : bool
        If true, tanh(artanh(value) ± q error_z), which stays within (−1, 1); otherwise value ± q
        error.
    freedom : int, optional
        Degrees of freedom of Student's t, whose quantile q is; the normal one without.
    """
    from statistics import NormalDist

    if freedom is None:
        q = NormalDist().inv_cdf((1 + level) / 2)
    else:
        from scipy.special import stdtrit

        q = float(stdtrit(freedom, (1 + level) / 2))
    if math.isnan(value) or not fisher:
        return value - q * error, value + q * error
    left = 1 - value * value
    if left <= 1e-12:  # all replicates are equal up to rounding too
        return value, value
    if not math.isfinite(error_z):
        error_z = error / left
    centre = math.atanh(value)
    return math.tanh(centre - q * error_z), math.tanh(centre + q * error_z)
