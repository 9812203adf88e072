"""The images of a batch: which tensor they are, and how to replace them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from repsim._errors import InputError
from repsim.capture import rebuilt, tensors_in, text_of
from repsim.capture.tokens import channels_of_video

__all__ = ["axes_of", "image_of", "with_image"]


def image_of(operation: str, batch: Any, *, floating: bool = False, videos: bool = False) -> Tensor:
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
    five = not videos and any(t.ndim == 5 and t.is_floating_point() for t in tensors)
    of_video = ": videos and volumes have no patches here" if five else ""
    or_videos = ", or videos" if videos else ""
    repair = "Make a tensor, a tuple or a mapping of tensors of it with prepare=."
    if text_of(batch) is not None:
        repair = "Texts have no pixels: this is for models that see images."
    raise InputError(
        f"{operation}: a batch must hold images (n, channels, height, width){or_videos}.\n"
        f"  got {[tuple(t.shape) for t in tensors[:4]] or type(batch).__name__}{of_video}\n"
        f"  {repair}"
    )


def axes_of(operation: str, image: Tensor) -> tuple[int, tuple[int, ...]]:
    """Return the axis of the channels, and the lengths of the others: (frames,) height, width."""
    shape = tuple(image.shape)
    if image.ndim == 4:
        return 1, shape[2:]
    axis = channels_of_video(shape)
    if axis is None:
        raise InputError(
            f"{operation}: which axis of a video holds its channels is unknown.\n"
            f"  got {shape}\n"
            f"  Exactly one of the axes 1, 2 and 4 must have 1, 3 or 4 channels."
        )
    return axis, tuple(length for i, length in enumerate(shape) if i not in (0, axis))


def with_image(batch: Any, image: Tensor, other: Tensor) -> Any:
    """Return a batch with another tensor in place of its images."""
    if batch is image:
        return other
    return rebuilt(batch, lambda part: with_image(part, image, other))
