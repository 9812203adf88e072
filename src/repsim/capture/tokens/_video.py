"""Rules from sizes to positions in videos and volumes: frames, rows and columns.

They are functions of plain numbers, as those of :mod:`repsim.capture.tokens._rules`.
"""

from __future__ import annotations

from typing import TypeAlias

from repsim.capture.tokens._rules import MOST_PREFIX

__all__ = ["VideoSize", "between_frames", "channels_of_video", "grid_of_video", "video_of"]

VideoSize: TypeAlias = tuple[int, int, int]
"""Frames, height and width."""

CHANNELS = (1, 3, 4)
"""Numbers of channels of videos and volumes."""


def channels_of_video(shape: tuple[int, ...]) -> int | None:
    """Return the axis of the channels of a video with its samples first; None if ambiguous.

    The channels are before or after the frames, or last.
    """
    if len(shape) != 5:
        return None
    found = [axis for axis in (1, 2, 4) if shape[axis] in CHANNELS]
    return found[0] if len(found) == 1 else None


def video_of(shape: tuple[int, ...]) -> VideoSize | None:
    """Return frames, height and width of a video with its samples first; None if ambiguous."""
    axis = channels_of_video(shape)
    if axis is None:
        return None
    frames, height, width = (length for i, length in enumerate(shape) if i not in (0, axis))
    return frames, height, width


def grid_of_video(
    keys: int, sequences: int, grid: VideoSize, *, prefix: int | None = None
) -> tuple[VideoSize, int] | None:
    """Return the part of a grid that one attention covers, and its prefix; None if none fits.

    Attention is over the whole video, over each frame, or along time at each place.

    Parameters
    ----------
    keys : int
        Tokens that attend to one another, prefix included.
    sequences : int
        How many such sequences a sample has.
    grid : (int, int, int)
        The tokens of the video along time, height and width.
    prefix : int, optional
        The number of tokens before those of the grid; by default the rest, at most 16.

    Returns
    -------
    tuple or None
        None also if several parts fit.
    """
    frames, height, width = grid
    places = height * width
    parts = {
        (1, grid): frames * places,
        (frames, (1, height, width)): places,
        (places, (frames, 1, 1)): frames,
    }
    allowed = range(MOST_PREFIX + 1) if prefix is None else (prefix, 0)
    found = {
        part: keys - tokens
        for (number, part), tokens in parts.items()
        if number == sequences and keys - tokens in allowed
    }
    return next(iter(found.items())) if len(found) == 1 else None


def between_frames(frames: int, grid: int) -> float | None:
    """Return the frames of a video from one token to the next; None if a remainder is left."""
    return frames / grid if frames % grid == 0 else None
