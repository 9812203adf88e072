"""A small transformer and shares of its data, for analyses over a process group."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.data import DistributedSampler

import repsim

N, BATCH = 22, 3


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        n, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return self.proj(scaled_dot_product_attention(*qkv).transpose(1, 2).reshape(x.shape))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 8), nn.GELU(), nn.Linear(8, width))

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """16 patches and a class token; batch norm before the patches."""

    def __init__(self, width=8, heads=2):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.patch = nn.Conv2d(3, width, 2, 2)
        self.cls = nn.Parameter(torch.randn(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 17, width))
        self.blocks = nn.Sequential(Block(width, heads), Block(width, heads))
        self.head = nn.Linear(width, 4)

    def forward(self, x):
        x = self.patch(self.norm(x)).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.position
        return self.head(self.blocks(x)[:, 0])


def net(seed=0):
    torch.manual_seed(seed)
    return Transformer().double()


def images():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(N, 3, 8, 8, generator=generator, dtype=torch.float64)


def batches(ids):
    """(images, ids) of these samples."""
    return [(images()[part], part) for part in torch.as_tensor(ids).split(BATCH)]


def share(rank, size):
    """The batches of a DistributedSampler; with 4 ranks, 2 of 24 samples are repeated."""
    return batches(list(DistributedSampler(range(N), size, rank, shuffle=True, seed=3)))


def uneven(rank, size):
    """The batches of one of `size` ranks, no sample twice; rank 1 has none."""
    ends = [0, 7, 7, 12, N] if size == 4 else [0, N, N]
    return batches(range(N)[ends[rank] : ends[rank + 1]]) if ends[rank] < ends[rank + 1] else []


def ids_of(batch):
    return batch[1]


def receptive_fields(data, model=None, **options):
    """Random signs follow the ids of the images; without ids there are none here."""
    mode = "rademacher" if "sample_ids" in options else "sum"
    options = {"mode": mode, "progress": False, **options}
    layers = ["patch", "blocks.0", "blocks.1.mlp"]
    return repsim.effective_receptive_field(model or net(), data, layers, prefix=1, **options)


ANALYSES = {
    "attention_distance": lambda data, model=None, **options: repsim.attention_distance(
        model or net(), data, progress=False, **options
    ),
    "block_influence": lambda data, model=None, **options: repsim.block_influence(
        model or net(), data, progress=False, **options
    ),
    "effective_receptive_field": receptive_fields,
    "residual_ratios": lambda data, model=None, **options: repsim.residual_ratios(
        model or net(), data, progress=False, **options
    ),
}
"""The analyses by name: functions of the batches, the model and other options."""


def summary(result):
    """What ranks send to the test: values, names along the axes, and attributes of a result."""
    values = {str(name): np.asarray(each) for name, each in result.data_vars.items()}
    names = {str(name): each.values.tolist() for name, each in result.coords.items()}
    return values, names, dict(result.attrs)
