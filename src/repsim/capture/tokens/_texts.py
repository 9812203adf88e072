"""Finding the positions of a text in an output with several axes."""

from __future__ import annotations

from torch import Tensor

from repsim.capture._masks import Masks
from repsim.capture._output import UnusableOutput
from repsim.capture.tokens._axes import PositionAxes

__all__ = ["TextPositions"]


class TextPositions:
    """Finds the axis that is as long as the mask or, without one, as the texts of the batch.

    It is behind others in streams (B, 3, N, D) and in heads (B, H, N, D).

    Parameters
    ----------
    operation : str
        For error messages.
    masks : Masks
        The masks of the current batch.
    axes : PositionAxes
        Knows the texts of the current batch, and the widths of the layers.
    """

    def __init__(self, operation: str, masks: Masks, axes: PositionAxes) -> None:
        self._operation, self._masks, self._axes = operation, masks, axes

    def found(self, tensor: Tensor, layer: str, call: int) -> Tensor | None:
        """Return an output of texts with its positions on axis 1; None if it has none.

        Pairs of positions are refused, such as (B, N, N, D) and attention weights, because a mask
        does not say which pairs are real.
        """
        shape = tuple(tensor.shape)
        axes = [axis for axis in range(1, tensor.ndim) if self._fits(shape, axis, layer, call)]
        last = tensor.ndim - 1
        # Heads have weights as long as texts may be, so behind axis 1 the layer's own decide.
        if last in axes and self._axes.is_width(layer, shape[last], own=axes[0] > 1):
            axes.remove(last)
        if not axes or axes == [last]:
            return None
        if len(axes) > 1:
            shown = " and ".join(map(str, axes))
            raise UnusableOutput(
                f"{self._operation}: axes {shown} of layer {layer!r} may be its positions.\n"
                f"  it returned {shape}, and each of these is as long as a text of the batch\n"
                f"  Pass a callable, for example transform=lambda x: x.mean(1), or choose other "
                f"layers.",
                brief=f"{shape}: axes {shown} may be its positions",
            )
        return tensor.movedim(axes[0], 1)

    def _fits(self, shape: tuple[int, ...], axis: int, layer: str, call: int) -> bool:
        """Whether an axis is as long as the mask or, without one, as the texts of the batch."""
        expected = (shape[0], shape[axis])
        try:
            mask = self._masks.of(layer, expected, call)
        except UnusableOutput:  # of this length by accident, as an error says later
            return True
        if mask is None:
            return self._axes.is_length_of_texts(shape[axis])
        return tuple(mask.shape) == expected
