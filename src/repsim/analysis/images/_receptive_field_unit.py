"""The unit of a layer whose receptive field is computed."""

from __future__ import annotations

from torch import Tensor

from repsim._errors import InputError
from repsim.analysis.images._positions import LayerGrids
from repsim.analysis.images._receptive_field_sums import Unit
from repsim.analysis.images._receptive_field_totals import UnitPlace
from repsim.capture.tokens import TokenGrid

__all__ = ["Centre"]


class Centre:
    """A transform for the recorder: take the unit at a position of the output inside the hook.

    Later in-place operations on the output then change neither its value nor its graph.
    """

    wants_layer = True

    def __init__(self, operation: str, grids: LayerGrids, position: tuple[int, ...] | None) -> None:
        self._operation = operation
        self._grids = grids
        self._position = position

    def __call__(self, tensor: Tensor, layer: str, call: int) -> Unit | None:
        """Return the unit (n, c) of an output; None if it has no positions."""
        grid = self._grids.of(tensor, layer, call)
        if grid is None:
            return None
        frame, row, column = self._place_in(grid, layer)
        index = grid.prefix + (frame * grid.height + row) * grid.width + column
        return Unit(grid.tokens(tensor)[:, index].clone(), UnitPlace(grid, row, column, frame))

    def _place_in(self, grid: TokenGrid, layer: str) -> tuple[int, int, int]:
        """Return the frame (0 in an image), row and column of the unit."""
        sides: tuple[int, ...] = grid.size if grid.frames is None else (grid.frames, *grid.size)
        place = self._position or tuple(side // 2 for side in sides)
        if len(place) != len(sides) or any(a >= b for a, b in zip(place, sides, strict=True)):
            raise InputError(
                f"{self._operation}: position must lie in every layer's grid.\n"
                f"  got {place}, layer {layer!r} has {'×'.join(map(str, sides))} positions\n"
                f"  Choose layers of one resolution, or leave it out for the centre of each."
            )
        frame, row, column = place if len(place) == 3 else (0, *place)
        return frame, row, column
