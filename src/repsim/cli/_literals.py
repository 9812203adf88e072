"""Values typed on a command line: kernels with parameters, options of measures."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from repsim._errors import InputError, RepsimError
from repsim._shown import did_you_mean
from repsim.cli._outcome import UsageError
from repsim.kernels import KERNELS, Kernel

if TYPE_CHECKING:
    from repsim.measures import Measure

__all__ = ["near", "read_kernel", "read_measure", "read_options"]


def near(name: str, names: Sequence[str], source: str = "") -> str:
    """Return a line that suggests similar names as they are typed, or nothing."""
    return did_you_mean(name, names, show=f"{source}{{}}".format, most=4, likeness=0.5)


def read_kernel(text: str) -> Kernel:
    """Read ``rbf`` or ``rbf(fraction=0.5)``.

    >>> read_kernel("polynomial(degree=3)")
    Polynomial(degree=3, gamma=None, coef0=1.0)

    Raises
    ------
    UsageError
        No such kernel or parameter, or the text is not a call.
    """
    try:
        node = ast.parse(text.strip(), mode="eval").body
        call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
        if not isinstance(call.func, ast.Name) or call.args:
            raise ValueError(text)
        name = call.func.id.lower()
        given = {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise UsageError(
            f"--kernel: cannot be read.\n  got {text!r}\n"
            f"  Write a name, with parameters in brackets: linear, 'rbf(fraction=0.5)'."
        ) from error
    if name not in KERNELS:
        raise UsageError(
            f"--kernel: unknown kernel.\n  expected one of {', '.join(KERNELS)}\n"
            f"  got {text!r}{near(name, list(KERNELS))}"
        )
    kind: Any = KERNELS[name]
    known = [each.name for each in fields(kind)]
    if unknown := sorted(set(given) - set(known)):
        raise UsageError(
            f"--kernel: {name} has no parameter {', '.join(unknown)}.\n"
            f"  expected {', '.join(known) or 'none'}{near(unknown[0], known)}"
        )
    try:
        kernel: Kernel = kind(**given)
    except (RepsimError, TypeError) as error:
        raise UsageError(f"--kernel: {error}") from error
    return kernel


def read_options(texts: Sequence[str]) -> dict[str, object]:
    """Read ``k=5`` and ``metric=cosine`` into a mapping.

    >>> read_options(["k=5", "metric=cosine"])
    {'k': 5, 'metric': 'cosine'}
    """
    options: dict[str, object] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--option: write NAME=VALUE, for example k=5.\n  got {text!r}")
        if name in options:
            raise UsageError(
                f"--option: {name} is given twice.\n  got {options[name]!r} and {value}\n"
                f"  Leave one of them out."
            )
        try:
            options[name] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            options[name] = value
    return options


def read_measure(
    name: str, options: Sequence[str], **more: object
) -> tuple[Measure, dict[str, object]]:
    """Return a measure and the options that are given.

    >>> measure, options = read_measure("mutual_knn", ["k=5"])
    >>> measure.name, options
    ('mutual_knn', {'k': 5})

    Parameters
    ----------
    name : str
        Its name.
    options : sequence of str
        Options, as typed.
    **more
        Options that have a place of their own on the command line; None if it is not given.

    Raises
    ------
    UsageError
        The measure or an option is unknown, or an option has a value that no data allow.
    """
    from repsim.measures import MEASURES, check_values, resolve_measure

    if name not in MEASURES:
        raise UsageError(
            f"--measure: unknown measure.\n  expected one of {', '.join(MEASURES)}\n"
            f"  got {name!r}{near(name, list(MEASURES))}"
        )
    given, own = read_options(options), {k: v for k, v in more.items() if v is not None}
    if twice := sorted(set(given) & set(own)):
        raise UsageError(
            f"--option: {twice[0]} is given twice.\n"
            f"  got --{twice[0]} and --option {twice[0]}=...\n  Leave one of them out."
        )
    given |= own
    try:
        measure = resolve_measure(f"--measure {name}", name, given)
        check_values(f"--measure {name}", measure, measure.options("measure", given))
    except InputError as error:
        raise UsageError(str(error)) from error
    return measure, given
