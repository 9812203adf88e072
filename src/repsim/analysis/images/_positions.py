"""Where the positions of each layer's output lie, and which layers have none."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from repsim._errors import CaptureError, warn
from repsim.analysis.images._batch import axes_of
from repsim.capture import Layers, select_layers, unwrap
from repsim.capture.tokens import (
    Convolution,
    Declared,
    ModelInput,
    PatchOrder,
    PositionAxes,
    Queries,
    Size,
    TokenGrid,
    TokenOptions,
    declared_prefix,
    grid_of_map,
    grid_of_sequence,
    grid_of_video,
    maps_of_image,
    modules_around,
    steps_of,
    watching,
)

__all__ = ["LayerGrids"]

logger = logging.getLogger("repsim")


class LayerGrids:
    """Find the grid of every output, by the rules of :mod:`repsim.capture.tokens`.

    A context manager that records the convolutions of the model and removes its hooks.

    Parameters
    ----------
    options : TokenOptions
        The caller's options about grids and prefixes.
    model : torch.nn.Module
        The model.
    layers : Layers
        The requested layers. An output without positions is an error for a layer with an exact
        name; other layers are left out.
    channels_last : bool, optional
        Whether channels are last in all maps.

    Attributes
    ----------
    n_images : int
        Images, or videos, of the batch that was measured last.
    """

    def __init__(
        self,
        options: TokenOptions,
        model: nn.Module,
        layers: Layers,
        *,
        channels_last: bool | None = None,
    ) -> None:
        self._options = options
        self._operation = options.operation
        self._root = unwrap(model)
        self._chosen = {layer.name: layer for layer in select_layers(model, layers)}
        self._channels_last = channels_last
        self._declared = Declared.by(model)
        self._stack: ExitStack | None = None
        self._axes = PositionAxes(model)
        self.n_images = 0
        self._queries, self._given = Queries(model), ModelInput()
        self._order = PatchOrder(model)
        self._image: Size = (0, 0)
        self._frames: int | None = None
        self._convolutions: list[Convolution] = []
        self._without: dict[tuple[str, int], tuple[str, bool]] = {}
        self._told: set[tuple[str, int]] = set()
        self.rows_of: Callable[[str, int], int] = lambda _layer, _call: 1
        """How many rows of an output are of one sample: they may be windows, in any order."""

    def __enter__(self) -> LayerGrids:
        with ExitStack() as stack:
            self._convolutions = stack.enter_context(watching(self._root))
            stack.enter_context(self._queries.watching())
            stack.enter_context(self._order.watching())
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.close()

    def measure(self, image: Tensor) -> None:
        """Take the sizes of the images (n, channels, height, width), or videos, of a batch."""
        _, (*frames, height, width) = axes_of(self._operation, image)
        self.n_images = int(image.shape[0])
        self._image, self._frames = (height, width), frames[0] if frames else None

    def start(self, batch: Any) -> None:
        """Prepare for the forward of a batch, after those that look for its samples."""
        self._convolutions.clear()
        self._queries.clear()
        self._order.start()
        self._given = ModelInput.of(batch)

    def of(self, output: Tensor, layer: str, call: int) -> TokenGrid | None:
        """Return the grid of an output, batch first; None if the layer is left out.

        Raises
        ------
        CaptureError
            The output of a layer with an exact name has no positions.
        """
        found = self._find(output, layer, call)
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
        """Warn about layers that were left out; raise if none is kept."""
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

    def _find(self, output: Tensor, layer: str, call: int) -> TokenGrid | str:
        """Return the grid, or the reason why there is none."""
        if (rows := self.rows_of(layer, call)) > 1:
            return f"{rows} rows of each sample, for example windows, have no common grid"
        if self._frames is not None:
            return self._of_video(output, layer, call)
        if output.ndim == 4:
            return self._of_map(output)
        if output.ndim == 3:
            return self._of_sequence(int(output.shape[1]), layer, call)
        return "no axes of positions"

    def _of_video(self, output: Tensor, layer: str, call: int) -> TokenGrid | str:
        """Find the grid of a map with three dimensions; that of tokens is given."""
        shape = tuple(output.shape)
        if output.ndim == 5:
            first = self._channels_first(layer, shape)
            if first is None:
                return "channels may be first or last"
            frames, height, width = shape[2:] if first else shape[1:-1]
            return TokenGrid(height, width, channels_first=first, frames=frames)
        if output.ndim != 3:
            return "no axes of frames, rows and columns"
        labels = (f"{layer}:{call}", layer)
        grid, prefix = self._options.video_grid_of(*labels), self._options.prefix_of(*labels)
        if grid is None:
            return "tokens of a video have a grid (frames, rows, columns), which must be given"
        found = grid_of_video(shape[1], 1, grid, prefix=prefix)
        if found is None or found[0] != grid:
            return f"{shape[1]} tokens do not fit grid {grid} with prefix {prefix}"
        return TokenGrid(grid[1], grid[2], found[1], frames=grid[0])

    def _channels_first(self, layer: str, shape: tuple[int, ...]) -> bool | None:
        if self._channels_last is not None:
            return not self._channels_last
        return self._axes.features_first(layer, shape)

    def _of_map(self, output: Tensor) -> TokenGrid | str:
        a, b, c = (int(size) for size in output.shape[1:])
        found = grid_of_map(
            (a, b, c),
            self._image,
            self._maps(),
            channels_last=self._channels_last,
            mixed=self._declared.channels_last,
        )
        if found is None:
            return (
                f"channels may be first or last, and the aspect of the image does not show which "
                f"({self._image[0]}×{self._image[1]} pixels)"
            )
        size, first = found
        return TokenGrid(*size, channels_first=first, step=self._step(size))

    def _of_sequence(self, n: int, layer: str, call: int) -> TokenGrid | str:
        labels = (f"{layer}:{call}", layer)
        grid, prefix = self._options.grid_of(*labels), self._options.prefix_of(*labels)
        around = declared_prefix(modules_around(self._root, layer))
        declared = self._declared.named if around is None else around
        if grid is None and n in self._given.lengths:
            return f"{n} tokens may be those of a text, which has as many"
        if grid is None and self._queries.hold(layer, n, self._given):
            return f"its {n} tokens are queries that the model learned, and not patches"
        order = self._order.of(f"{layer}:{call}", n)
        if order is not None and order.forbids(grid, n):
            return order.problem
        maps = self._maps() if grid is None else [grid]
        found = grid_of_sequence(n, maps, prefix=prefix, declared=declared)
        if found is not None:
            size, over = found
            return TokenGrid(*size, over, step=self._step(size))
        tried = ", ".join(f"{h}×{w}" for h, w in dict.fromkeys(maps)) or "no convolution before it"
        known = declared if prefix is None else prefix
        with_prefix = "" if known is None else f", prefix {known}"
        return f"{n} tokens fit no patch grid ({tried}{with_prefix})"

    def _maps(self) -> list[Size]:
        return maps_of_image(self._convolutions, self._image)

    def _step(self, size: Size) -> tuple[float, float] | None:
        return steps_of(size, self._image, self._convolutions)
