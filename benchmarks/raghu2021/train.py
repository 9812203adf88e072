"""Training: first to remove noise, if asked, then on labels; the same steps for any data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from tqdm import tqdm

from raghu2021.images import Images

__all__ = ["Recipe", "accuracy", "denoise", "train"]

SOURCES = [Path(__file__).with_name(name) for name in ("images.py", "models.py", "train.py")]
"""What a trained model depends on beside its settings: other code, other models."""

NOISE = (1.0, 4.0)
"""Least and greatest standard deviation of the noise; that of the images is 1."""


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
    denoising_steps: int = 0
    """Steps that train the lower half of a ViT to remove noise, before any label."""
    steps: int = 600
    batch: int = 64
    denoising_rate: float = 2e-3
    learning_rate: float = 1e-3
    weight_decay: float = 0.05

    @property
    def settings(self) -> dict[str, object]:
        """The settings, for a digest."""
        return asdict(self)


def denoise(model: VisionTransformer, images: Images, recipe: Recipe, *, progress: bool) -> float:
    """Train the lower half of a ViT to remove noise; return its loss over the last steps.

    After the middle block, a linear map reads the clean pixels of each patch from its token. The
    map is not kept. Strong noise makes a patch alone a poor guide, so a token must find others
    that show the same, and in photographs these are near.
    """
    torch.manual_seed(recipe.seed)
    middle, side = len(model.blocks) // 2, images.patch
    read = nn.Sequential(nn.LayerNorm(model.embed_dim), nn.Linear(model.embed_dim, side * side))

    def loss(crops: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        low, high = NOISE
        size = low * (high / low) ** torch.rand((len(crops), 1, 1, 1), generator=generator)
        noisy = crops + size * torch.randn(crops.shape, generator=generator)
        (tokens,) = model.forward_intermediates(
            noisy,
            indices=[middle - 1],
            stop_early=True,
            intermediates_only=True,
            output_fmt="NLC",
        )
        clean = nn.functional.unfold(crops, side, stride=side).transpose(1, 2)
        return nn.functional.mse_loss(read(tokens), clean)

    parameters = [*model.parameters(), *read.parameters()]
    model.train()
    return _fit(
        parameters, loss, images, recipe, recipe.denoising_steps, recipe.denoising_rate, progress
    )


def train(model: nn.Module, images: Images, recipe: Recipe, *, progress: bool) -> float:
    """Train a model on labels in place; return its loss over the last tenth of the steps."""
    torch.manual_seed(recipe.seed)  # drop-out and the like, where a model has them

    def loss(crops: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return nn.functional.cross_entropy(model(crops), labels)

    model.train()
    last = _fit(
        model.parameters(), loss, images, recipe, recipe.steps, recipe.learning_rate, progress
    )
    model.eval()
    return last


def _fit(
    parameters: Iterable[nn.Parameter],
    loss_of: Callable[[Tensor, Tensor, torch.Generator], Tensor],
    images: Images,
    recipe: Recipe,
    steps: int,
    learning_rate: float,
    progress: bool,
) -> float:
    """AdamW, one warm-up and a cosine, random crops; return the loss over the last tenth."""
    generator = torch.Generator().manual_seed(recipe.seed)
    trained = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1]},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, weight_decay=recipe.weight_decay)
    warm_up = max(steps // 10, 1)

    def rate(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up + 1)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    n = images.fraction(recipe.part)
    waiting = torch.empty(0, dtype=torch.int64)
    losses = []
    for _ in tqdm(range(steps), unit="step", leave=False, disable=not progress):
        while len(waiting) < recipe.batch:  # one epoch after another, for any batch size
            waiting = torch.cat([waiting, torch.randperm(n, generator=generator)])
        chosen, waiting = waiting[: recipe.batch], waiting[recipe.batch :]
        crops = jitter(images.crops(chosen, generator), generator)
        loss = loss_of(crops, images.labels[chosen], generator)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
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
