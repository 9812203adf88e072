"""Small models, their data, and batches that note what the host waited for during each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from emulated.device import WAITED


class Batches:
    """Batches in main memory; ``waits`` holds what the host waited for during each of them."""

    def __init__(self, data: list[Any]) -> None:
        self.data = data
        self.waits: list[list[str]] = []

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.data:
            WAITED.clear()
            yield batch
            self.waits.append(WAITED.ours())


def resnet(seed: int = 0) -> nn.Module:
    """A ResNet with the blocks of ResNet-18, one of each width."""
    from timm.models.resnet import BasicBlock, ResNet

    torch.manual_seed(seed)
    return ResNet(
        BasicBlock, (1, 1, 1, 1), num_classes=5, channels=(8, 8, 16, 16), stem_width=8,
        zero_init_last=False,
    ).eval()  # fmt: skip


def vit(seed: int = 0) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(seed)
    return VisionTransformer(
        img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=5
    ).eval()


def bert(seed: int = 0) -> nn.Module:
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=16,
    )  # fmt: skip
    return BertModel(config).eval()


def images(count: int = 3, n: int = 8, seed: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 3, 32, 32, generator=generator) for _ in range(count)]


def labelled(count: int = 3, seed: int = 1) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(batch, torch.arange(10) % 5) for batch in images(count, 10, seed)]


def texts(count: int = 3, *, labels: bool = False) -> list[dict[str, torch.Tensor]]:
    """Texts of 7 and of 10 tokens, with the mask of their padding."""
    generator = torch.Generator().manual_seed(2)
    made = []
    for _ in range(count):
        ids = torch.randint(0, 50, (8, 10), generator=generator)
        mask = torch.ones(8, 10, dtype=torch.long)
        mask[::2, 7:] = 0
        made.append({"input_ids": ids, "attention_mask": mask})
        if labels:
            made[-1]["labels"] = ids % 3
    return made
