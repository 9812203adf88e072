"""Images that need no download: crops of the photographs inside two packages, and the digits.

The class of a crop is its photograph. A photograph is cut into blocks like a chequerboard. Black
blocks give training crops and white blocks give test crops, so no pixel is in both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

__all__ = ["PHOTOGRAPHS", "Images", "digits", "photographs"]

PHOTOGRAPHS = {
    "astronaut": ("skimage.data", "astronaut.png"),
    "brick": ("skimage.data", "brick.png"),
    "camera": ("skimage.data", "camera.png"),
    "cat": ("skimage.data", "chelsea.png"),
    "coffee": ("skimage.data", "coffee.png"),
    "coins": ("skimage.data", "coins.png"),
    "grass": ("skimage.data", "grass.png"),
    "gravel": ("skimage.data", "gravel.png"),
    "galaxies": ("skimage.data", "hubble_deep_field.jpg"),
    "tissue": ("skimage.data", "ihc.png"),
    "moon": ("skimage.data", "moon.png"),
    "motorcycle": ("skimage.data", "motorcycle_left.png"),
    "retina": ("skimage.data", "retina.jpg"),
    "rocket": ("skimage.data", "rocket.jpg"),
    "china": ("sklearn.datasets.images", "china.jpg"),
    "flower": ("sklearn.datasets.images", "flower.jpg"),
}
"""The photographs that come in the wheels themselves; drawings, scans of text, thumbnails and
second views of the same scene are left out."""

AREA = 512 * 512
"""Pixels of each resized photograph, so crops of all photographs show similar areas."""

BLOCK = 96
"""About how many pixels a side of a block measures."""

MARGIN = 4
"""Pixels along each edge of a block that nothing is cut from: resizing mixes neighbours."""

SIDE, TILE = 32, 40
"""Sides of what a model sees and of what a training crop is drawn from."""

TRAIN_BLOCKS = TEST_BLOCKS = 12
"""Blocks per photograph: as many as the smallest chequerboard has of each colour."""


@dataclass(frozen=True)
class Images:
    """Images to train and to test on, standardised by the training images.

    Training crops of ``side`` pixels are drawn from ``tiles`` (n, 1, t, t). Any first part of the
    tiles is balanced over the classes. A model on 3 % of the data sees the first 3 % of the tiles,
    and models on more data see them too.
    """

    name: str
    classes: tuple[str, ...]
    side: int
    patch: int
    mirror: bool
    """Whether a mirrored image is still of its class."""
    tiles: Tensor
    labels: Tensor
    test: Tensor
    test_labels: Tensor
    grey_alone: float
    """Test accuracy of the nearest neighbour by a crop's mean and spread of grey alone."""

    def fraction(self, part: float) -> int:
        """Return the number of tiles of this part of all, at least one of each class."""
        return max(round(part * len(self.tiles)), len(self.classes))

    def crops(self, chosen: Tensor, generator: torch.Generator) -> Tensor:
        """Cut a crop at random out of each of the chosen tiles: (n, 1, side, side)."""
        room, n = self.tiles.shape[-1] - self.side + 1, len(chosen)
        top, left = torch.randint(room, (2, n), generator=generator)
        rows, columns = (
            torch.arange(self.side) + top[:, None],
            torch.arange(self.side) + left[:, None],
        )
        if self.mirror:
            turned = torch.rand(n, generator=generator) < 0.5
            columns = torch.where(turned[:, None], columns.flip(1), columns)
        return self.tiles[chosen[:, None, None], 0, rows[:, :, None], columns[:, None, :]][:, None]

    def batches(self, n: int, size: int, seed: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the first n of the shuffled test images with their labels."""
        order = torch.randperm(len(self.test), generator=torch.Generator().manual_seed(seed))[:n]
        for chosen in order.split(size):
            yield self.test[chosen], self.test_labels[chosen]


def photographs(*, blocks: int = TRAIN_BLOCKS) -> Images:
    """Return crops of the photographs, from given numbers of blocks for training and test."""
    pieces = [cut(read(name), blocks) for name in PHOTOGRAPHS]
    return _images(
        "photographs",
        tuple(PHOTOGRAPHS),
        [tiles for tiles, _ in pieces],
        [crops for _, crops in pieces],
        side=SIDE,
        patch=4,
        mirror=True,
    )


def digits() -> Images:
    """Return scikit-learn's handwritten digits, 8×8: 60 % to train on, with a pixel of room."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    train, test, labels, test_labels = train_test_split(
        bunch.images.astype(np.float32) / 16,
        bunch.target,
        test_size=0.4,
        random_state=0,
        stratify=bunch.target,
    )
    # A pixel of background on every side leaves room to shift a digit by one.
    train = np.pad(train, ((0, 0), (1, 1), (1, 1)))
    return _images(
        "digits",
        tuple(str(digit) for digit in range(10)),
        [train[labels == digit] for digit in range(10)],
        [test[test_labels == digit] for digit in range(10)],
        side=8,
        patch=2,
        mirror=False,
    )


def read(name: str) -> NDArray[np.float32]:
    """Return a photograph in grey, 0 to 1, of about `AREA` pixels."""
    package, file = PHOTOGRAPHS[name]
    with (resources.files(package) / file).open("rb") as opened, Image.open(opened) as image:
        grey = image.convert("L")
        scale = math.sqrt(AREA / (grey.width * grey.height))
        size = (round(grey.width * scale), round(grey.height * scale))
        resized = grey.resize(size, Image.Resampling.LANCZOS)
    return np.asarray(resized, dtype=np.float32) / 255


def chequerboard(height: int, width: int) -> tuple[list[tuple[int, int]], ...]:
    """Return the top left corners of the inner part of the training and of the test blocks."""
    rows, columns = round(height / BLOCK), round(width / BLOCK)
    corners: tuple[list[tuple[int, int]], ...] = ([], [])
    for row in range(rows):
        for column in range(columns):
            corner = (row * height // rows + MARGIN, column * width // columns + MARGIN)
            corners[(row + column) % 2].append(corner)
    return corners


def inner_side(height: int, width: int) -> int:
    """Return the number of pixels of a side of every block within its margins."""
    rows, columns = round(height / BLOCK), round(width / BLOCK)
    return min(height // rows, width // columns) - 2 * MARGIN


def cut(photograph: NDArray[np.float32], blocks: int) -> tuple[NDArray[np.float32], ...]:
    """Return training tiles (n, TILE, TILE) and test crops (m, SIDE, SIDE) of a photograph.

    Four tiles of a training block and nine crops of a test block, evenly spaced. The
    blocks are drawn once, so tiles of all blocks come early in the order.
    """
    height, width = photograph.shape
    train, test = chequerboard(height, width)
    inner = inner_side(height, width)
    shuffle = np.random.default_rng(0).permutation

    def pieces(corners: list[tuple[int, int]], side: int, across: int) -> NDArray[np.float32]:
        chosen = [corners[i] for i in shuffle(len(corners))[:blocks]]
        offsets = np.linspace(0, inner - side, across).astype(int)
        places = [(top, left) for top in offsets for left in offsets]
        return np.stack(
            [
                photograph[y + top : y + top + side, x + left : x + left + side]
                for top, left in places
                for y, x in chosen
            ]
        )

    return pieces(train, TILE, 2), pieces(test, SIDE, 3)


def _images(
    name: str,
    classes: tuple[str, ...],
    train: list[NDArray[np.float32]],
    test: list[NDArray[np.float32]],
    *,
    side: int,
    patch: int,
    mirror: bool,
) -> Images:
    tiles = np.concatenate(train)
    labels = np.repeat(np.arange(len(classes)), [len(each) for each in train])
    # Rank within the class first, so every start of the order is balanced over the classes.
    rank = np.concatenate([np.arange(len(each)) for each in train])
    order = np.lexsort((np.random.default_rng(1).permutation(len(labels)), rank))
    mean, std = tiles.mean(), tiles.std()
    crops = np.concatenate(test)
    test_labels = np.repeat(np.arange(len(classes)), [len(each) for each in test])
    return Images(
        name,
        classes,
        side,
        patch,
        mirror,
        torch.from_numpy((tiles[order] - mean) / std)[:, None],
        torch.from_numpy(labels[order]),
        torch.from_numpy((crops - mean) / std)[:, None],
        torch.from_numpy(test_labels),
        _grey_alone(tiles, labels, crops, test_labels),
    )


def _grey_alone(
    tiles: NDArray[np.float32],
    labels: NDArray[np.int64],
    crops: NDArray[np.float32],
    test_labels: NDArray[np.int64],
) -> float:
    """Return the accuracy of the nearest neighbour by mean and standard deviation of grey."""

    def summary(images: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.stack([images.mean((1, 2)), images.std((1, 2))], axis=1, dtype=np.float64)

    apart = np.linalg.norm(summary(crops)[:, None] - summary(tiles)[None], axis=-1)
    return float((labels[apart.argmin(axis=1)] == test_labels).mean())
