"""A tree of models, or of layers: the most alike are joined first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from repsim._options import require_choice, require_text
from repsim.plot.parts._between import Group, between, groups_of
from repsim.plot.parts._figure import new_axes, require_axes, text_width
from repsim.plot.parts._lines import add_key
from repsim.plot.parts._plain import plain
from repsim.plot.parts._ticks import NAME_SIZE, name_layers

__all__ = ["dendrogram", "group_handles"]

METHODS = ("average", "complete", "single", "weighted")
"""Those that need no Euclidean distances."""

WIDTH, PER_LEAF, SHORTEST = 3.2, 0.2, 1.2
"""Inches."""


def dendrogram(
    result: xr.Dataset | xr.DataArray,
    ax: Axes | None = None,
    *,
    groups: Mapping[str, str] | Sequence[str] | None = None,
    method: str = "average",
    title: str | None = None,
) -> Axes:
    """Draw a tree of models in which the most alike are joined first.

    >>> import numpy as np, repsim
    >>> rng = np.random.default_rng(0)
    >>> shared = rng.standard_normal((80, 6))
    >>> models = {
    ...     name: shared @ rng.standard_normal((6, 6)) + noise * rng.standard_normal((80, 6))
    ...     for name, noise in [("a", 0.1), ("b", 0.1), ("c", 3.0)]
    ... }
    >>> ax = repsim.plot.dendrogram(repsim.pairwise(models, measure="cka"))
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['c', 'a', 'b']

    Agglomerative clustering (`scipy.cluster.hierarchy.linkage`): two clusters are joined at the
    distance between them, which the axis shows. A similarity s is the distance ``max(0, top − s)``,
    where ``top`` is its value of "the same", 1 for CKA.

    Parameters
    ----------
    result : xarray.Dataset or xarray.DataArray
        A map of one set with itself: the result of `repsim.alignment` with the dimensions
        ``model_x`` and ``model_y``, or of `repsim.pairwise` with ``layer_x`` and ``layer_y``.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default the current Axes of pyplot if they are empty, or a new figure.
    groups : mapping of str to str, or sequence of str, optional
        The group of each name, or one group for each name in their order. Names of a group have one
        colour, and a key lists the groups.
    method : {"average", "complete", "single", "weighted"}, default "average"
        The distance between two clusters: the mean, the largest or the smallest of the distances
        between their members; "weighted" is the mean of the two joined parts.
    title : str, optional
        A title for the Axes.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`, or the new Axes.

    Raises
    ------
    InputError
        `result` is not such a map, is not symmetric, has a pair without a value, or does not say
        whether larger values mean more alike; a name has no group.

    Notes
    -----
    A tree shows clusters even where there are none. Compare heights with those of repeated
    trainings. Cost: O(m²) for m models.

    References
    ----------
    Müllner 2011, arXiv:1109.2378.
    """
    require_axes("dendrogram", ax)
    require_choice("dendrogram", "method", method, METHODS)
    require_text("dendrogram", title=title)
    pairs = between(result, "dendrogram")
    looks = groups_of(groups, pairs.names, "dendrogram")
    links = hierarchy.linkage(squareform(pairs.distances(), checks=False), method=method)
    tree = hierarchy.dendrogram(links, no_plot=True)
    leaves = tree["leaves"]
    names = [pairs.names[leaf] for leaf in leaves]
    if ax is None:
        height = max(PER_LEAF * len(names), SHORTEST)
        ax = new_axes(WIDTH, height, beside=0.3 + text_width(names), below=0.6)
    # SciPy places the leaves at 5, 15, 25, ...
    lines = [
        np.column_stack([heights, (np.asarray(places) - 5.0) / 10.0])
        for heights, places in zip(tree["dcoord"], tree["icoord"], strict=True)
    ]
    ax.add_collection(LineCollection(lines, colors="0.25", linewidths=1.0))
    for place, leaf in enumerate(leaves):
        look = looks[leaf]
        ax.plot(
            0.0, place, look.marker, color=look.colour, markersize=4.0, clip_on=False, zorder=3.0
        )
    highest = float(links[:, 2].max()) or 1.0
    ax.set_xlim(0.0, 1.05 * highest)
    ax.set_ylim(-0.6, len(names) - 0.4)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set_linewidth(0.6)
    ax.tick_params(labelsize=NAME_SIZE, length=2.0, width=0.6)
    distance = f"{pairs.top:g} − {pairs.label}" if pairs.similar else pairs.label
    ax.set_xlabel(distance, fontsize=NAME_SIZE + 2)
    name_layers(ax.yaxis, np.arange(len(names)), names)
    ax.yaxis.set_tick_params(length=0.0, pad=5.0)
    if title is not None:
        ax.set_title(title)
    if groups is not None:
        add_key(ax, group_handles(looks))
    return ax


def group_handles(looks: Sequence[Group]) -> list[Line2D]:
    """Return one entry of a key for each group."""
    return [
        Line2D([], [], color=look.colour, marker=look.marker, linestyle="", label=plain(look.name))
        for look in dict.fromkeys(looks)
    ]
