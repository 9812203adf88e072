"""Where the tokens of a layer's output lie in the image: its grid, its prefix, its axes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from repsim._errors import CaptureError, InputError, warn
from repsim.analysis.images._patches import MOST_PREFIX, declared_prefix, map_sizes, merged
from repsim.capture import Layers, select_layers, tensors_in, unwrap

__all__ = ["TokenGrid", "TokenGrids", "image_of", "pair_of", "with_image"]

logger = logging.getLogger("repsim")


@dataclass(frozen=True, slots=True)
class TokenGrid:
    """How one output holds its positions: prefix tokens, then a grid, row by row."""

    height: int
    width: int
    prefix: int = 0
    channels_first: bool = False

    @property
    def n_tokens(self) -> int:
        """Prefix tokens and grid positions together."""
        return self.prefix + self.height * self.width

    def tokens(self, x: Tensor) -> Tensor:
        """Return an output of this layout as (n, tokens, channels), without a copy if possible."""
        if x.ndim == 3:
            return x
        return x.flatten(2).transpose(1, 2) if self.channels_first else x.flatten(1, 2)


class TokenGrids:
    """Find the grid of every output, from its shape, the image's, and the convolutions before it.

    - (n, a, b, c) is a map: channels first if b×c has the image's aspect, channels last if a×b
      has. Where both do, the model must hold no LayerNorm, as those that keep channels last do.
    - (n, tokens, channels) is a sequence: the ``nn.Conv2d`` before it whose output h×w leaves the
      fewest tokens over, 0 to 16 (where the model has timm's ``num_prefix_tokens``: so many, or
      none), laid the patches; or h×w, both divided by one integer, is all of it (patch merging).

    A context manager: it listens to the model's convolutions, and removes its hooks.

    Parameters
    ----------
    operation : str
        For error messages.
    model : torch.nn.Module
        The model.
    layers : Layers
        What was asked for: an output without positions is an error where it was asked for by exact
        name, and is left out otherwise.
    grid : tuple of two int, optional
        Rows and columns of the patches of sequences, in place of the convolutions'.
    prefix : int, optional
        How many tokens come before them.
    channels_last : bool, optional
        What all maps are.
    """

    def __init__(
        self,
        operation: str,
        model: nn.Module,
        layers: Layers,
        *,
        grid: tuple[int, int] | None = None,
        prefix: int | None = None,
        channels_last: bool | None = None,
    ) -> None:
        self._operation = operation
        self._root = unwrap(model)
        self._chosen = {layer.name: layer for layer in select_layers(model, layers)}
        self._grid = pair_of(operation, "grid", grid)
        if prefix is not None and (not isinstance(prefix, int) or prefix < 0):
            raise InputError(f"{operation}: prefix must be a number of tokens.\n  got {prefix!r}")
        self._prefix = _timm_prefix(self._root) if prefix is None else prefix
        self._channels_last = channels_last
        self._mixed = any(isinstance(module, nn.LayerNorm) for module in self._root.modules())
        self._stack: ExitStack | None = None
        self._image = (0, 0)
        self._convolutions: list[tuple[int, int]] = []
        self._without: dict[tuple[str, int], tuple[str, bool]] = {}
        self._told: set[tuple[str, int]] = set()

    def __enter__(self) -> TokenGrids:
        with ExitStack() as stack:
            if self._grid is None:
                self._convolutions = stack.enter_context(map_sizes(self._root))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.close()

    def start(self, image: Tensor) -> None:
        """Get ready for the forward of a batch of images (n, channels, height, width)."""
        self._image = (int(image.shape[2]), int(image.shape[3]))
        self._convolutions.clear()

    def of(self, output: Tensor, layer: str, call: int) -> TokenGrid | None:
        """Return the grid of an output, batch first; None for one that is left out.

        Raises
        ------
        CaptureError
            The layer was asked for by exact name, and its output has no positions.
        """
        found = self._find(output)
        if isinstance(found, TokenGrid):
            return found
        if self._chosen[layer].requires(call):
            raise CaptureError(
                f"{self._operation}: the positions of layer {layer!r} are unknown.\n"
                f"  it returned {tuple(output.shape)}: {found}\n"
                f"  Maps (n, c, h, w) or (n, h, w, c) and tokens (n, tokens, d) have positions. "
                f"Pass grid=(rows, columns)\n  and prefix= for tokens, channels_last= for maps, or "
                f"leave the layer out."
            )
        matter_of_course = output.ndim < 3
        self._without[layer, call] = (f"{tuple(output.shape)}: {found}", matter_of_course)
        return None

    def report(self, kept: Iterable[object]) -> None:
        """Say which layers were left out; an error if none is kept."""
        news = {key: why for key, why in self._without.items() if key not in self._told}
        self._told.update(news)
        loud = [f"  {name} {why}\n" for (name, _), (why, quiet) in news.items() if not quiet]
        if not list(kept):
            lines = [f"  {name} {why}\n" for (name, _), (why, _) in self._without.items()]
            raise CaptureError(
                f"{self._operation}: none of the chosen layers has positions.\n"
                f"{''.join(lines[:8])}"
                f"  Choose layers that return maps or tokens, or pass grid=, prefix= or "
                f"channels_last=."
            )
        if len(loud) < len(news):
            logger.info("%s: vectors have no positions: left out", self._operation)
        if loud:
            more = f"  and {len(loud) - 12} more\n" if len(loud) > 12 else ""
            warn(
                f"{self._operation}: layers whose positions are unknown were left out:\n"
                f"{''.join(loud[:12])}{more}"
                f"  Pass grid=, prefix= or channels_last=, or choose other layers.",
            )

    # -- rules -----------------------------------------------------------------------------------

    def _find(self, output: Tensor) -> TokenGrid | str:
        """Return the grid, or why there is none."""
        if output.ndim == 4:
            return self._of_map(*(int(size) for size in output.shape[1:]))
        if output.ndim == 3:
            return self._of_sequence(int(output.shape[1]))
        return "no axes of positions"

    def _of_map(self, a: int, b: int, c: int) -> TokenGrid | str:
        first, last = TokenGrid(b, c, channels_first=True), TokenGrid(a, b)
        if self._channels_last is not None:
            return last if self._channels_last else first
        fits = [grid for grid in (first, last) if self._has_aspect(grid.height, grid.width)]
        if len(fits) == 2 and not self._mixed:
            return first
        if len(fits) != 1:
            problem = "channels may be first or last" if fits else "no map of the image's aspect"
            return f"{problem} ({self._image[0]}×{self._image[1]} pixels)"
        return fits[0]

    def _has_aspect(self, height: int, width: int) -> bool:
        tall, wide = self._image
        if height > tall or width > wide:
            return False
        # Strides round; on a square image they round alike in both directions.
        slack = 0 if tall == wide else max(tall, wide)
        return abs(height * wide - width * tall) <= slack

    def _of_sequence(self, n: int) -> TokenGrid | str:
        grids = self._convolutions[::-1] if self._grid is None else [self._grid]
        known = self._prefix
        prefixes = range(MOST_PREFIX + 1) if known is None else sorted({known, 0}, reverse=True)
        # The fewest over, not the latest: attention may reduce its keys by convolutions of its own.
        left = [(n - height * width, height, width) for height, width in grids]
        if fitting := [each for each in left if each[0] in prefixes]:
            over, height, width = min(fitting, key=lambda each: each[0])
            return TokenGrid(height, width, over)
        for height, width in grids:
            if smaller := merged(n, height, width):
                return TokenGrid(*smaller)
        tried = ", ".join(f"{h}×{w}" for h, w in dict.fromkeys(grids)) or "no convolution before it"
        with_prefix = "" if known is None else f", prefix {known}"
        return f"{n} tokens fit no patch grid ({tried}{with_prefix})"


def image_of(operation: str, batch: Any, *, floating: bool = False) -> Tensor:
    """Return the images of a prepared batch: its first floating-point tensor (n, c, h, w).

    Without ``floating``, the first of any type where none is floating-point.
    """
    tensors = [tensor for tensor in tensors_in(batch) if not tensor.is_nested]
    images = [tensor for tensor in tensors if tensor.ndim == 4]
    for tensor in images:
        if tensor.is_floating_point():
            return tensor
    if images and not floating:
        return images[0]
    if images:
        raise InputError(
            f"{operation}: images must be floating-point, integers have no gradient.\n"
            f"  got {tuple(images[0].shape)} of {images[0].dtype}\n"
            f"  Convert them with prepare=lambda batch: batch.float() / 255"
        )
    raise InputError(
        f"{operation}: a batch must hold images (n, channels, height, width).\n"
        f"  got {[tuple(t.shape) for t in tensors[:4]] or type(batch).__name__}\n"
        f"  Make a tensor, a tuple or a mapping of tensors of it with prepare=."
    )


def with_image(batch: Any, image: Tensor, other: Tensor) -> Any:
    """Return a batch with another tensor in the place of its images."""
    if batch is image:
        return other
    if isinstance(batch, Mapping):
        return {key: with_image(value, image, other) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(with_image(value, image, other) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(with_image(value, image, other) for value in batch)
    return batch


def pair_of(
    operation: str, argument: str, value: object, *, least: int = 1
) -> tuple[int, int] | None:
    """Check an optional pair (rows, columns)."""
    if value is None:
        return None
    pair = tuple(value) if isinstance(value, tuple | list) else ()
    if [type(v) for v in pair] != [int, int] or min(pair) < least:
        raise InputError(
            f"{operation}: {argument} must be two integers of at least {least}, (row, column).\n"
            f"  got {value!r}"
        )
    return pair[0], pair[1]


def _timm_prefix(root: nn.Module) -> int | None:
    found = {value for module in root.modules() if (value := declared_prefix(module)) is not None}
    return found.pop() if len(found) == 1 else None
