"""Where the tokens of an attention call lie: grid, step, prefix and padding."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeAlias

from repsim._errors import InputError
from repsim.capture import AttentionCall
from repsim.capture.tokens import (
    MOST_PREFIX,
    Declared,
    Size,
    TokenGrid,
    TokenOptions,
    VideoSize,
    between_frames,
    declared_prefix,
    divided,
    grid_of_sequence,
    grid_of_video,
    maps_of_image,
    real_in_windows,
    steps_of,
    tiles,
    window_of,
)

__all__ = ["NoDistance", "Places", "PlacesFinder", "n_samples"]

Real: TypeAlias = tuple[tuple[bool, ...], ...]


class NoDistance(Exception):  # noqa: N818 - turned into a warning or a CaptureError
    """Attention that has no distances for any options."""


@dataclass(frozen=True)
class Places:
    """Where tokens lie.

    Attributes
    ----------
    grid : TokenGrid
        The grid of the image, or of a window if attention is in windows. Its step is known.
    real : tuple of tuple of bool, or None
        Which positions of each window are tokens and not padding; None if all are.
    text : bool
        Whether these are the tokens of texts: one row, a step of 1.
    """

    grid: TokenGrid
    real: Real | None = None
    text: bool = False

    def of_length(self, tokens: int) -> Places:
        """Return the places of a text of another length."""
        return replace(self, grid=replace(self.grid, width=tokens - self.grid.prefix))

    @property
    def video(self) -> bool:
        """Whether these are the tokens of a video, or of a part of it."""
        return self.grid.frame_step is not None

    @property
    def step(self) -> tuple[float, float]:
        """Pixels of the input from one token to the next, along height and width."""
        assert self.grid.step is not None, "places have a step"
        return self.grid.step


class PlacesFinder:
    """Find where the tokens of the attention calls of one model lie.

    Parameters
    ----------
    options : TokenOptions
        The options of the caller; the rest is found.
    """

    def __init__(self, options: TokenOptions) -> None:
        self.options = options
        self._declared: Declared | None = None
        self._queries: set[tuple[str, int]] = set()

    def saw_cross(self, call: AttentionCall) -> None:
        """Remember the blocks in which queries attend to all patches of the image."""
        patches = {math.prod(each.result) for each in call.convolutions}
        if call.keys in patches - call.input.lengths - call.input.sequences:
            self._queries |= {(frame.name, call.queries) for frame in call.frames[1:-1]}

    def of(self, call: AttentionCall) -> Places:
        """Return the places of a call.

        Raises
        ------
        NoDistance
            It attends over channels, or its queries are not among its keys.
        InputError
            Grid or step cannot be found, or the caller's options do not fit.
        """
        if call.over == "channels":
            raise NoDistance(f"attends over {call.keys} channels a head, not over tokens")
        if call.queries != call.keys:
            raise NoDistance(f"attends from {call.queries} queries to {call.keys} keys")
        # An exact label takes precedence over an exact name.
        labels = (call.label, f"{call.name}:{call.call}", call.name)
        grid, prefix = self.options.grid_of(*labels), self.options.prefix_of(*labels)
        if (video := self.options.video_grid_of(*labels)) is not None:
            return self._of_video(call, video, labels)
        if grid is not None:
            places = self._given(call, grid, prefix)
        else:
            found = self._text(call, prefix)
            if found is None:
                found = (None if prefix else _window(call)) or self._whole(call, prefix)
            if found is None:
                raise self._unknown_grid(call)
            places = found
        step = self.options.patch_size_of(*labels) or places.grid.step
        if step is None:
            raise self._unknown_step(call, places.grid)
        at = places.grid
        return replace(places, grid=TokenGrid(at.height, at.width, at.prefix, step=step))

    def _of_video(self, call: AttentionCall, grid: VideoSize, labels: tuple[str, ...]) -> Places:
        """Attention over a video, over each of its frames, or along time at each place."""
        prefix = self.options.prefix_of(*labels)
        found = grid_of_video(call.keys, _n_windows(call), grid, prefix=prefix)
        if found is None:
            raise InputError(
                f"{self.options.operation}: grid does not fit layer {call.label!r}.\n"
                f"  grid: {grid}, frames × rows × columns    prefix: {prefix}    tokens: "
                f"{call.keys} in each of {_n_windows(call)} sequences of a sample\n"
                f"  Attention may cover the video, each frame, or each place along time. Pass a "
                f"mapping from layer to grid, or leave the layer out of layers=."
            )
        (frames, height, width), extra = found
        video = call.input.video
        if (
            call.input.image is not None
            and video is None
            and not self.options.frame_step_of(*labels)
        ):
            raise InputError(
                f"{self.options.operation}: grid must be (rows, columns) where the input is an "
                f"image.\n"
                f"  grid: {grid}    model's input: {call.input.image}, layer {call.label!r}\n"
                f"  If the images are frames of a video, pass patch_size=(frames, height, width) "
                f"too."
            )
        step, frame_step = self.options.patch_size_of(*labels), self.options.frame_step_of(*labels)
        if video is not None:
            step = step or divided(video[1:], grid[1:])
            frame_step = frame_step or between_frames(video[0], grid[0])
        if step is None or frame_step is None:
            raise InputError(
                f"{self.options.operation}: the steps between the tokens of layer {call.label!r} "
                f"are unknown.\n"
                f"  grid: {grid}    model's input: {video or 'no video'}, frames × height × width\n"
                f"  Pass patch_size=(frames, height, width) from a token to the next."
            )
        at = TokenGrid(height, width, extra, step=step, frames=frames, frame_step=frame_step)
        return Places(at)

    def _given(self, call: AttentionCall, grid: Size, prefix: int | None) -> Places:
        extra = call.keys - math.prod(grid)
        too_many = prefix is None and extra > MOST_PREFIX  # such as other frames
        if extra < 0 or too_many or (prefix is not None and prefix != extra):
            raise InputError(
                f"{self.options.operation}: grid does not fit layer {call.label!r}.\n"
                f"  grid: {grid} → {math.prod(grid)} patches"
                f"{'' if prefix is None else f', prefix: {prefix}'}    tokens: {call.keys}\n"
                f"  Tokens are the prefix and the patches. Pass a mapping from layer to grid where "
                f"layers differ, grid=(frames, rows, columns) for a video, and prefix= if there "
                f"are more than {MOST_PREFIX} other tokens."
            )
        if grid[0] == 1 and (call.keys in call.input.lengths or call.input.image is None):
            return Places(TokenGrid(*grid, extra, step=(1.0, 1.0)), text=True)
        if _n_windows(call) > 1 and not extra:
            # Tokens of windows that no module declares may lie far apart, as in MaxViT.
            places, known = _in_windows(call, grid), _window(call)
            is_known = known is not None and known.grid.size == grid
            return places if is_known else replace(places, grid=TokenGrid(*grid))
        step = _steps(call, grid)
        if step is None and (image := _image(call)) is not None:
            step = divided(image, grid)
        return Places(TokenGrid(*grid, extra, step=step))

    def _text(self, call: AttentionCall, prefix: int | None) -> Places | None:
        """Attention among the tokens that the model got as numbers, in their order."""
        tokens = call.keys - (prefix or 0)
        if call.over != "tokens" or call.keys not in call.input.lengths or tokens < 1:
            return None
        if self._of_maps(call, prefix) is not None:
            raise self._unknown_grid(call)  # an image has as many patches as the text has tokens
        return Places(TokenGrid(1, tokens, prefix or 0, step=(1.0, 1.0)), text=True)

    def _of_maps(self, call: AttentionCall, prefix: int | None) -> tuple[Size, int] | None:
        """Return the grid and the prefix from a convolution before the call."""
        if self._declared is None:
            self._declared = Declared.by(call.frames[0].module)
        around = declared_prefix(frame.module for frame in reversed(call.frames))
        declared = self._declared.named if around is None else around
        maps = maps_of_image(call.convolutions, call.input.image)
        # Convolutions of sounds and series make maps of time and frequency, and tokens of time.
        known = {"prefix": prefix, "declared": declared}
        return grid_of_sequence(call.keys, maps, **known, merging=call.input.image is not None)

    def _whole(self, call: AttentionCall, prefix: int | None) -> Places | None:
        """Attention over all tokens of an image, made by a convolution or a linear layer."""
        if _n_windows(call) != 1 or call.over == "unknown" or call.keys in call.input.lengths:
            return None
        if found := self._of_maps(call, prefix):
            seen = any((frame.name, call.keys) in self._queries for frame in call.frames[1:-1])
            if seen or _is_of_queries(call):
                raise NoDistance(
                    f"attends among {call.keys} queries of another sequence, whose places are "
                    f"unknown; grid= gives them places"
                )
            size, extra = found
            return Places(TokenGrid(*size, extra, step=_steps(call, size)))
        around = declared_prefix(frame.module for frame in reversed(call.frames))
        known = around if prefix is None else prefix
        if known is None or call.input.image is None:
            return None
        if (tiled := tiles(call.keys - known, call.input.image)) is None:
            return None
        return Places(TokenGrid(*tiled, known, step=divided(call.input.image, tiled)))

    def _unknown_grid(self, call: AttentionCall) -> InputError:
        sizes = list(dict.fromkeys(c.result for c in call.convolutions))[-4:]
        windows = _n_windows(call)
        return InputError(
            f"{self.options.operation}: the grid of layer {call.label!r} is unknown.\n"
            f"  {call.keys} tokens"
            f"{f' in each of {windows} windows of a sample' if windows > 1 else ''}"
            f"    model's input: {call.input.image or call.input.video or 'no image'}"
            f"    convolutions put out: {', '.join(map(str, sizes)) or 'nothing'}\n"
            f"  Pass grid=(rows, columns), and patch_size= and prefix= where they do not follow; "
            f"or a mapping from layer to these;\n"
            f"  A sequence has grid=(1, tokens), and its distances are in tokens. A video has "
            f"grid=(frames, rows, columns).\n  Or leave the layer out of layers=."
        )

    def _unknown_step(self, call: AttentionCall, grid: TokenGrid) -> InputError:
        return InputError(
            f"{self.options.operation}: the pixels between the tokens of layer {call.label!r} are "
            f"unknown.\n"
            f"  grid: {grid.size}    model's input: {call.input.image or 'no image'}\n"
            f"  Pass patch_size=pixels from a token to the next (a number, a pair, or a "
            f"mapping from layer to it)."
        )


def n_samples(call: AttentionCall) -> int:
    """Return the number of samples in a call, whose batch may be samples × windows."""
    batch = call.input.batch
    # Sequence first: the input of the model may have its tokens on axis 0.
    sequence_first = getattr(call.module, "batch_first", None) is False
    if not batch or sequence_first or call.batch % batch:
        return call.batch
    return batch


def _is_of_queries(call: AttentionCall) -> bool:
    """Whether a block around the call gets a second sequence that the model makes.

    As in the decoder of DETR, its own tokens are then learned queries, and the second sequence is
    the image. A second sequence that the model got is a text beside an image.
    """
    given = call.input.lengths | call.input.sequences
    others = [frame.other for frame in call.frames[:-1] if frame.other is not None]
    return any(given.isdisjoint(shape[:2]) for shape in others)


def _n_windows(call: AttentionCall) -> int:
    return call.batch // n_samples(call)


def _image(call: AttentionCall) -> Size | None:
    return call.input.image or next((c.source for c in call.convolutions), None)


def _steps(call: AttentionCall, size: Size) -> tuple[float, float] | None:
    return steps_of(size, call.input.image, call.convolutions)


def _window(call: AttentionCall) -> Places | None:
    """Attention in the windows of Swin, whose size a module around it declares."""
    sizes = (getattr(frame.module, "window_size", None) for frame in reversed(call.frames))
    pairs = ((size, size) if isinstance(size, int) else size for size in sizes)
    window = window_of(
        call.keys,
        ((int(p[0]), int(p[1])) for p in pairs if isinstance(p, tuple | list) and len(p) == 2),
    )
    return None if window is None else _in_windows(call, window)


def _in_windows(call: AttentionCall, window: Size) -> Places:
    """Place the tokens of windows: the map that they divide, its step, and its padding."""
    size = _map_in_windows(call, window)
    if size is None:
        return Places(TokenGrid(*window))
    real = real_in_windows(size, window, call.moves)
    if real is None:
        raise NoDistance(
            f"attends in windows of {window[0]}×{window[1]} on a map of {size[0]}×{size[1]}, and "
            f"where its padding lies was not seen"
        )
    places = None if real.all() else tuple(tuple(row) for row in real.tolist())
    return Places(TokenGrid(*window, step=_steps(call, size)), places)


def _map_in_windows(call: AttentionCall, window: Size) -> Size | None:
    """Return the size of the map that the windows of a call divide.

    It is the input of a module around the attention, else a map of a convolution, else a map that
    whole windows and square patches tile.
    """
    tokens = _n_windows(call) * math.prod(window)

    def fits(size: Size) -> bool:
        padded = (-(-a // b) * b for a, b in zip(size, window, strict=True))
        return math.prod(padded) == tokens

    for frame in reversed(call.frames[1:] or call.frames):
        for size in _maps(call, frame.shape, frame.pairs):
            if fits(size):
                return size
    for each in reversed(call.convolutions):
        if fits(each.result):
            return each.result
    image = _image(call)
    tiled = None if image is None else tiles(tokens, image)
    if tiled is not None and all(a % b == 0 for a, b in zip(tiled, window, strict=True)):
        return tiled
    return None


def _maps(
    call: AttentionCall, shape: tuple[int, ...] | None, pairs: tuple[Size, ...]
) -> list[Size]:
    """Possible heights and widths in the input of a module: of a map, or a pair of numbers."""
    if shape is None or shape[0] != call.input.batch:
        return []
    if len(shape) == 4:
        return [(shape[1], shape[2]), (shape[2], shape[3])]
    return [pair for pair in pairs if len(shape) == 3 and math.prod(pair) == shape[1]]
