"""The axes that a caller declares with ``batch_dim=``."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TypeAlias

from repsim._errors import InputError, LayerNotFoundError
from repsim._options import got, is_whole

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
    declared: dict[str, int] = {}
    for pattern, axis in batch_dim.items():
        if not isinstance(pattern, str) or not is_whole(axis):
            raise InputError(
                "Recorder: batch_dim must map names or globs of layers to axes.\n"
                f"  got {got(pattern)}: {got(axis)}"
            )
        meant = [pattern] if pattern in names else [n for n in names if fnmatchcase(n, pattern)]
        if not meant:
            raise LayerNotFoundError(
                f"Recorder: batch_dim names {pattern!r}, which is none of the chosen layers.\n"
                f"  chosen: {', '.join(map(repr, names[:8]))}"
            )
        for name in meant:
            # An exact name takes precedence over a glob, an earlier glob over a later one.
            if pattern == name or name not in declared:
                declared[name] = int(axis)
    return declared
