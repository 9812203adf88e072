"""The models that are trained here: timm's vision transformer as it is, and a residual CNN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from raghu2021.images import Images

__all__ = ["CNN", "FULL", "QUICK", "Size", "build", "sine_cosine"]


Size: TypeAlias = Mapping[str, int]
"""``dim``, ``depth`` and ``heads`` of a ViT, ``width`` and ``blocks`` of a CNN."""

FULL = {"dim": 64, "depth": 6, "heads": 4, "width": 24, "blocks": 2}
QUICK = {"dim": 16, "depth": 3, "heads": 2, "width": 8, "blocks": 1}


def build(kind: str, images: Images, size: Size, seed: int) -> nn.Module:
    """Return an untrained model: "vit" (classifies by CLS), "vit-gap" (by the mean) or "cnn"."""
    torch.manual_seed(seed)
    classes = len(images.classes)
    if kind == "cnn":
        return CNN(classes, size["width"], size["blocks"], stride=2 if images.side >= 32 else 1)
    cls = {"vit": True, "vit-gap": False}[kind]
    model = VisionTransformer(
        img_size=images.side,
        patch_size=images.patch,
        in_chans=1,
        num_classes=classes,
        global_pool="token" if cls else "avg",
        class_token=cls,
        embed_dim=size["dim"],
        depth=size["depth"],
        num_heads=size["heads"],
        mlp_ratio=2.0,
        # Xavier, as in the paper: the usual 0.02 is for layers ten times as wide.
        weight_init="moco",
    )
    fix_positions(model)
    return model


def fix_positions(model: VisionTransformer) -> None:
    """Give the patches sine-cosine positions that are not trained, and the CLS token none."""
    rows, columns = model.patch_embed.grid_size
    with torch.no_grad():
        model.pos_embed.zero_()
        model.pos_embed[:, model.num_prefix_tokens :] = sine_cosine(rows, columns, model.embed_dim)
    model.pos_embed.requires_grad_(False)


def sine_cosine(rows: int, columns: int, dim: int) -> Tensor:
    """Return positions (rows · columns, dim) of mean square 1, half for rows, half for columns.

    The wavelengths grow from 2π to 10π patches. The usual ones grow to 20000π, and are constant
    over a grid of eight.
    """
    frequencies = 5.0 ** -torch.linspace(0, 1, dim // 4)

    def along(length: int) -> Tensor:
        angles = torch.arange(length)[:, None] * frequencies
        return 2**0.5 * torch.cat([angles.sin(), angles.cos()], dim=1)

    down, across = along(rows)[:, None], along(columns)[None]
    both = [down.expand(-1, columns, -1), across.expand(rows, -1, -1)]
    return torch.cat(both, dim=2).reshape(rows * columns, dim)


class ConvBlock(nn.Module):
    """Residual block of two convolutions; if shapes differ, a 1×1 convolution is its shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.act2 = nn.ReLU()
        self.shortcut = (
            None
            if (stride, channels_in) == (1, channels)
            else nn.Conv2d(channels_in, channels, 1, stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """From (n, channels_in, h, w) to (n, channels, h / stride, w / stride)."""
        out = self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x)))))
        return self.act2(out + (x if self.shortcut is None else self.shortcut(x)))


class CNN(nn.Module):
    """Residual network of three stages, each at half the resolution of the one before."""

    def __init__(self, classes: int, width: int, blocks: int, *, stride: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, stride, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.act = nn.ReLU()
        self.stage1 = self._stage(width, width, blocks, stride=1)
        self.stage2 = self._stage(width, 2 * width, blocks, stride=2)
        self.stage3 = self._stage(2 * width, 4 * width, blocks, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(4 * width, classes)

    @staticmethod
    def _stage(channels_in: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
        first = ConvBlock(channels_in, channels, stride)
        return nn.Sequential(first, *(ConvBlock(channels, channels, 1) for _ in range(blocks - 1)))

    def forward(self, images: Tensor) -> Tensor:
        """From (n, 1, h, w) to (n, classes)."""
        x = self.act(self.bn(self.stem(images)))
        x = self.stage3(self.stage2(self.stage1(x)))
        return self.head(self.pool(x).flatten(1))
