"""The inputs of an experiment: models by their part in it, images, and the effort."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
import xarray as xr
from torch import Tensor, nn

import repsim
from raghu2021.images import Images

__all__ = ["Crops", "Data", "Effort", "Lab", "Subject", "is_layer"]


@dataclass(frozen=True)
class Subject:
    """A model and its part: "vit", "cnn", "vit-2" (another seed), "vit-untrained", ..."""

    role: str
    label: str
    """What pictures call it."""
    family: str
    """"vit" if it has attention, "cnn" if not."""
    key: str
    """A digest of all that made it."""
    load: Callable[[], nn.Module]
    prepare: Callable[[Any], Any] | None = None
    """From a batch of the data to what this model wants."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Facts about its training: accuracy, the part of the data, ..."""


class Stream(Protocol):
    """Batches of images with labels, in a new order each time if shuffled."""

    def __iter__(self) -> Iterator[Any]: ...


class Data(Protocol):
    """Labelled images: many for measurements, and a few of each class for training a probe."""

    name: str
    classes: tuple[str, ...]
    key: str
    side: int

    def stream(self, n: int, size: int) -> Stream:
        """This number of test images in batches, in the same shuffled order for all models."""
        ...

    def shots(self, n: int, size: int) -> Stream:
        """Training images, n of each class."""
        ...


@dataclass(frozen=True)
class Effort:
    """How many images each experiment sees, and in what batches."""

    cka_images: int = 1536
    cka_batch: int = 256
    cka_passes: int = 2
    distance_images: int = 512
    field_images: int = 32
    field_probes: int = 16
    ratio_images: int = 512
    place_images: int = 1536
    place_batch: int = 256
    probe_shots: int = 10
    probe_images: int = 1536

    @property
    def settings(self) -> dict[str, int]:
        """The numbers, for a digest."""
        return asdict(self)


@dataclass(frozen=True)
class Lab:
    """Models, images and effort."""

    data: Data
    folder: Path
    subjects: dict[str, Subject]
    effort: Effort
    device: str = "cpu"

    def has(self, *roles: str) -> bool:
        """Whether all of these parts have models."""
        return all(role in self.subjects for role in roles)

    def roles(self, *wanted: str) -> list[str]:
        """The parts among these for which there are models."""
        return [role for role in wanted if role in self.subjects]

    def whole(self) -> list[str]:
        """Models trained alike on all data with all skips: other seeds and untrained ones too."""
        apart = {"vit-no-skips", "vit-labels", *self.parts().values()}
        return [role for role in self.subjects if role not in apart]

    def shown(self) -> list[str]:
        """The same without other seeds, to fit into a picture."""
        return [role for role in self.whole() if not role.endswith(("-2", "-3"))]

    def seeds(self, role: str) -> list[str]:
        """The part, and the same with other seeds, as far as there are models."""
        return self.roles(role, f"{role}-2", f"{role}-3")

    def parts(self) -> dict[float, str]:
        """The models trained on part of the data, by that part, the smallest first."""
        found = [s for s in self.subjects.values() if float(s.about.get("part", 1)) < 1]
        return {s.about["part"]: s.role for s in sorted(found, key=lambda s: s.about["part"])}

    def label(self, role: str) -> str:
        """The name of the model in pictures."""
        return self.subjects[role].label

    def model(self, role: str) -> nn.Module:
        """The model, ready to run."""
        return self.subjects[role].load().to(self.device).eval()

    def cka_data(self) -> Stream:
        """The images of a CKA map, reshuffled with every pass."""
        return self.data.stream(self.effort.cka_images, self.effort.cka_batch)

    def compare(self, x: str, y: str | None = None) -> xr.Dataset:
        """Compare all layers of two models, or of one with itself."""
        model_x, model_y = self.model(x), None if y is None else self.model(y)
        with self.as_trained(x, model_x):
            return repsim.compare(
                model_x,
                model_y,
                data=self.cka_data(),
                layers=is_layer,
                passes=self.effort.cka_passes,
                prepare_x=self.subjects[x].prepare,
                prepare_y=self.subjects[x if y is None else y].prepare,
                names=(self.label(x), self.label(x if y is None else y)),
                progress=False,
            )

    def as_trained(self, role: str, model: nn.Module) -> AbstractContextManager[object]:
        """Run a model as it was trained, perhaps without the skips of a block."""
        block = self.subjects[role].about.get("without_block")
        return nullcontext() if block is None else repsim.without_residual(model, f"blocks.{block}")

    def example(self, role: str) -> Tensor:
        """Two images as the model wants them."""
        batch = next(iter(self.data.stream(2, 2)))
        prepare = self.subjects[role].prepare
        return (batch if prepare is None else prepare(batch))[0].to(self.device)


class Crops:
    """The images of `raghu2021.images` as an experiment reads them."""

    def __init__(self, images: Images, key: str) -> None:
        self.images, self.key = images, key
        self.name, self.classes, self.side = images.name, images.classes, images.side

    def stream(self, n: int, size: int) -> Stream:
        """Shuffled test images."""
        return Shuffled(self.images.test, self.images.test_labels, n, size)

    def shots(self, n: int, size: int) -> Stream:
        """The middles of the first tiles of each class: these are balanced."""
        chosen = torch.arange(n * len(self.classes))
        edge = (self.images.tiles.shape[-1] - self.side) // 2
        inside = slice(edge, edge + self.side)
        return Shuffled(
            self.images.tiles[chosen][..., inside, inside], self.images.labels[chosen], 10**9, size
        )


class Shuffled(Iterable[tuple[Tensor, Tensor]], Sized):
    """Batches of images and labels in a new order every time, the same orders in every run."""

    def __init__(self, images: Tensor, labels: Tensor, n: int, size: int) -> None:
        self._images, self._labels = images, labels
        self._n, self._size = min(n, len(images)), size
        self._generator = torch.Generator().manual_seed(0)
        # A fixed choice first, so every pass is over the same images.
        self._chosen = torch.randperm(len(images), generator=self._generator)[: self._n]

    def __len__(self) -> int:
        return -(-self._n // self._size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = self._chosen[torch.randperm(self._n, generator=self._generator)]
        for chosen in order.split(self._size):
            yield self._images[chosen], self._labels[chosen]


PASSES_ON = (nn.Identity, nn.Dropout, nn.Sequential, nn.ModuleList, nn.Flatten)
INNER = re.compile(r"(^|\.)(patch_embed|mlp|attn_drop|norm_pre|fc_norm|global_pool)$")


def is_layer(name: str, module: nn.Module) -> bool:
    """Whether a module is a separate layer; norms and activations are.

    A module that returns the output of another is not: containers, identities, idle dropout.
    """
    idle = isinstance(module, PASSES_ON) or type(module).__name__ in {"DropPath", "Dropout2d"}
    return not idle and (not INNER.search(name) or not list(module.children()))
