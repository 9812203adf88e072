"""Applying a transform to an output inside a hook, and checking the result."""

from __future__ import annotations

from torch import Tensor

from repsim._errors import CaptureError
from repsim.capture import BoundTransform

__all__ = ["reduced"]


def reduced(
    operation: str, reduce: BoundTransform | None, tensor: Tensor, layer: str, call: int
) -> Tensor:
    """Return an output after its transform, (n, ...) as before, or raise an error.

    Parameters
    ----------
    operation : str
        The caller's name, for errors.
    reduce : BoundTransform, optional
        The transform; None keeps the output.
    tensor : torch.Tensor, shape (n, ...)
        The output.
    layer, call : str, int
        Which one.
    """
    values = tensor
    if reduce is not None:
        values = reduce(tensor, layer, call)
        if not isinstance(values, Tensor) or values.shape[:1] != tensor.shape[:1]:
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise CaptureError(
                f"{operation}: transform must keep the samples on axis 0.\n"
                f"  layer {layer!r}: from {tuple(tensor.shape)} it made {got}\n"
                f"  Reduce the other axes, for example transform=lambda x: x.mean(1)."
            )
    if values.numel() == 0:
        raise CaptureError(
            f"{operation}: layer {layer!r} has no features.\n  {tuple(values.shape)}\n"
            f"  Leave it out of layers=."
        )
    return values
