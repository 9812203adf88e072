"""A transform together with its batch: masks, modules, and the batch itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from repsim._errors import warn
from repsim.capture._masks import Masks
from repsim.capture._reduce import Reducer
from repsim.capture._transform import Transform, resolve_transform
from repsim.capture._walk import named_layers, unwrap

__all__ = ["BoundTransform"]


class BoundTransform:
    """Apply a transform to outputs of one model, over the real positions of the current batch.

    Parameters
    ----------
    operation : str
        For error messages.
    transform : {"flatten", "cls", "first", "last", "mean"}, callable or None
        A callable with a true ``wants_layer`` gets (tensor, layer, call), and one with a true
        ``wants_batch`` gets the batch as its last argument.
    model : torch.nn.Module
        The model of these layers; its modules show which axes of outputs are positions.
    masks : Masks
        The masks of the current batch.
    """

    wants_layer = True

    def __init__(
        self, operation: str, transform: Transform, model: nn.Module, masks: Masks
    ) -> None:
        self._operation = operation
        self.function = resolve_transform(transform, operation)
        self.masks = masks
        self._modules = {"": unwrap(model), **named_layers(model)}
        self._wants_layer = getattr(self.function, "wants_layer", False)
        self._wants_batch = getattr(self.function, "wants_batch", False)
        self._batch: Any = None
        self._warned = False

    @property
    def needs_batch(self) -> bool:
        """Whether the result may depend on more than the output: its mask, module or batch."""
        return isinstance(self.function, Reducer) or self._wants_batch

    @property
    def depends_on_layer(self) -> bool:
        """Whether the result of one tensor may differ by layer or batch."""
        known = self.function is None or isinstance(self.function, Reducer)
        return self.masks.by_layer or (not known and (self._wants_layer or self._wants_batch))

    def start(self, batch: Any) -> None:
        """Start the next batch, in the form that the model gets."""
        self._batch = batch
        self.masks.start(batch)

    def __call__(self, tensor: Tensor, layer: str, call: int) -> Any:
        """Transform one output, batch first."""
        function: Callable[..., Any] | None = self.function
        if function is None:
            return tensor
        if isinstance(function, Reducer) and function.name == "flatten":
            self.note_padding(layer, tensor)
            return function(tensor, layer, call)
        if isinstance(function, Reducer):
            mask = self.masks.aligned(layer, tensor, function.name)
            return function(tensor, layer, call, mask=mask, module=self._modules.get(layer))
        told = (tensor, layer, call) if self._wants_layer else (tensor,)
        return function(*told, self._batch) if self._wants_batch else function(*told)

    def note_padding(self, layer: str, tensor: Tensor) -> None:
        """Warn once if padding is among the features."""
        if self._warned or tensor.ndim < 3:
            return
        padding = self.masks.n_padding(layer, tuple(tensor.shape))
        if not padding:
            return
        self._warned = True
        warn(
            f"{self._operation}: padding is compared as if it were data, from layer {layer!r} on: "
            f"{padding} of {tensor.shape[0] * tensor.shape[1]} positions of a batch are padding.\n"
            f'  Take the real ones: transform="mean", "last", "first" or token(i). '
            f"mask=None says that all positions are real."
        )
