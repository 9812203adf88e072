"""Models by name, from timm or torchvision, and images from a folder with one folder per class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from raghu2021.lab import Stream, Subject
from raghu2021.steps import digest

__all__ = ["Folder", "subjects"]

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of the colours that torchvision's models expect."""


class Folder:
    """The images below a folder: those of ``FOLDER/name/…`` are of the class "name".

    An image is resized to fit its shorter side, and cut to the square in its middle: (3,
    side, side), 0 to 1; each model's own normalisation comes later. The first images of each
    class, in a shuffled order, are kept for probes to learn from.
    """

    def __init__(self, folder: Path, side: int, *, shots: int, workers: int = 0) -> None:
        files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES)
        if not files:
            raise SystemExit(
                f"raghu2021: --data {folder} has no images.\n"
                f"  looked for {', '.join(sorted(SUFFIXES))} in it and all folders below\n"
                "  Is the path right? It holds one folder per class: FOLDER/cat/1.jpg"
            )
        names = [
            file.relative_to(folder).parts[0] if file.parent != folder else "" for file in files
        ]
        self.classes = tuple(sorted(set(names)))
        self.name, self.side, self._workers = folder.resolve().name, side, workers
        listing = [(str(file.relative_to(folder)), file.stat().st_size) for file in files]
        self.key = digest(listing, side, shots, [Path(__file__)])
        self._few: list[tuple[Path, int]] = []
        self._rest: list[tuple[Path, int]] = []
        seen = dict.fromkeys(names, 0)
        for at in np.random.default_rng(0).permutation(len(files)):
            kept = seen[names[at]] < shots
            seen[names[at]] += kept
            (self._few if kept else self._rest).append((files[at], self.classes.index(names[at])))
        if len(self._rest) < 4 or (len(self.classes) > 1 and min(seen.values()) < shots):
            raise SystemExit(
                f"raghu2021: --data {folder} has too few images.\n"
                f"  It has {len(files)} images of {len(self.classes)} classes. Probes learn from "
                f"{shots} images of each class, so {len(self._rest)} are left to measure.\n"
                "  Add images, or put them all into one folder to go without probes."
            )

    def stream(self, n: int, size: int) -> Stream:
        """Shuffled images that are not used to train probes."""
        return self._loader(self._rest[:n], size)

    def shots(self, n: int, size: int) -> Stream:
        """The training images of probes, n of each class."""
        return self._loader(self._few, size)

    def _loader(self, files: Sequence[tuple[Path, int]], size: int) -> Stream:
        order = torch.Generator().manual_seed(0)
        return DataLoader(
            _Decoded(files, self.side), size, shuffle=True, generator=order,
            num_workers=self._workers,
        )  # fmt: skip


class _Decoded(Dataset[tuple[Tensor, int]]):
    """Image files as tensors, with their labels."""

    def __init__(self, files: Sequence[tuple[Path, int]], side: int) -> None:
        self._files, self._side = files, side

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, at: int) -> tuple[Tensor, int]:
        file, label = self._files[at]
        with Image.open(file) as opened:
            image = opened.convert("RGB")
        scale = self._side / min(image.size)
        width, height = (max(round(scale * size), self._side) for size in image.size)
        left, top = (width - self._side) // 2, (height - self._side) // 2
        square = image.resize((width, height), Image.Resampling.BICUBIC).crop(
            (left, top, left + self._side, top + self._side)
        )
        pixels = torch.from_numpy(np.asarray(square, dtype=np.float32) / 255)
        return pixels.permute(2, 0, 1).contiguous(), label


def subjects(names: Sequence[str], *, random: bool, controls: bool = True) -> dict[str, Subject]:
    """Return the models of these names, "timm:…" or "torchvision:…", by their part.

    The first model with attention is the paper's ViT, and the first without it is its CNN. Both
    come with an untrained copy as a control. The others are shown beside them.
    """
    out: dict[str, Subject] = {}
    for name in names:
        family = "vit" if has_attention(_create(name, pretrained=False)) else "cnn"
        first = family not in out
        role = family if first else f"other-{sum(r.startswith('other') for r in out) + 1}"
        short = name.partition(":")[2]
        label = f"{short}, random" if random else short
        out[role] = _subject(role, label, family, name, pretrained=not random)
        if first and controls:
            role, label = f"{family}-untrained", f"{short}, untrained"
            out[role] = _subject(role, label, family, name, pretrained=False, seed=1)
    return out


def has_attention(model: nn.Module) -> bool:
    """Whether a model mixes positions by attention, by the names of its modules' classes."""
    return any("attention" in type(module).__name__.lower() for module in model.modules())


def _subject(
    role: str, label: str, family: str, name: str, *, pretrained: bool, seed: int = 0
) -> Subject:
    def load() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return _create(name, pretrained=pretrained).eval()

    key = digest(name, pretrained, seed, timm.__version__, torch.__version__)
    return Subject(role, label, family, key, load, prepare=_normalise(name))


def _create(name: str, *, pretrained: bool) -> nn.Module:
    source, _, short = name.partition(":")
    if source == "timm" and short:
        return timm.create_model(short, pretrained=pretrained)
    if source == "torchvision" and short:
        import torchvision

        return torchvision.models.get_model(short, weights="DEFAULT" if pretrained else None)
    raise SystemExit(
        f"raghu2021: --models must be timm:NAME or torchvision:NAME.\n  got {name!r}\n"
        "  As in --models timm:vit_base_patch32_224 timm:resnet50"
    )


def _normalise(name: str) -> Callable[[Any], Any]:
    """Return the normalisation from images in 0 to 1 to the inputs of a model."""
    source, _, short = name.partition(":")
    mean, std, size = *IMAGENET, None
    if source == "timm":
        config = timm.get_pretrained_cfg(short)
        if config is not None:
            mean, std, size = config.mean, config.std, config.input_size[-2:]

    def prepare(batch: Any) -> Any:
        images, *labels = batch
        if size is not None and images.shape[-2:] != tuple(size):
            images = nn.functional.interpolate(
                images, size=tuple(size), mode="bicubic", antialias=True
            )
        shape = (1, 3, 1, 1)
        images = (images - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
        return (images, *labels)

    return prepare
