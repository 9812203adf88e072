"""The options of a measure for inference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from repsim._errors import InputError
from repsim.measures import Measure

__all__ = ["settings_for"]


def settings_for(
    operation: str, measure: Measure, given: Mapping[str, object], groups: Any = None
) -> dict[str, Any]:
    """Return all options of the measure, as where several pairs are compared.

    The groups that an inference keeps together are also those that a measure holds out together.
    """
    settings = measure.options_of_many(operation, given)
    if groups is not None and "groups" in settings:
        settings["groups"] = groups
    if settings.get("given") is not None:
        raise InputError(
            f"{operation}: there is no inference for a partial alignment.\n"
            f"  got given=...\n"
            f"  Permuting y's samples would also undo what y shares with the third one."
        )
    return settings
