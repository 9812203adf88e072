"""The grid of one output or attention call, and the options of a caller about it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torch import Tensor

from repsim._errors import LayerNotFoundError
from repsim._grid_options import (
    Grid,
    PatchSize,
    VideoGrid,
    VideoPatchSize,
    as_grid,
    as_patch_size,
    as_prefix,
    as_video_grid,
    as_video_patch_size,
)
from repsim.capture.layers._patterns import matching
from repsim.capture.tokens._video import VideoSize

__all__ = [
    "GridOption",
    "PatchOption",
    "PrefixOption",
    "TokenGrid",
    "TokenOptions",
    "VideoGridOption",
    "VideoPatchOption",
]

GridOption: TypeAlias = Grid | Mapping[str, Grid] | None
"""Types of ``grid=``."""

PatchOption: TypeAlias = PatchSize | Mapping[str, PatchSize] | None
"""Types of ``patch_size=``."""

VideoGridOption: TypeAlias = VideoGrid | Mapping[str, VideoGrid] | None
"""Types of ``grid=`` where a video has a grid too."""

VideoPatchOption: TypeAlias = VideoPatchSize | Mapping[str, VideoPatchSize] | None
"""Types of ``patch_size=`` where a video has patches too."""

PrefixOption: TypeAlias = int | Mapping[str, int] | None
"""Types of ``prefix=``."""


@dataclass(frozen=True, slots=True)
class TokenGrid:
    """The order of positions: prefix tokens, then a grid, row by row.

    Attributes
    ----------
    height, width : int
        Rows and columns; those of a window if attention is in windows.
    prefix : int
        Tokens before those of the grid.
    channels_first : bool
        Whether a map has its channels before its positions.
    step : (float, float) or None
        Pixels of the input from one token to the next, along height and width; None if unknown.
    frames : int or None
        Tokens along time, each with all rows and columns; None for images.
    frame_step : float or None
        Frames of the input from one token to the next in time; None for images.
    """

    height: int
    width: int
    prefix: int = 0
    channels_first: bool = False
    step: tuple[float, float] | None = None
    frames: int | None = None
    frame_step: float | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return (self.height, self.width)

    @property
    def extent(self) -> tuple[int, ...]:
        """Rows and columns; those of a video begin with its tokens along time."""
        return self.size if self.frames is None else (self.frames, *self.size)

    @property
    def n_tokens(self) -> int:
        """Prefix tokens and grid positions together."""
        return self.prefix + math.prod(self.extent)

    def tokens(self, x: Tensor) -> Tensor:
        """Return an output of this layout as (n, tokens, channels), without a copy if possible."""
        if x.ndim == 3:
            return x
        return x.flatten(2).transpose(1, 2) if self.channels_first else x.flatten(1, -2)


_PARSERS: dict[str, Callable[[str, Any], Any]] = {
    "grid": as_grid,
    "patch_size": as_patch_size,
    "prefix": as_prefix,
}

_WITH_TIME: dict[str, Callable[[str, Any], Any]] = {
    "grid": as_video_grid,
    "patch_size": as_video_patch_size,
    "prefix": as_prefix,
}


@dataclass
class TokenOptions:
    """Options of the caller about tokens: for all layers, or by layer name, label or glob.

    A grid is a number or a pair (rows, columns), a patch size a number or a pair (height, width) in
    pixels, a prefix a number of tokens. Each may be a mapping from layers to these. With
    `with_time`, grids and patch sizes may be triples that begin with frames.

    Raises
    ------
    InputError
        A value is not a grid, patch size or prefix.
    """

    operation: str
    grid: VideoGridOption = None
    patch_size: VideoPatchOption = None
    prefix: PrefixOption = None
    with_time: bool = False
    _used: set[tuple[str, str]] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        for name, parse in (_WITH_TIME if self.with_time else _PARSERS).items():
            value = getattr(self, name)
            if isinstance(value, Mapping):
                setattr(self, name, {key: parse(self.operation, v) for key, v in value.items()})
            elif value is not None:
                setattr(self, name, parse(self.operation, value))

    def grid_of(self, *labels: str) -> tuple[int, int] | None:
        """Return the caller's grid for a layer of these labels, most exact label first."""
        found: tuple[int, ...] | None = self._of("grid", labels)
        return (found[0], found[1]) if found is not None and len(found) == 2 else None

    def video_grid_of(self, *labels: str) -> VideoSize | None:
        """Return the caller's grid for a layer of these labels, if it begins with frames."""
        found: tuple[int, ...] | None = self._of("grid", labels)
        return (found[0], found[1], found[2]) if found is not None and len(found) == 3 else None

    def patch_size_of(self, *labels: str) -> tuple[float, float] | None:
        """Return the caller's step for a layer of these labels."""
        found: tuple[float, ...] | None = self._of("patch_size", labels)
        return None if found is None else (found[-2], found[-1])

    def frame_step_of(self, *labels: str) -> float | None:
        """Return the caller's frames from token to token for a layer of these labels."""
        found: tuple[float, ...] | None = self._of("patch_size", labels)
        return found[0] if found is not None and len(found) == 3 else None

    def prefix_of(self, *labels: str) -> int | None:
        """Return the caller's prefix for a layer of these labels."""
        found: int | None = self._of("prefix", labels)
        return found

    def check_used(self, what: str = "layer") -> None:
        """Raise a LayerNotFoundError for a pattern that matches no layer."""
        for name in _PARSERS:
            value = getattr(self, name)
            for pattern in value if isinstance(value, Mapping) else ():
                if (name, pattern) not in self._used:
                    raise LayerNotFoundError(
                        f"{self.operation}: {name} names {pattern!r}, and no {what} is called that."
                    )

    def _of(self, name: str, labels: tuple[str, ...]) -> Any:
        value = getattr(self, name)
        if not isinstance(value, Mapping):
            return value
        found = matching(labels, value)
        self._used |= {(name, pattern) for pattern in found}
        return value[found[0]] if found else None
