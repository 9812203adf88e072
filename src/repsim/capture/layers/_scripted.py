"""Scripted and traced modules: hooks do not see inside, so their code is read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from repsim._errors import CaptureError
from repsim.capture.layers._select import listing

__all__ = ["refuse_scripted"]

_SCRIPTED_ATTENTION = re.compile(
    r"aten::(_?softmax|scaled_dot_product|_native_multi_head|_transformer_encoder_layer)"
)


def refuse_scripted(model: nn.Module) -> None:
    """Raise a CaptureError if a scripted or traced module of a model contains attention."""
    scripted = [
        name or type(module).__name__
        for name, module in _outermost_scripted(model, "")
        if _SCRIPTED_ATTENTION.search(_graph(module))
    ]
    if scripted:
        raise CaptureError(
            f"AttentionRecorder: attention in scripted or traced modules cannot be seen: "
            f"{listing(scripted)}.\n"
            "  Use the model as it was before torch.jit.script or torch.jit.trace; or leave them "
            "out, by layers=."
        )


def _outermost_scripted(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(module, torch.jit.ScriptModule):
        yield name, module
        return
    for key, child in module.named_children():
        yield from _outermost_scripted(child, f"{name}.{key}" if name else key)


def _graph(module: Any) -> str:
    """The code of a scripted module and of all that it calls; empty without a forward."""
    return str(module.inlined_graph) if hasattr(module, "forward") else ""
