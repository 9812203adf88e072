"""``repsim layers MODEL``: the layers of a model, as results name them."""

from __future__ import annotations

from repsim.cli._session import Session
from repsim.cli.commands._options import (
    DataSource,
    Layers,
    ModelName,
    ModelOptions,
    NoProgress,
    RunOptions,
)
from repsim.cli.commands._signature import command

__all__ = ["layers"]


@command
def layers(
    session: Session,
    model: ModelName,
    *,
    layers: Layers = None,
    data: DataSource = None,
    options: ModelOptions,
    run: RunOptions,
    progress: NoProgress = True,
) -> None:
    """List the layers of a model: name, type and output shape, in the order in which they run.

    By default the repeated blocks; --layers '*' lists every layer.

    The model runs once, on noise of its size or on two samples of --data.
    """
    from repsim.cli.tasks._layer_list import list_layers

    list_layers(session, options.request(model, run), layers or [], data)
