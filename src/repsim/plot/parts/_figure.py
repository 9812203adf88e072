"""A figure for a picture that was given no Axes, with room for its layer names."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from repsim.plot.parts._ticks import NAME_SIZE

__all__ = ["new_axes", "text_width"]


def text_width(names: Sequence[str]) -> float:
    """Return about how much the longest of `names` measures as a tick label, in inches."""
    longest = max(names, key=len).replace("$", r"\$")
    return float(TextPath((0, 0), longest or " ", size=NAME_SIZE).get_extents().width) / 72


def new_axes(width: float, height: float, *, beside: float, below: float) -> Axes:
    """Return Axes of about `width` by `height` inches in a figure of their own.

    Parameters
    ----------
    width, height : float
        Size of the picture itself, in inches.
    beside, below : float
        What its labels add, in inches; the layout engine settles the rest.

    Returns
    -------
    matplotlib.axes.Axes
        In a figure that pyplot does not know: nothing opens, nothing has to be closed.
    """
    figure = Figure(figsize=(width + beside, height + below), layout="constrained")
    return figure.add_subplot()
