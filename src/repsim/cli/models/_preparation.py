"""Preparing a picture for a model: size, channels and scale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["SCALES", "Preparation", "Scale", "channels_of", "plain_preparation"]

CROPPED = 0.875
"""Default part of the shorter side that is kept: 224 of 256."""

Scale: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, of pixels in [0, 1]."""

SCALES: dict[str, Scale] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


@dataclass(frozen=True)
class Preparation:
    """How one model gets its images.

    Attributes
    ----------
    shape : (int, int, int)
        Channels, height and width of the tensor.
    label : str
        Description in words; equal preparations have equal labels.
    apply : callable
        A function from a PIL image of ``mode`` to a tensor of ``shape``.
    """

    shape: tuple[int, int, int]
    label: str
    apply: Callable[[Any], Tensor]

    @property
    def mode(self) -> str:
        """The mode to which PIL converts the image first."""
        return "L" if self.shape[0] == 1 else "RGB"

    def __call__(self, image: Any) -> Tensor:
        """Return the tensor of one image."""
        return self.apply(image.convert(self.mode))


def plain_preparation(size: int, channels: int, scale: Scale) -> Preparation:
    """Resize the shorter side, crop the centre, and scale; for models without a preparation.

    Parameters
    ----------
    size : int
        Height and width in pixels.
    channels : int
        1 or 3.
    scale : (tuple of float, tuple of float)
        The values that are subtracted from pixels in [0, 1], and their divisors; for grey images
        the means over channels.
    """
    mean, deviation = (np.array(each, dtype=np.float32) for each in scale)
    if channels == 1:
        mean, deviation = mean.mean(keepdims=True), deviation.mean(keepdims=True)
    described = f"less {np.round(mean, 4).tolist()}, over {np.round(deviation, 4).tolist()}"
    shorter = round(size / CROPPED)

    def apply(image: Any) -> Tensor:
        import torch
        from PIL import Image

        factor = shorter / min(image.size)
        width, height = (max(size, round(side * factor)) for side in image.size)
        left, top = (width - size) // 2, (height - size) // 2
        resized = image.resize((width, height), Image.Resampling.BICUBIC)
        cropped = resized.crop((left, top, left + size, top + size))
        pixels = np.asarray(cropped, dtype=np.float32).reshape(size, size, -1) / 255
        return torch.from_numpy(((pixels - mean) / deviation).transpose(2, 0, 1).copy())

    label = f"shorter side {shorter}, centre {size}x{size}, {channels} channels, {described}"
    return Preparation((channels, size, size), label, apply)


def channels_of(model: nn.Module) -> int:
    """Return 1 for a model whose first convolution takes grey images, else 3."""
    from torch import nn

    first = next((each for each in model.modules() if isinstance(each, nn.Conv2d)), None)
    return 1 if first is not None and first.in_channels == 1 else 3
