"""From the name of a measure and its options to the entry that describes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from repsim._errors import InputError
from repsim._options import got, require_choice
from repsim._shown import did_you_mean
from repsim.kernels import resolve_kernel
from repsim.measures._registry import MEASURES, Measure, entries_of

__all__ = ["check_values", "resolve_measure"]

NO_OPTIONS: Mapping[str, object] = MappingProxyType({})


HELD = "device", "devices"
"""Arguments of other packages that say where models run."""


def resolve_measure(
    operation: str,
    measure: str | Measure,
    options: Mapping[str, object] = NO_OPTIONS,
    *,
    function: Callable[..., Any] | None = None,
) -> Measure:
    """Return the entry of a measure with the properties that its options give it.

    >>> resolve_measure("pairwise", "soft_matching").similarity
    False
    >>> resolve_measure("pairwise", "soft_matching", {"score": "correlation"}).similarity
    True

    Several entries may have one function, with other options and other properties: a distance and
    a correlation, in units of the features and without. The entry that is returned has the name of
    ``measure`` and the kind, range, units and invariances of the entry whose preset fits.

    Parameters
    ----------
    operation : str
        The first word of the error message.
    measure : str or Measure
        A key of :data:`MEASURES`, or an entry.
    options : mapping, optional
        Options of its function, as the user gave them.
    function : callable, optional
        The caller itself, if its ``**options`` are those of the measure. Its arguments are
        suggested for an option that resembles one.

    Returns
    -------
    Measure
        The entry.

    Raises
    ------
    InputError
        It is neither, and the message lists the names; or the function has no such option.
    """
    if isinstance(measure, str):
        measure = MEASURES.get(measure, measure)
    if isinstance(measure, Measure):
        if function is not None:
            _require_known(operation, function, measure, options)
        return _with_options(operation, measure, options)
    raise InputError(
        f"{operation}: unknown measure.\n"
        f"  expected one of {', '.join(map(repr, MEASURES))}\n"
        f"  got {measure!r}{did_you_mean(measure, MEASURES)}{_name_of(measure)}"
    )


def check_values(operation: str, measure: Measure, settings: Mapping[str, Any]) -> None:
    """Raise if an option has a value that is wrong for any data, before there are data.

    The measure checks all of its options too, but only when it gets the features.

    Parameters
    ----------
    operation : str
        For errors.
    measure : Measure
        The measure.
    settings : mapping
        All of its options.

    Raises
    ------
    InputError
        An unknown choice or kernel, or a number that is out of range for any n.
    """
    if "kernel" in settings:
        resolve_kernel(operation, settings["kernel"])
    try:
        hints = get_type_hints(measure.function)
    except NameError:  # types that only a type checker imports
        hints = {}
    for name, value in settings.items():
        if get_origin(hints.get(name)) is Literal:
            require_choice(operation, name, value, get_args(hints[name]))
    measure.fewest(**settings)


def _require_known(
    operation: str,
    function: Callable[..., Any],
    measure: Measure,
    options: Mapping[str, object],
) -> None:
    """Raise on an option that resembles an argument of the function, and none of the measure.

    Both are keywords of one call, so an error about options of the measure alone would not help
    those who misspelt an argument. Other unknown options are left to the measure.
    """
    own = measure.options(operation, {})
    arguments = [name for name in inspect.signature(function).parameters if name != "options"]
    for name, value in options.items():
        if name in own or name in arguments or did_you_mean(name, own):
            continue
        repair = did_you_mean(name, arguments)
        if name in HELD and "data" in arguments:
            repair = "\n  A model runs on the device that holds it: model.to('cuda')."
        if repair:
            raise InputError(
                f"{operation}: there is no argument {name!r}.\n  got {name}={got(value)}{repair}"
            )


def _name_of(function: object) -> str:
    """Return a last line for somebody who passed a function, or nothing."""
    if not callable(function):
        return ""
    name = getattr(function, "__name__", None)
    if name in MEASURES:
        return f"\n  Pass its name, {name!r}."
    return "\n  A function of your own becomes a measure as repsim.measures.Measure."


def _with_options(operation: str, measure: Measure, given: Mapping[str, object]) -> Measure:
    if not given:
        return measure
    settings = measure.options(operation, given)
    rows = [measure, *entries_of(measure.function)]  # the first of the best fits wins
    row = max((row for row in rows if _fits(row, settings)), key=_presets, default=measure)
    span = row.range if row.range_with is None else row.range_with(**settings)
    if row is measure and span == row.range:
        return measure
    return replace(row, name=measure.name, preset=measure.preset, range=span)


def _presets(row: Measure) -> int:
    return len(row.preset)


def _fits(row: Measure, settings: Mapping[str, object]) -> bool:
    """Whether an entry describes these options. An array is no preset, and has no truth value."""
    return all(
        isinstance(settings[name], str | int | float) and settings[name] == value
        for name, value in row.preset.items()
    )
