"""The work of ``repsim layers``: list the layers of a model by their names in results."""

from __future__ import annotations

from collections.abc import Sequence

from repsim.cli._session import Session
from repsim.cli.data._inputs import Inputs
from repsim.cli.models._load import ModelRequest, chosen_layers, load_model
from repsim.cli.tasks._shapes import LayerShape, output_shapes

__all__ = ["list_layers"]

BLOCKS = "blocks"


def list_layers(
    session: Session, request: ModelRequest, layers: Sequence[str], data: str | None
) -> None:
    """List the layers in execution order, then those that do not run."""
    request.check()
    inputs = None if data is None else Inputs(data)
    model = load_model(session, request)

    from repsim.capture import blocks_of, named_layers

    named = named_layers(model.module)
    if not layers:
        layers = [BLOCKS] if blocks_of(named) else ["*"]
    chosen_layers(model, layers, "--layers")
    found = output_shapes(model, inputs, layers)
    if session.as_json:
        session.emit(
            {
                "command": "layers",
                "model": request.spec,
                "layers": [
                    {
                        "name": each.name,
                        "type": each.kind,
                        "shape": ["n", *each.shape[1:]] if _is_batch(each) else list(each.shape),
                        "runs": each.ran,
                    }
                    for each in found
                ],
            }
        )
        return
    session.table(
        f"Layers of {request.spec}, in the order in which they run",
        ["layer", "type", "output"],
        [[each.name, each.kind, _shape(each)] for each in found],
    )
    if list(layers) == [BLOCKS]:
        session.line(
            f"These are the blocks. The model has {len(named)} layers: --layers '*' lists all."
        )


def _is_batch(each: LayerShape) -> bool:
    return bool(each.shape) and each.shape[0] == 2


def _shape(each: LayerShape) -> str:
    if not each.ran:
        return "does not run"
    if not each.shape:
        return "no tensor"
    sizes = ["n" if _is_batch(each) else str(each.shape[0]), *map(str, each.shape[1:])]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"
