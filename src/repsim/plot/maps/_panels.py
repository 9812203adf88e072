"""Several maps side by side, with one colour scale, for print."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

from repsim._errors import InputError
from repsim._options import as_count, as_number, got, require_bool, require_choice
from repsim.plot.maps._arrangement import Arrangement, Placed
from repsim.plot.maps._drawing import (
    LABELS,
    DrawnMap,
    LayerMap,
    Notes,
    beyond,
    draw_map,
    name_sides,
    read_map,
)
from repsim.plot.maps._small_text import add_key, break_lines, characters_in, use_small_text
from repsim.plot.parts._beside import dress_colour_bar
from repsim.plot.parts._between import groups_of
from repsim.plot.parts._colours import Scale, colour_scale
from repsim.plot.parts._figure import new_figure
from repsim.plot.parts._layer_map import measure_label
from repsim.plot.parts._ticks import NAME_SIZE

__all__ = ["NARROWEST", "WIDEST", "panels"]

Result = xr.Dataset | xr.DataArray
Panel = Result | Callable[[Axes], Any]

NAMED = 0.3
"""The part of the width that names of layers may take."""

NARROWEST, WIDEST = 1.0, 50.0
PER_PANEL = 1.5
"""Inches of the figure for each panel of a row, at least."""

FLATTEST, STEEPEST = 0.5, 1.5
"""Limits of height divided by width, for a map whose cells are not squares."""


def panels(
    results: Sequence[Panel],
    *,
    titles: Sequence[str] | None = None,
    columns: int | None = None,
    width: float = 7.0,
    above_chance: float | Sequence[float | xr.DataArray | None] | None = None,
    groups: Mapping[str, str] | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
    cmap: str | Colormap | None = None,
    labels: str = "names",
    colorbar: bool = True,
) -> list[Axes]:
    """Draw maps side by side with one colour scale and one colour bar, at a width for print.

    >>> import numpy as np, repsim
    >>> rng = np.random.default_rng(0)
    >>> maps = []
    >>> for name in ("first", "second"):
    ...     layers = {f"{name}.{i}": rng.standard_normal((50, 8)) for i in range(6)}
    ...     maps.append(repsim.pairwise(layers, measure="cka", estimator="unbiased"))
    >>> axes = repsim.plot.panels(maps, width=3.3, labels="index", titles=["first", "second"])
    >>> float(axes[0].figure.get_figwidth())
    3.3
    >>> [ax.get_title() for ax in axes]
    ['first', 'second']

    The figure is exactly `width` wide, and as high as its maps need. Names of layers have 7 points,
    labels 8, titles 9. Panels of a row have one height. Neighbours that have the same layers share
    their names.

    Parameters
    ----------
    results : sequence of xarray.Dataset, xarray.DataArray or callable
        Maps as for `repsim.plot.heatmap`, all of one measure, or functions that draw on the Axes
        they are called with, such as ``lambda ax: repsim.plot.layer_match(result, ax)``.
    titles : sequence of str, optional
        A title for each panel.
    columns : int, optional
        Panels in a row; by default as many as leave 1.5 inches of the width for each.
    width : float
        Width of the figure in inches, from 1 to 50: 7 is a page of most journals, 3.3 a column.
    above_chance : float, or sequence of float, xarray.DataArray or None, optional
        As for `repsim.plot.heatmap`; one for all maps, or one for each panel.
    groups : mapping of str to str, optional
        The group of each name; see `repsim.plot.heatmap`.
    vmin, vmax : float, optional
        The ends of the colour scale of all maps; see `repsim.plot.heatmap`. If the measure has no
        greatest value, the scale ends at the largest value of all maps.
    cmap : str or matplotlib.colors.Colormap, optional
        The colours of the scale.
    labels : {"names", "index", "none"}
        What stands along the sides. Names that would take more than 0.3 of the width are shortened
        to their end. Indices are round numbers from 0, as in the reference. Names of models take
        three lines at most.
    colorbar : bool
        Whether to add the colour bar, ``axes[0].images[-1].colorbar`` of the first map. Without it,
        a key below the panels explains colours that are not on the scale.

    Returns
    -------
    list of matplotlib.axes.Axes
        One for each panel, in a new figure, which pyplot knows if it is in use. Saved as PDF, the
        figure has TrueType fonts.

    Raises
    ------
    InputError
        A panel is neither a map nor a function; maps of different measures; a number of titles or
        thresholds that is not the number of panels; see `repsim.plot.heatmap`.

    Notes
    -----
    Cells are squares unless one side has more than twice as many layers as the other; then a map is
    from 0.5 to 1.5 times as high as it is wide. Save without ``bbox_inches="tight"``, which changes
    the width.

    References
    ----------
    Raghu et al. (2021), "Do Vision Transformers See Like Convolutional Neural Networks?", Fig. 1.
    """
    width = as_number("panels", "width", width, least=NARROWEST, most=WIDEST)
    require_choice("panels", "labels", labels, LABELS)
    require_bool("panels", "colorbar", colorbar)
    _require_panels(results)
    thresholds = _one_for_each("above_chance", above_chance, len(results))
    _require_titles(titles, len(results))
    maps = {
        at: read_map(result, threshold, "panels")
        for at, (result, threshold) in enumerate(zip(results, thresholds, strict=True))
        if not callable(result)
    }
    scales = _shared_scales(maps, vmin=vmin, vmax=vmax, cmap=cmap)
    everyone = [name for of in maps.values() for name in (*of.names_x, *of.names_y)]
    everyone = list(dict.fromkeys(everyone))
    looks = dict(zip(everyone, groups_of(groups, everyone, "panels"), strict=True))
    if columns is None:
        columns = max(1, int(width / PER_PANEL))
    columns = min(as_count("panels", "columns", columns), len(results))

    figure = new_figure(width, width)
    axes = [figure.add_axes((0.2, 0.2, 0.5 / columns, 0.5 / columns)) for _ in results]
    drawn = {
        at: draw_map(axes[at], of, scales[at], None if groups is None else looks)
        for at, of in maps.items()
    }
    for ax, panel in zip(axes, results, strict=True):
        if callable(panel):
            ax.tick_params(labelsize=NAME_SIZE)
            with rc_context({"font.size": NAME_SIZE}):  # of its legend, and of texts inside it
                panel(ax)
    arrangement = Arrangement(
        [
            Placed(ax, *divmod(at, columns), _ratio(ax, maps.get(at)), at in maps)
            for at, ax in enumerate(axes)
        ]
    )
    figure.set_layout_engine(arrangement)
    sides = _name_all(axes, maps, labels, columns, width)
    for at, title in enumerate(titles or ()):
        axes[at].set_title(title)
    use_small_text(axes)
    _add_shared(figure, arrangement, maps, drawn, colorbar=colorbar)
    arrangement.fit(figure, thin=True)
    break_lines(axes, maps, sides, arrangement)
    arrangement.fit(figure)
    figure.sca(axes[-1])
    return axes


def _require_panels(results: Any) -> None:
    kinds = xr.Dataset | xr.DataArray
    listed = isinstance(results, Sequence) and not isinstance(results, str)
    wrong = (
        [got(each) for each in results if not isinstance(each, kinds) and not callable(each)]
        if listed
        else [got(results)]
    )
    if wrong or not results:
        raise InputError(
            f"panels: results must be a list of maps, or of functions that draw on Axes.\n"
            f"  got {', '.join(wrong[:4]) or 'an empty list'}\n"
            f"  For example panels([first, second]), with two results of repsim.compare."
        )


def _one_for_each(name: str, value: Any, count: int) -> list[Any]:
    """Return `value` as a list with an entry for each panel."""
    if not isinstance(value, list | tuple):
        return [value] * count
    _require_length(name, value, count)
    return list(value)


def _require_titles(titles: Any, count: int) -> None:
    if titles is None:
        return
    listed = isinstance(titles, Sequence) and not isinstance(titles, str)
    if not listed or not all(isinstance(title, str) for title in titles):
        raise InputError(
            f"panels: titles must be a list of texts.\n  got {got(titles)}\n"
            f"  Give one title for each panel."
        )
    _require_length("titles", titles, count)


def _require_length(name: str, values: Sequence[Any], count: int) -> None:
    if len(values) != count:
        raise InputError(
            f"panels: {name} must have one entry for each panel.\n"
            f"  {name}: {len(values)}    panels: {count}"
        )


def _shared_scales(
    maps: Mapping[int, LayerMap],
    *,
    vmin: float | None,
    vmax: float | None,
    cmap: str | Colormap | None,
) -> dict[int, Scale]:
    """Return the colours of each map, all on one scale; raise if maps are of two measures."""
    measured = {measure_label(of.array, direction=True): None for of in maps.values()}
    if len(measured) > 1:
        lines = "\n".join("  " + " ".join(each.split()) for each in measured)
        raise InputError(
            f"panels: all maps must be of one measure, because they share a colour bar.\n{lines}\n"
            f"  Draw each with a bar of its own: "
            f"panels([lambda ax: repsim.plot.heatmap(first, ax), ...])."
        )
    if not maps:
        return {}
    ends = {
        "vmin": min(of.low for of in maps.values()) if vmin is None else vmin,
        "vmax": max(of.high for of in maps.values()) if vmax is None else vmax,
    }
    every = [of.visible for of in maps.values()]
    shared = colour_scale(
        np.concatenate([each.ravel() for each in every]),
        "panels",
        cmap=next(iter(maps.values())).cmap if cmap is None else cmap,
        **ends,
    )
    parts = np.split(shared.values, np.cumsum([each.size for each in every])[:-1])
    return {
        at: shared._replace(values=part.reshape(each.shape))
        for at, each, part in zip(maps, every, parts, strict=True)
    }


def _ratio(ax: Axes, of: LayerMap | None) -> float:
    """Return the height of a panel divided by its width."""
    if of is None:
        return 1.0
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    natural = (top - bottom) / (right - left)
    return natural if of.squares else float(np.clip(natural, FLATTEST, STEEPEST))


def _name_all(
    axes: Sequence[Axes], maps: Mapping[int, LayerMap], labels: str, columns: int, width: float
) -> dict[int, tuple[bool, bool]]:
    """Name the layers of each map, except where a neighbour names the same; return which sides."""

    def shares(at: int, other: int, side: int) -> bool:
        if other not in maps:
            return False
        one, two = maps[at], maps[other]
        same = (one.names_x, two.names_x) if side == 0 else (one.names_y, two.names_y)
        return same[0] == same[1] and one.titles[side] == two.titles[side]

    sides = {
        at: (at % columns == 0 or not shares(at, at - 1, 0), not shares(at, at + columns, 1))
        for at in maps
    }
    named = max(
        (
            sum(sides[at][0] for at in maps if at // columns == row)
            for row in {at // columns for at in maps}
        ),
        default=1,
    )
    longest = characters_in(NAMED * width / max(named, 1), NAME_SIZE)
    for at, of in maps.items():
        name_sides(axes[at], of, labels, sides=sides[at], longest=longest)
    return sides


def _add_shared(
    figure: Figure,
    arrangement: Arrangement,
    maps: Mapping[int, LayerMap],
    drawn: Mapping[int, DrawnMap],
    *,
    colorbar: bool,
) -> None:
    """Add the one colour bar and the one key."""
    notes: Notes = {}
    for each in drawn.values():
        notes |= {text.replace("\n", " "): sample for text, sample in each.notes.items()}
    if drawn:
        first = min(drawn)
        image, scale = drawn[first].image, drawn[first].scale
        if colorbar:
            arrangement.bar = figure.add_axes((0.9, 0.2, 0.02, 0.5))
            bar = figure.colorbar(image, cax=arrangement.bar, extend=scale.extend, extendfrac=0.03)
            dress_colour_bar(bar, measure_label(maps[first].array, direction=True))
        else:
            notes |= beyond(scale)
    if notes:
        arrangement.key = add_key(figure, notes)
