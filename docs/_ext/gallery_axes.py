"""The picture of an example in the gallery: the Axes that its last line returned.

The value itself is collected, whether pyplot knows its figure or not.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst

__all__ = ["axes_of_last_line", "figure_of", "quiet"]

SHOWN = 736
"""Pixels: the width of the text of a page, in which a picture is shown."""

SHARPEST = 144
"""Dots per inch, at most."""


def figure_of(value: object) -> Figure | None:
    """Return the figure of an Axes, of an array or list of them, or the figure itself."""
    if isinstance(value, np.ndarray):
        value = value.ravel().tolist()
    if isinstance(value, list) and value and isinstance(value[0], Axes):
        value = value[0]
    if isinstance(value, Axes):
        value = value.figure
    return value if isinstance(value, Figure) else None


def axes_of_last_line(
    block: tuple[str, str, int], variables: Mapping[str, Any], configuration: Mapping[str, Any]
) -> str:
    """Save the picture of the last line of a block; sphinx-gallery calls this."""
    if (figure := figure_of(variables["example_globals"].get("___"))) is None:
        return ""
    paths: Iterator[str] = variables["image_path_iterator"]
    path = next(paths)
    figure.savefig(path, dpi=min(SHARPEST, SHOWN / figure.get_figwidth()))
    pyplot.close("all")
    return figure_rst([path], configuration["src_dir"], fig_titles=_title(figure))


def quiet(configuration: Mapping[str, Any], name: str) -> None:
    """Start an example as a fresh process would: one thread, one seed, warnings as errors."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    warnings.filterwarnings("error", module="repsim")


def _title(figure: Figure) -> str:
    """Return the title of the picture as its text alternative."""
    titles = (ax.get_title() or ax.get_title("left") for ax in figure.axes)
    return next((title for title in titles if title), "").replace("\n", " ")
