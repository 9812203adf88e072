"""The program ``repsim``: the list of commands, and their common options."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from repsim._version import __version__
from repsim.cli._outcome import escape_usage, reporting
from repsim.cli._session import Session
from repsim.cli.commands._analyse import analyse
from repsim.cli.commands._attention import attention
from repsim.cli.commands._compare import compare
from repsim.cli.commands._layers import layers
from repsim.cli.commands._measure import measure
from repsim.cli.commands._operands import Arrays, Models, require_command
from repsim.cli.commands._report import report

__all__ = ["app"]


class _Commands(TyperGroup):
    """The group of commands; each always ends with a message and an exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.obj = Session(list(args))
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            escape_usage(error)
            raise

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        require_command(args, self.list_commands(ctx))
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        session: Session = ctx.obj
        try:
            with reporting(session):
                return super().invoke(ctx)
        finally:
            session.close()


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong arguments, 130 interrupted.",
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"repsim {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Do these two networks see alike? Compare the representations in arrays and in models.

    Models are timm:NAME, torchvision:NAME, transformers:TYPE (or a local folder), or
    package.module:function. They have random weights unless --weights or --pretrained is given.
    """


app.command(cls=Arrays)(measure)
app.command(cls=Models)(compare)
app.command()(attention)
app.command()(analyse)
app.command()(layers)
app.command()(report)
