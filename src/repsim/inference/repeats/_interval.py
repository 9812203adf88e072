"""An interval over several subjects, with what its standard error consists of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from repsim.inference._interval import Interval

__all__ = ["SubjectsInterval"]

Values = np.ndarray[Any, np.dtype[np.float64]]


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
    """

    resampled: str
    by_subject: Values
    error_of_conditions: float
    error_of_subjects: float
    n_subjects: int
