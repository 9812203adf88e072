"""A layer match as a section: for each layer of x, how deep in y its best match is."""

from __future__ import annotations

import numpy as np
import xarray as xr

from repsim.report._blocks import Chart, Section, Series
from repsim.results import LAYER_MATCH, above_chance, model_of, names_of, number, similarity_of

__all__ = ["match_cautions", "match_chart", "match_section"]


def match_section(name: str, result: xr.Dataset) -> Section:
    """Return the section of a layer match."""
    model_x, model_y = model_of(result, "x"), model_of(result, "y")
    section = Section(name=name, kind=LAYER_MATCH.title)
    section.subtitle = f"for each layer of {model_x}, the most similar layer of {model_y}"
    section.cautions = match_cautions(result)
    section.pictures = [match_chart(result)]
    return section


def match_cautions(match: xr.Dataset) -> list[str]:
    """Say how many matches are not above chance, if any."""
    by_chance = ~above_chance(match)
    if not by_chance.any():
        return []
    test = match["above_chance"].attrs.get("description", "")
    return [
        f"{by_chance.sum()} of {by_chance.size} best matches do not pass the test against chance"
        + (f" ({test})" if test else "")
        + ": their depths may be accidental. They are grey."
    ]


def match_chart(match: xr.Dataset) -> Chart:
    """Return the depths of the layers of x and of their matches in y, one point per layer."""
    model_x, model_y = model_of(match, "x"), model_of(match, "y")
    names = names_of(match, "layer_x")
    others = [str(name) for name in match["match"].values]
    key = similarity_of(match)
    values = None if key is None else [number(float(v)) for v in match[key].values]
    above = above_chance(match)
    groups = {"best match": above, "not above chance": ~above}
    return Chart(
        title="Best match in depth",
        alt=f"Each of {len(names)} layers of {model_x} is a point: its own depth, and the depth "
        f"of the most similar layer of {model_y}. On the diagonal both are equal.",
        x_label=f"depth in {model_x}",
        y_label=f"depth of the most similar layer of {model_y}",
        series=[
            Series(
                which,
                match["depth_x"].values[mask],
                match["depth_y"].values[mask],
                line=False,
                reference=which != "best match",
                names=[f"{names[i]} → {others[i]}" for i in np.flatnonzero(mask)],
                values=None
                if values is None
                else [f"{key}: {values[i]}" for i in np.flatnonzero(mask)],
            )
            for which, mask in groups.items()
            if mask.any() or (which == "best match" and above.all())
        ],
        percent=True,
        diagonal=True,
        note="0% is the first layer, and 100% is the last. On the dashed line both layers are "
        "equally deep. The best match may be poor. Layers of one residual stream differ "
        "little, so small differences decide.",
    )
