"""The axes that a caller declares with ``batch_dim=``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from repsim._errors import InputError, LayerNotFoundError
from repsim._options import got, is_whole
from repsim.capture.layers._patterns import matching

__all__ = ["BatchDim", "declared_axes"]

BatchDim: TypeAlias = int | Mapping[str, int] | None
"""Types of ``batch_dim=``: one axis for all layers, or an axis by name or glob."""


def declared_axes(batch_dim: BatchDim, names: tuple[str, ...]) -> dict[str, int]:
    """Return the axis of each layer for which one is declared, or raise."""
    if batch_dim is None:
        return {}
    if is_whole(batch_dim):
        return dict.fromkeys(names, int(batch_dim))
    if not isinstance(batch_dim, Mapping):
        raise InputError(
            "Recorder: batch_dim must be an axis, or a mapping from layer name or glob to axis.\n"
            f"  got {got(batch_dim)}"
        )
    for pattern, axis in batch_dim.items():
        if not isinstance(pattern, str) or not is_whole(axis):
            raise InputError(
                "Recorder: batch_dim must map names or globs of layers to axes.\n"
                f"  got {got(pattern)}: {got(axis)}"
            )
    found = {name: matching([name], batch_dim) for name in names}
    used = {pattern for patterns in found.values() for pattern in patterns}
    if unused := [pattern for pattern in batch_dim if pattern not in used]:
        raise LayerNotFoundError(
            f"Recorder: batch_dim names {unused[0]!r}, which is none of the chosen layers.\n"
            f"  chosen: {', '.join(map(repr, names[:8]))}"
        )
    return {name: int(batch_dim[patterns[0]]) for name, patterns in found.items() if patterns}
