"""An interval over several subjects, with what its standard error consists of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from repsim.inference._interval import Interval

__all__ = ["SubjectsInterval", "p_value_of_t"]

Values = np.ndarray[Any, np.dtype[np.float64]]

ROUNDING = 64 * float(np.finfo(np.float64).eps)
"""Two values that differ by less are equal up to rounding."""


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class SubjectsInterval(Interval):
    """An interval of the mean over subjects, with what its standard error consists of.

    Attributes
    ----------
    resampled : str
        "conditions", "subjects" or "both".
    by_subject : array, shape (subjects,), float64
        The value of each subject; ``value`` is their mean.
    error_of_conditions, error_of_subjects : float
        Standard error if only conditions, or only subjects, were others; NaN where they are not.
    n_subjects : int
        Subjects; ``n_samples`` is the number of conditions.
    p_value : float
        With ``minus``: that of the hypothesis that both models are equally similar, two-sided, from
        Student's t. It is at most 1 − level if zero is outside the interval. NaN without ``minus``.
    """

    resampled: str
    by_subject: Values
    error_of_conditions: float
    error_of_subjects: float
    n_subjects: int
    p_value: float


def p_value_of_t(value: float, error: float, freedom: int) -> float:
    """Return the two-sided p-value of Student's t; equal values are no evidence."""
    from scipy.special import stdtr

    if abs(value) <= ROUNDING:
        return 1.0
    with np.errstate(divide="ignore"):
        return float(2 * stdtr(freedom, -np.divide(abs(value), error)))
