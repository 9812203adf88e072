"""The sums of token localisation over all batches, which those of other ranks add to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, Protocol, TypeAlias

import numpy as np

from repsim._errors import InputError
from repsim.capture.tokens import TokenGrid

__all__ = ["Floats", "LayerSums", "Localized", "described", "other_positions", "times"]

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class LayerSums:
    """Σ over batches of ⟨A, B⟩ for one layer: tokens with patches, and each with itself.

    Attributes
    ----------
    grid : TokenGrid
        The positions of the tokens.
    patches, image : tuple of int
        Patches and pixels along height and width; those of a video begin with its frames.
    xy, xx, yy : numpy.ndarray, shapes (tokens, patches), (tokens,), (patches,)
        The sums.
    """

    grid: TokenGrid
    patches: tuple[int, ...]
    image: tuple[int, ...]
    xy: Floats
    xx: Floats
    yy: Floats

    def plus(self, other: LayerSums) -> LayerSums:
        """Return the sums over the batches of both."""
        return replace(self, xy=self.xy + other.xy, xx=self.xx + other.xx, yy=self.yy + other.yy)


@dataclass(frozen=True)
class Localized:
    """What all batches left behind; that of several ranks adds up.

    Attributes
    ----------
    operation : str
        For error messages.
    layers : mapping of str to LayerSums
        The sums of every layer by its label; empty if there was no batch.
    n_samples, n_batches, n_skipped_batches, n_skipped_samples : int
        What is in the sums, and the batches of too few samples.
    """

    operation: str
    layers: Mapping[str, LayerSums]
    n_samples: int = 0
    n_batches: int = 0
    n_skipped_batches: int = 0
    n_skipped_samples: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of samples and batches, by name."""
        return {name: getattr(self, name) for name in _COUNTS}

    @staticmethod
    def merge(parts: Sequence[Localized]) -> Localized:
        """Return what all parts have seen.

        Raises
        ------
        InputError
            They have other layers, or images or grids of other sizes.
        """
        return reduce(Localized.plus, parts)

    def plus(self, other: Localized) -> Localized:
        """Return what this one and another have seen."""
        counts = {name: getattr(self, name) + getattr(other, name) for name in _COUNTS}
        if not (self.layers and other.layers):
            return replace(self, layers=self.layers or other.layers, **counts)
        missing, new = self.layers.keys() - other.layers, other.layers.keys() - self.layers
        if missing or new:
            raise InputError(
                f"{self.operation}: all ranks must have the same layers.\n"
                f"  missing on a rank: {sorted(missing)[:8]}    only there: {sorted(new)[:8]}\n"
                f"  Leave out layers that run in some batches only."
            )
        layers = {}
        for label, mine in self.layers.items():
            theirs = other.layers[label]
            if (mine.grid, mine.image) != (theirs.grid, theirs.image):
                now = f"on another rank: {described(theirs.grid, theirs.image)}"
                raise other_positions(self.operation, label, mine, now)
            layers[label] = mine.plus(theirs)
        return replace(self, layers=layers, **counts)


_COUNTS = ("n_samples", "n_batches", "n_skipped_batches", "n_skipped_samples")


class _Placed(Protocol):
    """What has a grid of positions in an image."""

    @property
    def grid(self) -> TokenGrid:
        """The positions."""

    @property
    def image(self) -> tuple[int, ...]:
        """The pixels of the image."""


def other_positions(operation: str, layer: str, before: _Placed, now: str) -> InputError:
    """Return the error about a layer whose positions change."""
    return InputError(
        f"{operation}: images and grids must stay the same.\n"
        f"  layer {layer!r}, before: {described(before.grid, before.image)}    {now}\n"
        f"  Resize the images with prepare=."
    )


def described(grid: TokenGrid, image: tuple[int, ...]) -> str:
    """Return the positions of a grid in an image, for a message."""
    return f"{times(grid.extent)} positions in {times(image)} pixels"


def times(lengths: tuple[int, ...]) -> str:
    """Return lengths as in 14×14."""
    return "×".join(map(str, lengths))
