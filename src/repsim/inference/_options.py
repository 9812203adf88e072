"""The options of a measure for inference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from repsim._errors import InputError
from repsim.measures import Measure

__all__ = ["settings_for"]


def settings_for(operation: str, measure: Measure, given: Mapping[str, object]) -> dict[str, Any]:
    """Return all options of the measure; the estimator is unbiased unless it is given.

    Measures default to the biased estimator, as the papers do. It is above zero by chance, by an
    amount that depends on n, so values of halves of the samples could not be compared with values
    of all.
    """
    settings = measure.options(operation, given)
    if settings.get("given") is not None:
        raise InputError(
            f"{operation}: there is no inference for a partial alignment.\n"
            f"  got given=...\n"
            f"  Permuting y's samples would also undo what y shares with the third one."
        )
    if "estimator" in settings and "estimator" not in {**given, **measure.preset}:
        settings["estimator"] = "unbiased"
    return settings
