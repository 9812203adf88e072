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

    def forward(self, x, mask):
        n, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        out = scaled_dot_product_attention(*qkv, attn_mask=mask)
        return self.proj(out.transpose(1, 2).reshape(x.shape))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 8), nn.GELU(), nn.Linear(8, width))

    def forward(self, x, mask=None):
        x = x + self.attn(self.norm1(x), mask)
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
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1)
        x = x + self.position[:, : x.shape[1]]  # smaller images have fewer patches
        return self.head(self.blocks(x)[:, 0])


class TextTransformer(nn.Module):
    """Attention among the real tokens of texts."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 8)
        self.blocks = nn.ModuleList([Block(8, 2), Block(8, 2)])

    def forward(self, input_ids, attention_mask, number=None):
        x = self.embed(input_ids)
        for block in self.blocks:
            x = block(x, attention_mask[:, None, None, :].bool())
        return x


class TwoStacks(TextTransformer):
    """Beside the texts, their tokens alone: every second one of texts of 9 tokens."""

    def __init__(self):
        super().__init__()
        self.beside = nn.ModuleList([Block(8, 2)])

    def forward(self, input_ids, attention_mask, number=None):
        x = self.embed(input_ids)
        beside = self.beside[0](x[:, ::2] if x.shape[1] == 9 else x)
        return super().forward(input_ids, attention_mask).mean(1) + beside.mean(1)


class OneBlockLess(Transformer):
    """The second block runs for images of the whole size only."""

    def forward(self, x):
        x = x.flatten(2).transpose(1, 2) if x.ndim == 4 else x
        x = x[..., [0, 1, 2, 0, 1, 2, 0, 1]]
        x = self.blocks[0](x)
        return self.blocks[1](x) if x.shape[1] == 64 else x


class Convolutions(nn.Module):
    """A residual connection of maps of any size."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return x + self.conv(x)


def text_net():
    torch.manual_seed(0)
    return TextTransformer().double()


def net(seed=0):
    torch.manual_seed(seed)
    return Transformer().double()


def images():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(N, 3, 8, 8, generator=generator, dtype=torch.float64)


def batches(ids):
    """(images, ids) of these samples."""
    return [(images()[part], part) for part in torch.as_tensor(ids).split(BATCH)]


def small_images():
    """Other batches, of 3 by 3 patches."""
    return [(images()[i : i + 3, :, :6, :6], torch.arange(i, i + 3)) for i in (0, 3)]


def texts(rank, size):
    """Batches of texts of 2 to 9 tokens, padded to the longest; the last rank has text 0 again."""
    generator = torch.Generator().manual_seed(2)
    lengths = torch.randint(2, 10, (N,), generator=generator)
    tokens = torch.randint(0, 50, (N, 9), generator=generator)
    numbers = torch.arange(N)[rank::size]
    if rank == size - 1 and size > 1:
        numbers = torch.cat([numbers, numbers.new_zeros(1)])
    found = []
    for part in numbers.split(BATCH):
        most = int(lengths[part].max())
        mask = torch.arange(most) < lengths[part][:, None]
        found.append({"input_ids": tokens[part, :most], "attention_mask": mask, "number": part})
    return found


def share(rank, size):
    """The batches of a DistributedSampler; with 4 ranks, 2 of 24 samples are repeated."""
    return batches(list(DistributedSampler(range(N), size, rank, shuffle=True, seed=3)))


def uneven(rank, size):
    """The batches of one of `size` ranks, no sample twice; rank 1 has none."""
    ends = [0, 7, 7, 12, N] if size == 4 else [0, N, N]
    return batches(range(N)[ends[rank] : ends[rank + 1]]) if ends[rank] < ends[rank + 1] else []


def ids_of(batch):
    return batch["number"] if isinstance(batch, dict) else batch[1]


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

OF_TEXTS = ("attention_distance", "block_influence", "residual_ratios")
"""Those that take texts."""


def summary(result):
    """What ranks send to the test: values, names along the axes, and attributes of a result."""
    values = {str(name): np.asarray(each) for name, each in result.data_vars.items()}
    names = {str(name): each.values.tolist() for name, each in result.coords.items()}
    return values, names, dict(result.attrs)
