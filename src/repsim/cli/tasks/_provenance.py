"""Provenance that the command adds to the attributes of a result."""

from __future__ import annotations

import shlex
from typing import Any

from repsim.cli._session import Session
from repsim.cli.data._inputs import Inputs
from repsim.cli.models._load import LoadedModel, ModelRequest

__all__ = ["model_provenance", "with_provenance"]


def model_provenance(request: ModelRequest, model: LoadedModel, side: str = "") -> dict[str, Any]:
    """Return the attributes of one model; ``side`` is "_x", "_y" or nothing."""
    said = "as they are" if model.preparation is None else model.preparation.label
    return {
        f"spec{side}": request.spec,
        f"weights{side}": model.weights,
        f"preparation{side}": said,
    }


def with_provenance(session: Session, result: Any, inputs: Inputs, *models: dict[str, Any]) -> Any:
    """Return a result with the command, its data and its models in ``attrs``."""
    merged = {name: value for each in models for name, value in each.items()}
    return result.assign_attrs(
        command=shlex.join(session.command_line), **merged, **inputs.provenance()
    )
