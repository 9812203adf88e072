"""Text for print: its sizes, lines that fit their sides, and a key of few lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from repsim.plot.maps._arrangement import Arrangement
from repsim.plot.maps._drawing import SIDE_BY_SIDE, LayerMap, Notes
from repsim.plot.parts._layer_map import measure_label
from repsim.plot.parts._plain import plain
from repsim.plot.parts._ticks import NAME_SIZE

__all__ = ["add_key", "break_lines", "characters_in", "use_small_text"]

LABEL_SIZE, TITLE_SIZE = 8.0, 9.0
"""Points."""

LETTER = 0.56
"""Mean width of a letter divided by the size of its font."""

LONG_WORD = 1.6
"""A longer word than the line times this is cut."""

LINES = 3
"""Lines that the name of a model may take; it then ends with "…"."""

BAR_LINE = 14
"""Characters of a line beside the colour bar, at least."""


def use_small_text(axes: Sequence[Axes]) -> None:
    """Give titles and labels sizes for print; names of layers have theirs."""
    for ax in axes:
        ax.title.set_fontsize(TITLE_SIZE)
        for axis in (ax.xaxis, ax.yaxis):
            axis.label.set_fontsize(LABEL_SIZE)


def add_key(figure: Figure, notes: Notes) -> Legend:
    """Return a key of as few lines as fit the width."""
    samples: Any = list(notes.values())  # the stubs do not know that a sample may be a tuple
    for columns in range(len(notes), 0, -1):
        key = figure.legend(
            samples,
            list(notes),
            handler_map=SIDE_BY_SIDE,
            loc="lower center",
            ncols=columns,
            borderaxespad=0.0,
            borderpad=0.0,
            handlelength=1.3,
            handletextpad=0.5,
            columnspacing=1.2,
            frameon=False,
            fontsize=NAME_SIZE,
        )
        if columns == 1 or key.get_window_extent().width <= figure.bbox.width:
            break
        key.remove()
    return key


def characters_in(inches: float, size: float) -> int:
    """Return how many letters of a font of this size fit."""
    return max(4, int(inches * 72 / (LETTER * size)))


def break_lines(
    axes: Sequence[Axes],
    maps: Mapping[int, LayerMap],
    sides: Mapping[int, tuple[bool, bool]],
    arrangement: Arrangement,
) -> None:
    """Break titles and labels that are longer than the side along which they stand."""
    for at, ax in enumerate(axes):
        box = ax.get_window_extent()
        wide, tall = box.width / ax.figure.dpi, box.height / ax.figure.dpi
        if "$" not in ax.get_title():  # a formula must stay on one line
            ax.title.set_text(_broken(ax.get_title(), wide, TITLE_SIZE))
        if at in maps:
            for axis, title, wanted, inches in zip(
                (ax.yaxis, ax.xaxis), maps[at].titles, sides[at], (tall, wide), strict=True
            ):
                if wanted:
                    axis.set_label_text(plain(_broken(title, inches, LABEL_SIZE, LINES)))
    if arrangement.bar is not None:
        inches = arrangement.bar.get_window_extent().height / arrangement.bar.figure.dpi
        array = next(iter(maps.values())).array
        characters = max(characters_in(inches, LABEL_SIZE), BAR_LINE)
        label = measure_label(array, direction=True, characters=characters)
        arrangement.bar.set_ylabel(label)


def _broken(text: str, inches: float, size: float, lines: int | None = None) -> str:
    """Return `text` in lines of this length; a word is cut only if it is much longer."""
    fits = characters_in(inches, size)
    longest = max(map(len, text.split()), default=0)
    width = fits if longest > LONG_WORD * fits else max(fits, longest)
    own = text.split("\n")  # lines that the picture itself has
    return "\n".join(fill(line, width, max_lines=lines, placeholder=" …") for line in own)
