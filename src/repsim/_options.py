"""Options as a caller writes them: one check of type and range for every kind of option."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable, Mapping
from numbers import Integral, Real
from typing import Any, TypeGuard

import numpy as np

from repsim._errors import InputError
from repsim._shown import did_you_mean, shortened

__all__ = [
    "MOST",
    "as_count",
    "as_number",
    "as_numbers",
    "as_path",
    "as_seed",
    "got",
    "is_whole",
    "require_bool",
    "require_callable",
    "require_choice",
    "require_text",
]

MOST = 2**53
"""The largest count: no computation reaches it, and every float holds it exactly."""

LONGEST = 80
"""Characters of a value in a message; a longer one is cut."""


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is an integer, of Python or NumPy; a bool is one to nobody who writes it.

    >>> is_whole(3), is_whole(np.int64(3)), is_whole(3.0), is_whole(True)
    (True, True, False, False)
    """
    return isinstance(value, Integral) and not isinstance(value, bool)


def as_count(operation: str, name: str, value: Any, *, least: int = 1, also: str = "") -> int:
    """Return a whole number of at least ``least``, or raise.

    ``also`` says what else the caller takes.

    >>> as_count("max_t", "permutations", 99)
    99
    """
    if is_whole(value) and least <= value <= MOST:
        return int(value)
    expected = "a positive integer" if least == 1 else f"an integer of at least {least}"
    raise InputError(f"{operation}: {name} must be {expected}{also}.\n  got {got(value)}")


def as_seed(operation: str, seed: Any, *, also: str = "") -> int:
    """Return a seed, an integer from 0 to 2⁶³ − 1, which every generator takes; or raise.

    ``also`` says what else the caller takes.
    """
    if is_whole(seed) and 0 <= seed < 2**63:
        return int(seed)
    raise InputError(
        f"{operation}: seed must be an integer from 0 to 2**63 - 1{also}.\n  got {got(seed)}"
    )


def as_number(
    operation: str,
    name: str,
    value: Any,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    below: float = math.inf,
    most: float = math.inf,
    hint: str = "",
) -> float:
    """Return a finite real number in a range, or raise.

    >>> as_number("max_t", "level", 0.05, above=0, below=1)
    0.05

    Parameters
    ----------
    operation, name : str
        The function and its argument, for the error.
    value : object
        What was passed.
    above, below, least, most : float
        The ends of the range; it contains ``least`` and ``most``.
    hint : str
        A last line of the error, such as the likely repair.
    """
    is_bool = isinstance(value, bool)  # a Real to Python, but to nobody who writes one
    if isinstance(value, Real) and not is_bool:
        try:
            number = float(value)
        except OverflowError:  # an integer beyond every float
            number = math.inf
        if math.isfinite(number) and above < number < below and least <= number <= most:
            return number
    ends = [
        f"{word} {end:g}"
        for word, end in (
            ("above", above),
            ("of at least", least),
            ("below", below),
            ("up to", most),
        )
        if math.isfinite(end)
    ]
    expected = " ".join(["a finite number", " and ".join(ends)]).strip()
    if ends == ["above 0"]:
        expected = "a positive finite number"
    raise InputError(
        f"{operation}: {name} must be {expected}.\n  got {got(value)}" + (hint and f"\n  {hint}")
    )


def as_numbers(
    operation: str, name: str, values: Any, *, above: float = -math.inf, least: float = -math.inf
) -> tuple[float, ...]:
    """Return a sequence of numbers in a range, at least one, or raise.

    >>> as_numbers("linear_probe", "ridges", [0.5, 2])
    (0.5, 2.0)
    """
    listed = not isinstance(values, str | bytes | Mapping) and isinstance(values, Iterable)
    if not listed or getattr(values, "ndim", 1) != 1 or not len(entries := list(values)):
        raise InputError(
            f"{operation}: {name} must be a list of numbers, at least one.\n  got {got(values)}"
        )
    return tuple(
        as_number(operation, f"{name}[{at}]", each, above=above, least=least)
        for at, each in enumerate(entries)
    )


def require_choice(operation: str, name: str, choice: object, choices: Collection[Any]) -> None:
    """Raise if the value is not one of the choices, and list them."""
    listed = list(choices)
    # Not "in", because an array has no truth value. Texts of NumPy are texts.
    if any(isinstance(choice, type(each)) and choice == each for each in listed):
        return
    raise InputError(
        f"{operation}: unknown {name}.\n"
        f"  expected one of {', '.join(map(repr, listed))}\n"
        f"  got {got(choice)}" + did_you_mean(choice, (e for e in listed if isinstance(e, str)))
    )


def require_bool(operation: str, name: str, value: object) -> None:
    """Raise if the value is not True or False."""
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{operation}: {name} must be True or False.\n  got {got(value)}")


def require_callable(operation: str, **values: object) -> None:
    """Raise if one of the named values is neither None nor callable."""
    for name, value in values.items():
        if value is not None and not callable(value):
            raise InputError(f"{operation}: {name} must be a function or None.\n  got {got(value)}")


def require_text(operation: str, **values: object) -> None:
    """Raise if one of the named values is neither None nor a string."""
    for name, value in values.items():
        if value is not None and not isinstance(value, str):
            raise InputError(f"{operation}: {name} must be a string or None.\n  got {got(value)}")


def as_path(operation: str, name: str, value: Any) -> str:
    """Return a path as a string, with ``~`` for the home folder written out, or raise."""
    path = value if isinstance(value, str) else None
    if isinstance(value, os.PathLike):
        path = os.fspath(value)
    if not isinstance(path, str) or not path or "\0" in path:
        raise InputError(f"{operation}: {name} must be a path.\n  got {got(value)}")
    return os.path.expanduser(path)


def got(value: object) -> str:
    """Return a value as a message shows it: its repr, or shape and type of an array.

    >>> got("nope"), got(1.5)
    ("'nope'", '1.5')
    """
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        return f"an array {tuple(shape)} of {getattr(value, 'dtype', type(value).__name__)}"
    try:
        text = repr(value)
    except Exception as error:  # an integer of more digits than Python converts, or a broken repr
        text = f"a {type(value).__name__} ({error})"
    return shortened(text.partition("\n")[0], LONGEST)
