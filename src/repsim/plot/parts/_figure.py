"""A new figure for a picture, with room for its layer names."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from repsim._errors import InputError
from repsim._options import got
from repsim._shown import shown
from repsim.plot.parts._plain import plain
from repsim.plot.parts._ticks import NAME_SIZE

__all__ = ["new_axes", "require_axes", "text_width"]


def text_width(names: Sequence[str]) -> float:
    """Return the approximate length of the longest of `names` as a tick label, in inches."""
    longest = plain(max(map(shown, names), key=len))
    return float(TextPath((0, 0), longest or " ", size=NAME_SIZE).get_extents().width) / 72


def require_axes(operation: str, ax: object) -> None:
    """Raise if the place of a picture is given and is not Axes."""
    if ax is not None and not isinstance(ax, Axes):
        raise InputError(
            f"{operation}: ax must be matplotlib Axes, or None for a new figure.\n  got {got(ax)}\n"
            f"  matplotlib.pyplot.subplots() returns a figure and its Axes."
        )


def new_axes(width: float, height: float, *, beside: float, below: float) -> Axes:
    """Return Axes of about `width` by `height` inches in a new figure.

    Parameters
    ----------
    width, height : float
        Size of the picture itself, in inches.
    beside, below : float
        Room for its labels, in inches; the layout engine adjusts it.

    Returns
    -------
    matplotlib.axes.Axes
        In a figure that pyplot does not know, so no window opens and nothing must be closed.
    """
    figure = Figure(figsize=(width + beside, height + below), layout="constrained")
    return figure.add_subplot()
