"""Where the tokens of an attention call lie in the image: grid, step in pixels, prefix tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

from repsim._errors import InputError, LayerNotFoundError
from repsim.analysis.images._patches import MOST_PREFIX, declared_prefix
from repsim.attention._grid import as_grid, as_patch_size, as_prefix
from repsim.capture import AttentionCall

__all__ = [
    "Declared",
    "GridOption",
    "NoDistance",
    "PatchOption",
    "PrefixOption",
    "TokenPlaces",
    "n_samples",
]

GridOption: TypeAlias = int | tuple[int, int] | Mapping[str, int | tuple[int, int]] | None
"""What ``grid=`` accepts."""

PatchOption: TypeAlias = (
    float | tuple[float, float] | Mapping[str, float | tuple[float, float]] | None
)
"""What ``patch_size=`` accepts."""

PrefixOption: TypeAlias = int | Mapping[str, int] | None
"""What ``prefix=`` accepts."""


class NoDistance(Exception):  # noqa: N818 - turned into a warning or a CaptureError
    """Attention that has no distances, whatever is passed."""


@dataclass(frozen=True)
class TokenPlaces:
    """Where tokens lie.

    Attributes
    ----------
    grid : (int, int)
        Rows and columns; of a window, where attention is in windows.
    step : (float, float)
        Pixels of the input from a token to the next, along height and width.
    prefix : int
        Tokens before the grid's.
    """

    grid: tuple[int, int]
    step: tuple[float, float]
    prefix: int


@dataclass
class Declared:
    """What the caller says of the layers, by name or glob or for all; the rest is found.

    Raises
    ------
    InputError
        A value is no grid, patch size or prefix.
    """

    operation: str
    grid: GridOption = None
    patch_size: PatchOption = None
    prefix: PrefixOption = None
    _used: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        for name, check in (
            ("grid", as_grid),
            ("patch_size", as_patch_size),
            ("prefix", as_prefix),
        ):
            value = getattr(self, name)
            for each in value.values() if isinstance(value, Mapping) else (value,):
                if each is not None:
                    check(self.operation, each)

    def places(self, call: AttentionCall) -> TokenPlaces:
        """Find where the tokens of a call lie.

        Raises
        ------
        NoDistance
            It attends over channels, or from queries that are not among the keys.
        InputError
            Grid or step cannot be found, or what was declared does not fit.
        """
        if call.over == "channels":
            raise NoDistance(f"attends over {call.keys} channels a head, not over tokens")
        if call.queries != call.keys:
            raise NoDistance(f"attends from {call.queries} queries to {call.keys} keys")
        grid, step = self._of("grid", call), self._of("patch_size", call)
        prefix = self._of("prefix", call)
        if prefix is not None:
            prefix = as_prefix(self.operation, prefix)
        found: _Found | None
        if grid is not None:
            found = self._declared_grid(call, as_grid(self.operation, grid), prefix)
        else:
            found = _window(call, prefix) or _whole(call, prefix)
            if found is None:
                raise self._unknown_grid(call)
        if step is not None:
            found = _Found(found.grid, found.prefix, as_patch_size(self.operation, step))
        if found.step is None:
            raise InputError(
                f"{self.operation}: the pixels between the tokens of layer {call.label!r} are "
                f"unknown.\n"
                f"  grid: {found.grid}    model's input: {call.input.image or 'no image'}\n"
                f"  Pass patch_size=pixels from a token to the next (a number, a pair, or a "
                f"mapping from layer to it)."
            )
        return TokenPlaces(found.grid, found.step, found.prefix)

    def check_used(self) -> None:
        """Raise a LayerNotFoundError for a pattern that no layer had."""
        for name in ("grid", "patch_size", "prefix"):
            value = getattr(self, name)
            for pattern in value if isinstance(value, Mapping) else ():
                if (name, pattern) not in self._used:
                    raise LayerNotFoundError(
                        f"{self.operation}: {name} names {pattern!r}, and no layer with attention "
                        f"is called that."
                    )

    def _of(self, name: str, call: AttentionCall) -> Any:
        value = getattr(self, name)
        if not isinstance(value, Mapping):
            return value
        # An exact label goes before an exact name, that before a glob, an earlier before a later.
        known = (call.label, f"{call.name}:{call.call}", call.name)
        globs = [p for p in value if any(fnmatchcase(label, p) for label in known)]
        for pattern in (*(label for label in known if label in value), *globs):
            self._used |= {(name, each) for each in (pattern, *globs)}
            return value[pattern]
        return None

    def _declared_grid(
        self, call: AttentionCall, grid: tuple[int, int], prefix: int | None
    ) -> _Found:
        extra = call.keys - math.prod(grid)
        if extra < 0 or (prefix is not None and prefix != extra):
            raise InputError(
                f"{self.operation}: grid does not fit layer {call.label!r}.\n"
                f"  grid: {grid} → {math.prod(grid)} patches"
                f"{'' if prefix is None else f', prefix: {prefix}'}    tokens: {call.keys}\n"
                f"  Tokens are the prefix and the patches. Pass a mapping from layer to grid where "
                f"layers differ."
            )
        step = _window_step(call, grid) if _n_windows(call) > 1 else _step(call, grid)
        return _Found(grid, extra, step)

    def _unknown_grid(self, call: AttentionCall) -> InputError:
        sizes = list(dict.fromkeys(c.result for c in call.convolutions))[-4:]
        windows = _n_windows(call)
        return InputError(
            f"{self.operation}: the grid of layer {call.label!r} is unknown.\n"
            f"  {call.keys} tokens"
            f"{f' in each of {windows} windows of a sample' if windows > 1 else ''}"
            f"    model's input: {call.input.image or 'no image'}"
            f"    convolutions put out: {', '.join(map(str, sizes)) or 'nothing'}\n"
            f"  Pass grid=(rows, columns), and patch_size= and prefix= where they do not follow; "
            f"or a mapping from layer to these;\n"
            f"  for a text grid=(1, tokens), patch_size=1 gives distances in tokens. Or leave the "
            f"layer out of layers=."
        )


@dataclass(frozen=True)
class _Found:
    grid: tuple[int, int]
    prefix: int
    step: tuple[float, float] | None


def _whole(call: AttentionCall, prefix: int | None) -> _Found | None:
    """Attention over all tokens of an image: a convolution laid the patches."""
    if _n_windows(call) != 1 or call.over == "unknown" or call.keys in call.input.lengths:
        return None
    if prefix is None:
        prefix = _timm_prefix(call)
    for convolution in reversed(call.convolutions):
        extra = call.keys - math.prod(convolution.result)
        fits = 0 <= extra <= MOST_PREFIX if prefix is None else extra == prefix
        if fits and convolution.result != (1, 1):
            return _Found(convolution.result, extra, _step(call, convolution.result))
    if prefix is None or call.input.image is None:
        return None
    # Patches laid by a linear layer: square ones that tile the image, or none that we know of.
    height, width = call.input.image
    patches = call.keys - prefix
    side = math.isqrt(height * width // patches) if patches > 0 else 0
    if not side or height % side or width % side or height * width != patches * side**2:
        return None
    return _Found((height // side, width // side), prefix, (float(side), float(side)))


def _window(call: AttentionCall, prefix: int | None) -> _Found | None:
    """Attention in the windows of Swin: some module around it knows how large they are."""
    if prefix:
        return None
    for frame in reversed(call.frames):
        size = getattr(frame.module, "window_size", None)
        pair = (size, size) if isinstance(size, int) else size
        if not (isinstance(pair, tuple | list) and len(pair) == 2):
            continue
        grid = (int(pair[0]), int(pair[1]))
        if math.prod(grid) == call.keys == call.queries:
            return _Found(grid, 0, _window_step(call, grid))
    return None


def _step(call: AttentionCall, grid: tuple[int, int]) -> tuple[float, float] | None:
    """Pixels from token to token: the stride of what laid them, or the image over the grid."""
    image = call.input.image or next((c.source for c in call.convolutions), None)
    if image is None:
        return None
    for convolution in call.convolutions:
        if convolution.result == grid and convolution.source == image:
            return (float(convolution.stride[0]), float(convolution.stride[1]))
    return (image[0] / grid[0], image[1] / grid[1])


def _window_step(call: AttentionCall, window: tuple[int, int]) -> tuple[float, float] | None:
    """Pixels from token to token of a stage, whose size a module around the attention was given."""
    image = call.input.image or next((c.source for c in call.convolutions), None)
    if image is None:
        return None
    tokens = _n_windows(call) * math.prod(window)
    for frame in reversed(call.frames[1:] or call.frames):
        for rows, columns in _maps(call, frame.shape, frame.pairs):
            # Padded up to whole windows, it has to be the windows' tokens.
            padded = [-(-a // b) * b for a, b in zip((rows, columns), window, strict=True)]
            if math.prod(padded) == tokens:
                return (image[0] / rows, image[1] / columns)
    side = math.isqrt(image[0] * image[1] // tokens)
    exact = side and image[0] * image[1] == tokens * side**2
    if not exact or image[0] % (side * window[0]) or image[1] % (side * window[1]):
        return None
    return (float(side), float(side))


def _maps(
    call: AttentionCall, shape: tuple[int, ...] | None, pairs: tuple[tuple[int, int], ...]
) -> list[tuple[int, int]]:
    """Heights and widths that a module may have been given: of a map, or in so many words."""
    if shape is None or shape[0] != call.input.batch:
        return []
    if len(shape) == 4:
        return [(shape[1], shape[2]), (shape[2], shape[3])]
    return [pair for pair in pairs if len(shape) == 3 and math.prod(pair) == shape[1]]


def n_samples(call: AttentionCall) -> int:
    """Return the number of samples in a call, whose own batch may be samples × windows."""
    batch = call.input.batch
    # Sequence first: what the model was called with may have its tokens in front.
    sequence_first = getattr(call.module, "batch_first", None) is False
    if not batch or sequence_first or call.batch % batch:
        return call.batch
    return batch


def _n_windows(call: AttentionCall) -> int:
    return call.batch // n_samples(call)


def _timm_prefix(call: AttentionCall) -> int | None:
    for frame in reversed(call.frames):
        if (prefix := declared_prefix(frame.module)) is not None:
            return prefix
    return None
