"""``repsim attention MODEL --data ...``: how far each attention head looks."""

from __future__ import annotations

from repsim.cli._session import Session
from repsim.cli.commands._options import (
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

__all__ = ["attention"]


@command
def attention(
    session: Session,
    model: ModelName,
    *,
    data: DataOptions,
    layers: Layers = None,
    tokens: TokenOptions,
    options: ModelOptions,
    run: RunOptions,
    out: Out = None,
    progress: Progress = True,
) -> None:
    """Measure how far each attention head of a model looks, by layer: the mean distance.

    It is in pixels for images, and in tokens for texts.
    """
    from repsim.cli.tasks._one_model import measure_one

    request = options.request(model, run)
    measure_one(
        session,
        "attention",
        "attention_distance",
        request,
        data.inputs("attention", run, options.scale),
        layers,
        tokens.tokens(),
        out=out,
        progress=progress,
    )
