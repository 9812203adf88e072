"""The images of a batch: which tensor they are, and how to replace them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from repsim._errors import InputError
from repsim.capture import tensors_in

__all__ = ["image_of", "with_image"]


def image_of(
    operation: str, batch: Any, *, floating: bool = False, videos: bool = False
) -> Tensor:
    """Return the images of a prepared batch: its first floating-point tensor (n, c, h, w).

    Without ``floating``, the first of any type if none is floating-point. With ``videos``, the
    first with four or five axes.
    """
    tensors = [tensor for tensor in tensors_in(batch) if not tensor.is_nested]
    images = [tensor for tensor in tensors if tensor.ndim == 4 or (videos and tensor.ndim == 5)]
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
    or_videos = ", or videos" if videos else ""
    raise InputError(
        f"{operation}: a batch must hold images (n, channels, height, width){or_videos}.\n"
        f"  got {[tuple(t.shape) for t in tensors[:4]] or type(batch).__name__}\n"
        f"  Make a tensor, a tuple or a mapping of tensors of it with prepare=."
    )


def with_image(batch: Any, image: Tensor, other: Tensor) -> Any:
    """Return a batch with another tensor in place of its images."""
    if batch is image:
        return other
    if isinstance(batch, Mapping):
        return {key: with_image(value, image, other) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(with_image(value, image, other) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(with_image(value, image, other) for value in batch)
    return batch
