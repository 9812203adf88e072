"""``measure`` takes files of arrays, ``compare`` takes models: each points to the other."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand

from repsim.cli._outcome import UsageError

__all__ = ["Arrays", "Models", "require_command"]

NOUNS = {"arrays": "files of arrays (.npy, .npz)", "models": "models (timm:NAME, ...)"}


class _Operands(TyperCommand):
    """A command that knows its sibling, which takes other operands.

    Before it reads its options, it parses the command line with the options of both commands. It
    can therefore recognise operands of the sibling even if options of the sibling are present.
    """

    takes = ""
    other = ""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        other = ctx.parent.command.get_command(ctx.parent, self.other)
        read = _read_with_both(self, other, ctx, args)
        if read is not None:
            values, given = read
            operands = [values[name] for name in ("x", "y") if isinstance(values.get(name), str)]
            more = values.get("more")  # not a list if it is not given
            operands += more if isinstance(more, list | tuple) else ()
            asks_for_help = any(word in ctx.help_option_names for word in args)
            if operands and not asks_for_help:
                self._check_operands(operands)
                if _kind(operands[0], self.takes) != self.takes:
                    self._point_to(other, ctx, operands, values, given)
                self._check_options(ctx, given)
        return super().parse_args(ctx, args)

    def _check_operands(self, operands: Sequence[str]) -> None:
        if len({_kind(each, self.takes) for each in operands}) > 1:
            raise UsageError(
                f"{self.name}: a file of arrays and a model cannot be compared.\n"
                f"  got {_listed(operands)}\n"
                f"  Name files: repsim measure X.npy Y.npy\n"
                f"  or two models: repsim compare MODEL MODEL --data DATA"
            )
        if len(operands) > 2 and _kind(operands[0], self.takes) == "models":
            raise UsageError(
                f"compare: takes one or two models.\n  got {_listed(operands)}\n"
                f"  Name two of them. In Python, repsim.alignment compares several."
            )

    def _point_to(
        self, other: Any, ctx: Any, operands: Sequence[str], values: Any, given: Sequence[Any]
    ) -> None:
        known = {each.name for each in other.get_params(ctx)}
        words = ["repsim", self.other, *operands]
        for each in given:
            if each.name in known and each.param_type_name == "option":
                words += _typed(each, values[each.name])
        if self.other == "compare" and "data" not in values:
            words += ["--data", "DATA"]
        options = [each for each in given if each.param_type_name == "option"]
        dropped = [each.opts[0] for each in options if each.name not in known]
        raise UsageError(
            f"{self.name}: takes {NOUNS[self.takes]}, and these are {NOUNS[other.takes]}.\n"
            f"  got {_listed(operands)}\n  Run: {shlex.join(words)}"
            + (f"\n  {self.other} has no {', '.join(dropped)}." if dropped else "")
        )

    def _check_options(self, ctx: Any, given: Sequence[Any]) -> None:
        own = {each.name for each in self.get_params(ctx)}
        options = [each for each in given if each.param_type_name == "option"]
        names = [each.opts[0] for each in options if each.name not in own]
        if names:
            raise UsageError(
                f"{', '.join(names)}: {'is an option' if len(names) == 1 else 'are options'} of "
                f"repsim {self.other}.\n  Leave {'it' if len(names) == 1 else 'them'} out, or see "
                f"repsim {self.name} --help."
            )


class Arrays(_Operands):
    """The command for files of arrays."""

    takes, other = "arrays", "compare"


class Models(_Operands):
    """The command for models."""

    takes, other = "models", "measure"


def require_command(args: Sequence[str], commands: Sequence[str]) -> None:
    """Raise if a file or a model stands where a command belongs."""
    if not args or args[0] in commands:
        return
    kind = _kind(args[0], "")
    if kind:
        words = ["repsim", "measure" if kind == "arrays" else "compare", *args]
        raise UsageError(
            f"repsim: a command comes first ({', '.join(commands)}).\n"
            f"  got {args[0]}\n  Run: {shlex.join(words)}"
        )


def _read_with_both(
    command: Any, other: Any, ctx: Any, args: Sequence[str]
) -> tuple[dict[str, Any], list[Any]] | None:
    """Return the words by parameter, and the parameters that were given.

    None if neither command has one of the options; the parser of the command then reports it.
    """
    parser = command.make_parser(ctx)
    own = {each.name for each in command.get_params(ctx)}
    for each in other.get_params(ctx):
        if each.name not in own:
            each.add_to_parser(parser, ctx)
    try:
        values, _, order = parser.parse_args(list(args))
    except Exception as error:
        if hasattr(error, "format_message"):  # a parsing error in any version of typer
            return None
        raise
    return values, list({each.name: each for each in order}.values())


def _listed(operands: Sequence[str]) -> str:
    rest = len(operands) - 3
    return " and ".join([*operands[:3], *([f"{rest} more"] if rest > 0 else [])])


def _kind(operand: str, otherwise: str) -> str:
    if operand.lower().endswith((".npy", ".npz", ".zarr")):
        return "arrays"
    return "models" if ":" in operand else otherwise


def _typed(option: Any, value: Any) -> Sequence[str]:
    """Return an option with its value, as typed."""
    if option.is_flag:
        return [option.opts[0] if value else option.secondary_opts[0]]
    values = value if option.multiple else [value]
    return [word for each in values for word in (option.opts[0], str(each))]
