"""Arrays of several subjects or repeats of the same samples, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from repsim._errors import InputError
from repsim._options import got
from repsim._typing import Array
from repsim.arrays import as_samples, check_finite, common_namespace, unlabelled
from repsim.measures import Measure

__all__ = ["named_subjects"]


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
