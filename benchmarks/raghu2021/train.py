"""Training: AdamW, one warm-up and a cosine, random crops; the same steps for any data."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from raghu2021.images import Images

__all__ = ["Recipe", "accuracy", "train"]

SOURCES = [Path(__file__).with_name(name) for name in ("images.py", "models.py", "train.py")]
"""What a trained model depends on beside its settings: other code, other models."""


@dataclass(frozen=True)
class Recipe:
    """How one model is trained."""

    kind: str
    """As `raghu2021.models.build` has it."""
    seed: int = 0
    part: float = 1.0
    """Which part of the training data it sees; the number of steps stays the same."""
    without_block: int | None = None
    """The block that is trained, and used, without its skip connections."""
    steps: int = 1000
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.05

    @property
    def settings(self) -> dict[str, object]:
        """The settings, for a digest."""
        return asdict(self)


def train(model: nn.Module, images: Images, recipe: Recipe, *, progress: bool) -> float:
    """Train a model in place; return its loss over the last tenth of the steps."""
    generator = torch.Generator().manual_seed(recipe.seed)
    torch.manual_seed(recipe.seed)  # drop-out and the like, where a model has them
    parameters = [
        {"params": [p for p in model.parameters() if p.ndim > 1]},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    warm_up = max(recipe.steps // 10, 1)

    def rate(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (recipe.steps - warm_up + 1)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    n = images.fraction(recipe.part)
    waiting = torch.empty(0, dtype=torch.int64)
    losses = []
    model.train()
    for _ in tqdm(range(recipe.steps), unit="step", leave=False, disable=not progress):
        while len(waiting) < recipe.batch:  # one epoch after another, for any batch size
            waiting = torch.cat([waiting, torch.randperm(n, generator=generator)])
        chosen, waiting = waiting[: recipe.batch], waiting[recipe.batch :]
        loss = nn.functional.cross_entropy(
            model(jitter(images.crops(chosen, generator), generator)), images.labels[chosen]
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
    model.eval()
    return float(torch.stack(losses[-warm_up:]).mean())


def jitter(crops: Tensor, generator: torch.Generator) -> Tensor:
    """Change brightness and contrast at random, so the mean grey is less informative."""
    gain, shift = torch.randn((2, len(crops), 1, 1, 1), generator=generator)
    return crops * (0.2 * gain).exp() + 0.3 * shift


@torch.no_grad()
def accuracy(model: nn.Module, images: Images) -> float:
    """Return the share of test images that a model classifies correctly."""
    model.eval()
    right = [
        (model(crops).argmax(dim=1) == labels)
        for crops, labels in images.batches(len(images.test), 256)
    ]
    return float(torch.cat(right).double().mean())
