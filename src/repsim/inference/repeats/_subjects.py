"""Arrays of several subjects or repeats of the same samples, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from repsim._errors import ArrayTypeError, InputError
from repsim._options import got, require_choice
from repsim._typing import Array
from repsim.arrays import as_samples, check_finite, common_namespace, unlabelled
from repsim.measures import Measure

__all__ = ["CONDITIONS", "named_subjects", "refuse_several", "resolve_resample"]

CONDITIONS, SUBJECTS = 8, 3
"""The fewest for which coverage was measured."""

RESAMPLED = ("conditions", "subjects", "both")
"""What an interval may be about: others of these."""


def refuse_several(operation: str, x: Any) -> None:
    """Raise if the model is several arrays, as those of the subjects are."""
    members = list(x.values()) if isinstance(x, dict) else x
    if isinstance(members, list | tuple) and all(hasattr(each, "shape") for each in members):
        raise ArrayTypeError(
            f"{operation}: x must be one array, that of the model.\n  got a {type(x).__name__}\n"
            f"  Pass the subjects as ys: {operation}(model, subjects)."
        )


def resolve_resample(operation: str, ys: Any, resample: Any) -> tuple[str, int]:
    """Return what an interval is about, and the fewest subjects that it needs."""
    n_subjects = len(ys) if hasattr(ys, "__len__") else 0
    if resample is None:
        resample = "conditions" if n_subjects == 1 else "both"
    require_choice(operation, "resample", resample, RESAMPLED)
    least = 1 if resample == "conditions" else SUBJECTS
    if isinstance(ys, Mapping | list | tuple) and 1 < n_subjects < least:
        raise InputError(
            f"{operation}: an interval over other subjects needs at least {least} of them.\n"
            f"  got {n_subjects}\n"
            f"  Pass resample='conditions' for an interval about these subjects."
        )
    return resample, least


def _is_sequence(arrays: Any) -> bool:
    return isinstance(arrays, Sequence) and not isinstance(arrays, str | bytes)


def named_subjects(
    operation: str,
    argument: str,
    arrays: Any,
    *,
    fewest: int,
    why: str,
    least: int,
    measure: Measure,
    settings: Mapping[str, Any],
    beside: Mapping[str, Array] | None = None,
) -> dict[str, Array]:
    """Return arrays (n, p_r) of the same n samples by their name in messages, or raise.

    Parameters
    ----------
    operation, argument : str
        For errors.
    arrays : sequence or mapping of arrays, or one array with the subjects along axis 0
        As the user passed them.
    fewest, why : int, str
        Samples that are needed, and what needs them.
    least : int
        Subjects that are needed.
    measure, settings
        What compares them, and all of its options.
    beside : mapping of str to array, optional
        Other arrays of the same samples, which come first in what is returned.
    """
    if isinstance(arrays, Mapping):
        named = {f"{argument}[{key!r}]": x for key, x in arrays.items()}
    elif not (_is_sequence(arrays) or getattr(arrays, "ndim", 0) > 1):
        raise InputError(
            f"{operation}: {argument} must be a sequence or a mapping of arrays.\n"
            f"  got {got(arrays)}\n"
            f"  Pass one array (n, p) for each subject or repeat, for example [first, second]."
        )
    elif getattr(arrays, "ndim", 0) == 2 and settings.get("rdm") != "precomputed":
        raise InputError(
            f"{operation}: {argument} must be arrays of several subjects or repeats.\n"
            f"  got {got(arrays)}, which is one (n, p)\n"
            f"  Pass one array (n, p) for each subject or repeat, for example [first, second]."
        )
    else:
        named = {f"{argument}[{i}]": arrays[i] for i in range(len(arrays))}
    if len(named) < least:
        raise InputError(
            f"{operation}: {argument} must hold at least {least} arrays.\n"
            f"  got {len(named)}\n"
            f"  Pass one array (n, p) for each subject or repeat."
        )
    named = {**(beside or {}), **named}
    named = dict(zip(named, unlabelled(operation, named), strict=True))
    named = dict(zip(named, measure.by_rows(operation, named, settings), strict=True))
    xp = common_namespace(operation, named)
    out = {}
    for name, x in named.items():
        out[name] = as_samples(operation, xp, x, name, min_samples=fewest, why=why)
        check_finite(operation, xp, out[name], name)
    return out
