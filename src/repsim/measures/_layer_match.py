"""At which depth of one model each layer of the other finds its most similar layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from repsim.results import LAYER_MATCH, LOWER_HALF, chance_threshold, layer_map, layer_names

if TYPE_CHECKING:
    import xarray

__all__ = ["layer_match"]

MOST = 0.9


def layer_match(
    result: xarray.Dataset | xarray.DataArray, variable: str | None = None
) -> xarray.Dataset:
    """For each layer of x, the most similar layer of y, and the depth of both.

    >>> import xarray, repsim
    >>> cka = xarray.DataArray(
    ...     [[0.9, 0.3, 0.1], [0.8, 0.6, 0.2], [0.1, 0.4, 0.7]],
    ...     coords={"layer_x": ["stem", "block", "head"], "layer_y": ["embed", "mlp", "norm"]},
    ...     dims=("layer_x", "layer_y"),
    ... )
    >>> match = repsim.layer_match(cka)
    >>> match["match"].values.tolist()
    ['embed', 'embed', 'norm']
    >>> match.depth_y.values.tolist(), match.attrs["lower_half_reach"]
    ([0.0, 0.0, 1.0], 0.0)

    With similarities s_ij of layer i of m in x and layer j of m′ in y, in the order of the map::

        j*(i) = argmax_j s_ij        depth_x(i) = i/(m − 1)        depth_y(i) = j*(i)/(m′ − 1)

    from 0 for the first layer to 1 for the last (0 for a single layer). The lower half of x are its
    layers of depth at most 0.5. ``lower_half_reach`` is the smallest depth of y such that at least
    90 % of them find their match at or below it. It is a 90th percentile because one stray layer
    would decide a maximum. ``lower_half_median`` is the median of their matched depths.

    Parameters
    ----------
    result : xarray.Dataset or xarray.DataArray
        A result of :func:`repsim.compare` or :meth:`repsim.MinibatchCKA.compute`, or any map with
        the dimensions "layer_x" and "layer_y", in either order. Larger values mean more similar,
        unless its ``attrs["kind"]`` is "dissimilarity": then the smallest value is the best match.
    variable : str, optional
        Which variable of a Dataset to take, by default that of its measure.

    Returns
    -------
    xarray.Dataset
        Dim "layer_x": ``match``, the name of the layer of y; the similarity with it, under the
        name of the map (``cka``); ``depth_x`` and ``depth_y`` in [0, 1]. If several layers of y are
        equally similar, the lowest is the match. NaN is ignored. A layer of x that has only NaN is
        left out of ``layer_x`` but counts in the depths. If `result` has a test against chance,
        ``above_chance`` says which matches pass it: p_adjusted ≤ 0.05 of :func:`repsim.max_t`, or
        else z ≥ 3 of ``repsim.compare(..., z_scores=True)``. ``attrs``: lower_half_reach and
        lower_half_median (depths; NaN where the lower half has no match), left_out (the names of
        the layers without a match, as one text), and those of ``result``, such as model_x and
        model_y.

    Raises
    ------
    InputError
        There is no such variable, or it is not a map of numbers with these two dimensions.

    Notes
    -----
    Invariant to increasing functions of the similarity, except ``cka`` itself. The best match may
    be a poor match, so look at its value: one of many independent layers is the most similar, too,
    at an accidental depth. The two numbers in ``attrs`` count all matches. Layers of one residual
    stream resemble each other, so small differences decide which layer matches best.

    References
    ----------
    Raghu et al. 2021, arXiv:2108.08810, Sec. 3: the lower half of a ResNet's layers resembles
    about the lowest quarter of a ViT's.
    """
    import xarray

    array = layer_map(result, "layer_match", variable)
    name, values = str(array.name), array.values
    own = result[name] if isinstance(result, xarray.Dataset) else result
    kept = ~np.isnan(values).all(axis=1)
    alike = -values if array.attrs.get("kind") == "dissimilarity" else values
    best = np.where(np.isnan(alike), -np.inf, alike)[kept].argmax(axis=1)
    names_x, names_y = (
        np.array(layer_names(array, dim), dtype=object) for dim in ("layer_x", "layer_y")
    )
    depth_x, depth_y = _depths(len(names_x))[kept], _depths(len(names_y))[best]
    lower = depth_y[depth_x <= LOWER_HALF]
    more = {}
    if isinstance(result, xarray.Dataset) and (test := chance_threshold(result)) is not None:
        above = test.above(result)[kept][np.arange(len(best)), best]
        dims, above, attrs = LAYER_MATCH.labelled("above_chance", above)
        more["above_chance"] = (dims, above, {**attrs, "description": f"{test.sign}, {test.scope}"})
    return xarray.Dataset(
        {
            "match": LAYER_MATCH.labelled("match", names_y[best]),
            name: ("layer_x", values[kept][np.arange(len(best)), best], own.attrs),
            "depth_x": LAYER_MATCH.labelled("depth_x", depth_x),
            "depth_y": LAYER_MATCH.labelled("depth_y", depth_y),
            **more,
        },
        coords={"layer_x": names_x[kept]},
        attrs={
            **result.attrs,
            # Choose the depth of a layer; do not interpolate between two layers.
            "lower_half_reach": float(np.quantile(lower, MOST, method="inverted_cdf"))
            if len(lower)
            else float("nan"),
            "lower_half_median": float(np.median(lower)) if len(lower) else float("nan"),
            "left_out": ", ".join(names_x[~kept]),
        },
    )


def _depths(layers: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the depth of each layer: 0 for the first, 1 for the last."""
    return np.linspace(0.0, 1.0, layers)
