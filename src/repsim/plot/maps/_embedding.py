"""A plane of models, or of layers, in which alike ones lie close together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from scipy.linalg import eigh

from repsim._options import require_text
from repsim.plot.maps._dendrogram import group_handles
from repsim.plot.parts._between import Between, between, groups_of
from repsim.plot.parts._figure import new_axes, require_axes, text_width
from repsim.plot.parts._lines import add_key
from repsim.plot.parts._point_names import PointNames
from repsim.plot.parts._ticks import LINE, NAME_SIZE

__all__ = ["embedding"]

SIDE, LONGEST = 3.4, 9.0
"""Inches: the limits of a side."""

SPARSE = 6.0
"""The area of a new picture, as a multiple of the area of its names."""


def embedding(
    result: xr.Dataset | xr.DataArray,
    ax: Axes | None = None,
    *,
    groups: Mapping[str, str] | Sequence[str] | None = None,
    title: str | None = None,
) -> Axes:
    """Draw models as points whose distances follow their dissimilarities.

    >>> import numpy as np, repsim
    >>> rng = np.random.default_rng(0)
    >>> shared = rng.standard_normal((80, 6))
    >>> models = {
    ...     name: shared @ rng.standard_normal((6, 6)) + noise * rng.standard_normal((80, 6))
    ...     for name, noise in [("a", 0.1), ("b", 0.1), ("c", 3.0)]
    ... }
    >>> ax = repsim.plot.embedding(repsim.pairwise(models, measure="angular_cka"))
    >>> ax.get_xlabel()
    'axis 1 (61 % of the squared distances)'

    Classical multidimensional scaling::

        B = −½ J D∘D J,   J = I − 11ᵀ/m,   B = V Λ Vᵀ,   points = V₂ Λ₂^½

    The two axes have the largest eigenvalues; each states its share ``λ / Σ|λ|``. A similarity s is
    the squared distance ``2 max(0, top − s)``, where ``top`` is its value of "the same". For
    CKA, NBS and other cosines this is the Euclidean distance between unit vectors.

    Parameters
    ----------
    result : xarray.Dataset or xarray.DataArray
        A map of one set with itself, as in `repsim.plot.dendrogram`. The best dissimilarities are
        metrics: "angular_cka", "procrustes", "shape_distance".
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default the current Axes of pyplot if they are empty, or a new figure.
        A new figure grows with the number of names, up to 9 inches a side.
    groups : mapping of str to str, or sequence of str, optional
        The group of each name, or one group for each name in their order. Points of a group have
        one colour and marker, and a key lists the groups.
    title : str, optional
        A title for the Axes.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`, or the new Axes. Both axes have one scale. The sign of each axis is arbitrary; here
        the point farthest from 0 is positive.

    Raises
    ------
    InputError
        As `repsim.plot.dendrogram`.

    Notes
    -----
    If the shares of the two axes are small, the plane shows little of the distances. Cost: O(m³)
    for m models.

    References
    ----------
    Torgerson 1952, "Multidimensional scaling: I. Theory and method", Psychometrika 17.
    """
    require_axes("embedding", ax)
    require_text("embedding", title=title)
    pairs = between(result, "embedding")
    looks = groups_of(groups, pairs.names, "embedding")
    points, shares = _scaled(pairs)
    if ax is None:
        names = len(pairs.names) * text_width(pairs.names) * NAME_SIZE * LINE / 72
        side = float(np.clip(np.sqrt(SPARSE * names), SIDE, LONGEST))
        ax = new_axes(side, side, beside=0.5 + 1.2 * (groups is not None), below=0.5)
    for look in dict.fromkeys(looks):
        of_group = points[[each == look for each in looks]]
        ax.plot(*of_group.T, look.marker, color=look.colour, markersize=5.0, zorder=3.0)
    ax.add_artist(PointNames(points, pairs.names, [look.colour for look in looks]))
    ax.set_aspect("equal", adjustable="datalim")
    ax.margins(0.18)
    ax.grid(visible=True, color="0.92", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[:].set_linewidth(0.6)
    ax.tick_params(labelsize=NAME_SIZE, length=2.0, width=0.6)
    for number, (axis, share) in enumerate(zip((ax.xaxis, ax.yaxis), shares, strict=True), 1):
        axis.set_label_text(
            f"axis {number} ({share:.0%} of the squared distances)".replace("%", " %"),
            fontsize=NAME_SIZE + 2,
        )
    if title is not None:
        ax.set_title(title)
    if groups is not None:
        add_key(ax, group_handles(looks))
    return ax


def _scaled(pairs: Between) -> tuple[Any, Any]:
    """Return the points (m, 2) and the share of the squared distances of each axis."""
    gaps = pairs.distances()
    squares = 2 * gaps if pairs.similar else gaps**2
    centred = squares - squares.mean(axis=0)
    inner = -(centred - centred.mean(axis=1, keepdims=True)) / 2
    values, vectors = eigh(inner)
    largest = np.argsort(values)[::-1][:2]
    kept = np.maximum(values[largest], 0.0)
    total = np.abs(values).sum()
    points = vectors[:, largest] * np.sqrt(kept)
    farthest = np.abs(points).argmax(axis=0)
    points = points * np.where(points[farthest, np.arange(2)] < 0, -1.0, 1.0)
    return points, kept / total if total > 0 else np.zeros(2)
