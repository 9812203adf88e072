"""Two small image classifiers in plain torch: a vision transformer and a residual CNN.

They do not use repsim. Both take (n, 1, 8, 8) and return (n, 10).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["CNN", "ViT", "is_layer"]


class Embed(nn.Module):
    """Cut an image into 2×2 patches; put a class token before them; add positions."""

    def __init__(self, dim: int, tokens: int = 16) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, dim, kernel_size=2, stride=2)
        self.cls = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        # As large as the patches; with the usual 0.02, a thousand images are too few to learn
        # positions.
        self.positions = nn.Parameter(0.5 * torch.randn(1, tokens + 1, dim))

    def forward(self, images: Tensor) -> Tensor:
        """From (n, 1, 8, 8) to (n, 17, dim)."""
        patches = self.patches(images).flatten(2).transpose(1, 2)
        return torch.cat([self.cls.expand(len(images), -1, -1), patches], dim=1) + self.positions


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """From (n, tokens, dim) to the same."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two linear layers around a GELU."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """From (n, tokens, dim) to the same."""
        return self.fc2(self.act(self.fc1(x)))


class EncoderBlock(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, 2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """From (n, tokens, dim) to the same."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Vision transformer that classifies by its class token."""

    def __init__(self, *, dim: int = 64, depth: int = 6, heads: int = 4) -> None:
        super().__init__()
        self.embed = Embed(dim)
        self.blocks = nn.Sequential(*(EncoderBlock(dim, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 10)

    def forward(self, images: Tensor) -> Tensor:
        """From (n, 1, 8, 8) to (n, 10)."""
        return self.head(self.norm(self.blocks(self.embed(images)))[:, 0])


class ConvBlock(nn.Module):
    """Residual block of two convolutions, with a 1×1 convolution as shortcut if shapes differ."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = (
            None
            if (stride, channels_in) == (1, channels)
            else nn.Conv2d(channels_in, channels, 1, stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """From (n, channels_in, h, w) to (n, channels, h / stride, w / stride)."""
        out = self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x)))))
        return nn.functional.relu(out + (x if self.shortcut is None else self.shortcut(x)))


class CNN(nn.Module):
    """Residual network of three stages, on 8×8, 4×4 and 2×2 pixels."""

    def __init__(self, *, width: int = 16, depth: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.stage1 = self._stage(width, width, depth, stride=1)
        self.stage2 = self._stage(width, 2 * width, depth, stride=2)
        self.stage3 = self._stage(2 * width, 4 * width, depth, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(4 * width, 10)

    @staticmethod
    def _stage(channels_in: int, channels: int, depth: int, stride: int) -> nn.Sequential:
        first = ConvBlock(channels_in, channels, stride)
        return nn.Sequential(first, *(ConvBlock(channels, channels, 1) for _ in range(depth - 1)))

    def forward(self, images: Tensor) -> Tensor:
        """From (n, 1, 8, 8) to (n, 10)."""
        x = self.stage3(self.stage2(self.stage1(self.stem(images))))
        return self.head(self.pool(x).flatten(1))


def is_layer(name: str, module: nn.Module) -> bool:
    """Whether the output of a module differs from that of its last child."""
    return not isinstance(module, nn.Sequential | Attention | MLP)
