"""A value with its standard error and confidence interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from repsim._options import as_number

__all__ = ["Interval", "check_level", "difference_of", "interval", "p_value_of"]

Values = np.ndarray[Any, np.dtype[np.float64]]

ROUNDING = 64 * float(np.finfo(np.float64).eps)
"""Two similarities of float64 that differ by less are equal up to rounding."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Interval:
    """A value with its standard error, interval and replicates.

    Attributes
    ----------
    measure : str
        Name of the measure, such as "cka", or of what is estimated, such as "cka difference".
    similarity : bool
        Whether large values of the measure mean alike; False for a dissimilarity.
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
    p_value : float
        Of a difference (``minus=``): that of the hypothesis that both have the same value,
        two-sided, from the distribution that the interval assumes. It is at most 1 − level if zero
        is outside the interval. NaN of a single value.
    """

    measure: str
    similarity: bool
    value: float
    standard_error: float
    low: float
    high: float
    level: float
    replicates: Values
    n_samples: int
    n_groups: int | None
    p_value: float

    def __contains__(self, value: float) -> bool:
        """Whether a value lies in the interval, including its ends."""
        return self.low <= value <= self.high

    def __repr__(self) -> str:
        p_value = "" if math.isnan(self.p_value) else f", p_value={self.p_value:.4g}"
        return (
            f"Interval({self.measure}={self.value:.4f} ± {self.standard_error:.4f}, "
            f"{100 * self.level:.6g}% in [{self.low:.4f}, {self.high:.4f}]{p_value})"
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
    if not fisher:
        return value - q * error, value + q * error
    left = 1 - value * value
    if left <= 1e-12:  # all replicates are equal up to rounding too
        return value, value
    if not math.isfinite(error_z):
        error_z = error / left
    centre = math.atanh(value)
    return math.tanh(centre - q * error_z), math.tanh(centre + q * error_z)


def difference_of(value: float, other: float, rounding: float = ROUNDING) -> float:
    """Return value − other, or zero for rounding, which the rounding of replicates cannot judge."""
    difference = value - other
    return 0.0 if abs(difference) <= rounding else difference


def p_value_of(difference: float, error: float, freedom: int | None = None) -> float:
    """Return the two-sided p-value of a difference, from the distribution of :func:`interval`."""
    if math.isnan(error) or difference == 0:
        return error if math.isnan(error) else 1.0
    z = abs(difference) / error if error > 0 else math.inf
    if freedom is None:
        return math.erfc(z / math.sqrt(2))
    from scipy.special import stdtr

    return 2 * float(stdtr(freedom, -z))
