"""The models that are trained here; each is a file that is made once."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

import repsim
from raghu2021.images import Images
from raghu2021.lab import Subject
from raghu2021.models import Size, build
from raghu2021.steps import Step, digest, is_done, load_weights, save_weights
from raghu2021.train import SOURCES, Recipe, accuracy, denoise, train

__all__ = ["cast", "subjects", "training"]

PARTS = (0.03, 0.1, 0.3)
"""Parts of the training data, as in the paper."""


def cast(size: Size, steps: int) -> dict[str, tuple[str, Recipe]]:
    """Return all parts with their names in pictures and their training.

    `steps` are those on labels. Every ViT except two controls first removes noise for the same
    number of steps.
    """
    middle = size["depth"] // 2
    # So the CNN is about as good as the ViT, because convolutions need not learn neighbourhoods.
    quick_learner = {"steps": max(2 * steps // 5, 1), "learning_rate": 2e-3}

    def recipe(kind: str, **options: Any) -> Recipe:
        first = 0 if kind == "cnn" else steps
        return Recipe(kind, **({"denoising_steps": first, "steps": steps} | options))

    return {
        "vit": ("ViT", recipe("vit")),
        "vit-2": ("ViT, second seed", recipe("vit", seed=1)),
        "vit-3": ("ViT, third seed", recipe("vit", seed=2)),
        "vit-gap": ("GAP-ViT", recipe("vit-gap")),
        "vit-gap-2": ("GAP-ViT, second seed", recipe("vit-gap", seed=1)),
        "vit-gap-3": ("GAP-ViT, third seed", recipe("vit-gap", seed=2)),
        "cnn": ("CNN", recipe("cnn", **quick_learner)),
        "cnn-2": ("CNN, second seed", recipe("cnn", seed=1, **quick_learner)),
        "cnn-3": ("CNN, third seed", recipe("cnn", seed=2, **quick_learner)),
        "vit-labels": ("ViT, labels only", recipe("vit", denoising_steps=0)),
        "vit-untrained": ("untrained ViT", recipe("vit", denoising_steps=0, steps=0)),
        "cnn-untrained": ("untrained CNN", recipe("cnn", steps=0)),
        "vit-no-skips": (
            f"ViT without the skips of block {middle}",
            recipe("vit", without_block=middle),
        ),
        **{
            f"vit-part-{100 * part:g}": (f"ViT, {part:.0%} of the data", recipe("vit", part=part))
            for part in PARTS
        },
    }


def training(
    images: Images, data_key: str, folder: Path, size: Size, steps: int, *, progress: bool
) -> list[Step]:
    """Return the steps that train every model."""
    out = []
    for role, (label, recipe) in cast(size, steps).items():
        file, key = _file(folder, role), _key(data_key, size, recipe)
        # No closure, because it may be pickled for another process.
        make = partial(_train, images, file, key, size, recipe, progress)
        out.append(Step(f"{images.name}: train {label}", file, key, make))
    return out


def subjects(
    images: Images, data_key: str, folder: Path, size: Size, steps: int
) -> dict[str, Subject]:
    """Return every model; the accuracy is known if its file exists."""
    out = {}
    for role, (label, recipe) in cast(size, steps).items():
        file, key = _file(folder, role), _key(data_key, size, recipe)
        about = load_weights(file)[1] if is_done(file, key) else {}
        out[role] = Subject(
            role,
            label,
            "cnn" if recipe.kind == "cnn" else "vit",
            key,
            partial(_load, images, file, size, recipe),
            about={**recipe.settings, **about},
        )
    return out


def _file(folder: Path, role: str) -> Path:
    return folder / "models" / f"{role}.safetensors"


def _key(data_key: str, size: Size, recipe: Recipe) -> str:
    return digest(data_key, dict(size), recipe.settings, timm.__version__, SOURCES)


def _train(
    images: Images, file: Path, key: str, size: Size, recipe: Recipe, progress: bool
) -> None:
    """Train one model and write it."""
    model = build(recipe.kind, images, size, recipe.seed)
    with without_block(model, recipe.without_block):
        noise = (
            denoise(model, images, recipe, progress=progress) if recipe.denoising_steps else None
        )
        loss = train(model, images, recipe, progress=progress) if recipe.steps else None
        right = accuracy(model, images)
    about = {
        "accuracy": right,
        "denoising_loss": noise,
        "loss": loss,
        "tested": len(images.test),
        "trained_on": images.fraction(recipe.part) if recipe.steps else 0,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    save_weights(file, key, model.state_dict(), about)


def without_block(model: nn.Module, block: int | None) -> AbstractContextManager[object]:
    """Run without the skips of a block, if there is one."""
    return nullcontext() if block is None else repsim.without_residual(model, f"blocks.{block}")


def _load(images: Images, file: Path, size: Size, recipe: Recipe) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        model = build(recipe.kind, images, size, recipe.seed)
    model.load_state_dict(load_weights(file)[0])
    return model.eval()
