"""``repsim analyse MODEL --data ...``: every analysis that a model supports."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from repsim.cli._session import Session
from repsim.cli.commands._options import (
    RUN,
    DataOptions,
    Layers,
    ModelName,
    ModelOptions,
    Out,
    Progress,
    RunOptions,
    TokenOptions,
)
from repsim.cli.commands._signature import command

__all__ = ["analyse"]

Only = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ANALYSIS", rich_help_panel=RUN, help="Run this analysis only. May be repeated."
    ),
]


@command
def analyse(
    session: Session,
    model: ModelName,
    *,
    data: DataOptions,
    layers: Layers = None,
    tokens: TokenOptions,
    options: ModelOptions,
    run: RunOptions,
    only: Only = None,
    out: Out = None,
    progress: Progress = True,
) -> None:
    """Run every analysis that a model supports, into a run folder with a page.

    layer_map, attention_distance, residual_ratios, block_influence, receptive_field, localization,
    and linear_probe if the data have labels. An analysis is skipped, with the reason, if the model
    lacks what it needs (attention, a grid, skips). Each finished result is saved, and the same
    command resumes with the next.
    """
    from repsim.cli.tasks._one_model import analyse_model, check_names

    names = check_names(only or [])
    request = options.request(model, run)
    code = analyse_model(
        session,
        request,
        data.inputs("analyse", run, options.scale),
        names,
        layers,
        tokens.tokens(),
        out=_folder_of(model) if out is None else out,
        progress=progress,
    )
    raise typer.Exit(code)


def _folder_of(model: str) -> Path:
    """Return the default folder of a model: ``repsim-`` and its last name."""
    last = model.rpartition(":")[2].rstrip("/").rpartition("/")[2]
    return Path("repsim-" + re.sub(r"[^\w.-]+", "-", last))
