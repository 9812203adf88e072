"""Sums over the attention of videos, with distances in space and in time apart."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from repsim.analysis.attention._image_sums import ImageSums
from repsim.analysis.attention._layer_sums import LayerSums
from repsim.analysis.attention._places import Places
from repsim.attention import grid_distances
from repsim.capture import AttentionCall
from repsim.capture.tokens import TokenGrid

__all__ = ["SumsAndRows", "VideoSums", "in_space", "in_time"]

SumsAndRows: TypeAlias = tuple[ImageSums, Tensor]
Floats = np.ndarray[Any, np.dtype[np.float64]]


def in_space(grid: TokenGrid) -> Floats:
    """Return the pixels between tokens (frames · rows · columns), whatever their frames."""
    assert grid.step is not None, "places have a step"
    frames = grid.frames or 1
    return np.tile(grid_distances(grid.size, grid.step), (frames, frames))


def in_time(grid: TokenGrid) -> Floats:
    """Return the frames between tokens (frames · rows · columns), wherever they lie in them."""
    assert grid.frame_step is not None, "the tokens of a video have a step in time"
    frame = np.repeat(np.arange(grid.frames or 1), grid.height * grid.width)
    apart: Floats = np.abs(frame[:, None] - frame[None]) * grid.frame_step
    return apart


class VideoSums(LayerSums):
    """Sums over videos and tokens of one layer: those of images, and those of distances in time.

    Parameters
    ----------
    places : Places
        The tokens of a video, or of what a part of the attention covers: a frame, or one place.
    heads : int
        The number of heads.
    device : torch.device
        The device of the sums.
    """

    added = ("_space", "_time")

    def __init__(self, places: Places, heads: int, device: torch.device) -> None:
        self._space = ImageSums(places, heads, device)
        self._time = ImageSums(places, heads, device)
        self.places, self.heads = places, heads

    @property
    def totals(self) -> Tensor:
        """The sums in space."""
        return self._space.totals

    def fits(self, places: Places, heads: int) -> bool:
        """Whether a call of these places can be added."""
        return self._space.fits(places, heads)

    def fits_sums(self, other: LayerSums) -> bool:
        """Whether the sums of another rank can be added."""
        return isinstance(other, VideoSums) and self.fits(other.places, other.heads)

    def rows_of(self, call: AttentionCall, space: Tensor, time: Tensor) -> list[SumsAndRows]:
        """Reduce the weights of one batch; distances are (tokens, keys), 0 for prefix tokens.

        Return the sums in space and those in time, each with the rows that belong to it.
        """
        rows = self._space.rows_of(call, [space, time])
        return [(self._space, torch.cat([rows[:1], rows[2:]])), (self._time, rows[1:])]

    def unscaled(self, call: AttentionCall) -> bool:
        """Whether the rows of a call are those of weights before the division by their sums."""
        return self._space.unscaled(call)

    def count(self, call: AttentionCall) -> None:
        """Count the tokens of a batch that attend."""
        self._space.count(call)
        self._time.count(call)

    def means(self) -> Floats:
        """Return (4, heads), as for images: distances in pixels."""
        return self._space.means()

    def time_distance(self) -> Floats:
        """Return the mean distance in time of each head, in frames."""
        distance: Floats = self._time.means()[0]
        return distance

    def uniform_distance(self) -> float:
        """Return the mean distance of a head that attends equally to all tokens, in pixels."""
        return self._uniform(in_space(self.places.grid))

    def uniform_entropy(self) -> float:
        """Return the entropy of a head that attends equally to all tokens, in nats."""
        return self._space.uniform_entropy()

    def uniform_time_distance(self) -> float:
        """Return the mean distance in time of such a head, in frames."""
        return self._uniform(in_time(self.places.grid))

    def _uniform(self, distances: Floats) -> float:
        return float(distances.sum() / (len(distances) * self.places.grid.n_tokens))
