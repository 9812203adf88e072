"""A new figure for a picture, with room for its layer names."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from repsim._errors import InputError
from repsim._options import got
from repsim._shown import shown
from repsim.plot.parts._plain import plain
from repsim.plot.parts._ticks import NAME_SIZE

__all__ = ["new_axes", "new_figure", "require_axes", "text_width"]

TRUE_TYPE: Any = {"pdf.fonttype": 42, "ps.fonttype": 42}


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
    """Return Axes of about `width` by `height` inches where nothing is drawn yet.

    Parameters
    ----------
    width, height : float
        Size of the picture itself, in inches, in a new figure.
    beside, below : float
        Room for its labels, in inches; the layout engine adjusts it.

    Returns
    -------
    matplotlib.axes.Axes
        With pyplot, the current Axes if nothing is drawn there, else in a new figure of pyplot: it
        is shown below a cell, by ``plt.show()``, and saved by ``plt.savefig``. In a script that did
        not import pyplot, in a figure that pyplot does not know, so nothing must be closed.
    """
    size = width + beside, height + below
    pyplot = _pyplot()
    if pyplot is not None and pyplot.get_fignums():
        current = pyplot.gcf()
        if not current.axes and current.get_layout_engine() is None:
            current.set_layout_engine("constrained")  # names of layers would be cut off
        place: Axes = current.gca()
        if not place.has_data():
            return place
    return new_figure(*size).add_subplot()


def new_figure(width: float, height: float) -> Figure:
    """Return a new figure of this size in inches, of pyplot if that is in use."""
    size, pyplot = (width, height), _pyplot()
    figure: Figure = (Figure if pyplot is None else pyplot.figure)(
        figsize=size, layout="constrained"
    )
    # No subclass, because experiment trackers know figures by the name of their type.
    figure.savefig = partial(_save, figure)  # type: ignore[method-assign]
    return figure


def _save(figure: Figure, fname: Any, **options: Any) -> None:
    """Save it so that text stays text in PDF and PostScript; journals refuse Type 3 fonts."""
    with rc_context(TRUE_TYPE):
        Figure.savefig(figure, fname, **options)


def _pyplot() -> Any:
    """Return pyplot if it is in use; in a notebook it always is, because only it shows figures."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if getattr(shell, "kernel", None) is not None:
        return importlib.import_module("matplotlib.pyplot")
    return sys.modules.get("matplotlib.pyplot")
