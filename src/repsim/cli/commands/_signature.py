"""Commands whose parameters are groups of options."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from repsim.cli._session import Session

__all__ = ["OUTPUT", "command"]

OUTPUT = "Output"
"""The panel of the help for the common options."""


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Return a function that typer can turn into a command.

    typer reads the options of a command from its signature, so shared options would be repeated in
    every signature. Here a parameter may be a group: a dataclass whose fields are options. typer
    sees the fields, and the function gets the group.

    Parameters
    ----------
    function : callable
        Takes the session, then arguments and options in the form of typer, and groups. ``--json``
        and ``--debug`` are added to every command and stored in the session.
    """
    hints = get_type_hints(function, include_extras=True)
    _, *parameters = inspect.signature(function).parameters.values()
    groups = {each.name: hints[each.name] for each in parameters if is_dataclass(hints[each.name])}
    shown = [inspect.Parameter("context", _BY_NAME, annotation=typer.Context)]
    for each in parameters:
        if each.name in groups:
            shown += _parameters_of(groups[each.name])
        else:
            shown.append(each.replace(kind=_BY_NAME, annotation=hints[each.name]))
    shown += _parameters_of(_Common)

    def run(context: typer.Context, **given: Any) -> None:
        for field in fields(_Common):
            del given[field.name]  # their callbacks have set them in the session
        # A shell leaves the ~ of --out=~/run as it is.
        given = {k: v.expanduser() if isinstance(v, Path) else v for k, v in given.items()}
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        function(context.obj, **given)

    run.__name__, run.__doc__ = function.__name__, function.__doc__
    run.__annotations__ = {each.name: each.annotation for each in shown}
    run.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    return run


_BY_NAME = inspect.Parameter.KEYWORD_ONLY


def _parameters_of(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(each.name, _BY_NAME, default=each.default, annotation=hints[each.name])
        for each in fields(group)
    ]


def _session(context: typer.Context) -> Session:
    session = context.find_root().obj
    assert isinstance(session, Session), "made before any option is read"
    return session


def _debug(context: typer.Context, value: bool) -> None:
    if value:
        _session(context).debug = True
        warnings.simplefilter("default")


def _json(context: typer.Context, value: bool) -> None:
    if value:
        _session(context).only_json()


@dataclass(frozen=True)
class _Common:
    """The options of every command."""

    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            callback=_json,
            is_eager=True,
            rich_help_panel=OUTPUT,
            help="Write the result to standard output as JSON, and write nothing else there.",
        ),
    ] = False
    debug: Annotated[
        bool,
        typer.Option(
            "--debug",
            callback=_debug,
            rich_help_panel=OUTPUT,
            help="Show tracebacks, and the warnings of other libraries.",
        ),
    ] = False
