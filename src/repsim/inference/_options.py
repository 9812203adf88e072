"""The options of a measure for inference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from repsim._errors import InputError
from repsim._typing import Array, Namespace
from repsim.arrays import as_samples, check_finite, namespace, require_same_n, unlabelled
from repsim.measures import Measure

__all__ = ["settings_for", "third_of", "with_groups"]


def settings_for(
    operation: str, measure: Measure, given: Mapping[str, object], groups: Any = None
) -> dict[str, Any]:
    """Return all options of the measure, as where several pairs are compared.

    The groups that an inference keeps together are also those that a measure holds out together.
    """
    settings = with_groups(measure.options_of_many(operation, given), groups)
    if settings.get("given") is not None:
        raise InputError(
            f"{operation}: there is no inference for a partial alignment.\n"
            f"  got given=...\n"
            f"  Permuting y's samples would also undo what y shares with the third one."
        )
    return settings


def with_groups(settings: Mapping[str, Any], groups: Any) -> dict[str, Any]:
    """Return the options with these groups, if the measure takes groups and has none yet.

    Parameters
    ----------
    settings : mapping
        All options of a measure.
    groups : sequence of labels, optional
        Samples that depend on each other, such as the tokens of one input.
    """
    if groups is None or settings.get("groups", groups) is not None:
        return dict(settings)
    return {**settings, "groups": groups}


def third_of(
    operation: str,
    xp: Namespace,
    pair: tuple[Array, Array],
    like: Array,
    minus: Array,
    fewest: tuple[int, str],
) -> Array:
    """Return ``minus=``, a third array of the samples of a pair, as (n, p).

    ``like`` is one of the pair, checked; ``fewest`` are the samples needed, and what needs them.
    """
    *_, minus = unlabelled(operation, {"x": pair[0], "y": pair[1], "minus": minus})
    namespace(operation, x=like, minus=minus)
    require_same_n(operation, "x and minus", ("x", like), ("minus", minus))
    least, why = fewest
    out = as_samples(operation, xp, minus, "minus", min_samples=least, why=why)
    check_finite(operation, xp, out, "minus")
    return out
