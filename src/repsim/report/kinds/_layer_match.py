"""A layer match as a section: for each layer of x, how deep in y its best match is."""

from __future__ import annotations

import xarray as xr

from repsim.report._blocks import Chart, Section, Series
from repsim.results import LAYER_MATCH, model_of, names_of, number, similarity_of

__all__ = ["match_chart", "match_section"]


def match_section(name: str, result: xr.Dataset) -> Section:
    """Return the section of a layer match."""
    model_x, model_y = model_of(result, "x"), model_of(result, "y")
    section = Section(name=name, kind=LAYER_MATCH.title)
    section.subtitle = f"for each layer of {model_x}, the most similar layer of {model_y}"
    section.pictures = [match_chart(result)]
    return section


def match_chart(match: xr.Dataset) -> Chart:
    """Return the depths of the layers of x and of their matches in y, one point per layer."""
    model_x, model_y = model_of(match, "x"), model_of(match, "y")
    names = names_of(match, "layer_x")
    others = [str(name) for name in match["match"].values]
    key = similarity_of(match)
    values = None if key is None else [number(float(v)) for v in match[key].values]
    return Chart(
        title="Best match in depth",
        alt=f"Each of {len(names)} layers of {model_x} is a point: its own depth, and the depth "
        f"of the most similar layer of {model_y}. On the diagonal both are equal.",
        x_label=f"depth in {model_x}",
        y_label=f"depth of the most similar layer of {model_y}",
        series=[
            Series(
                "best match",
                match["depth_x"].values,
                match["depth_y"].values,
                line=False,
                names=[f"{a} → {b}" for a, b in zip(names, others, strict=True)],
                values=None if values is None else [f"{key}: {value}" for value in values],
            )
        ],
        percent=True,
        diagonal=True,
        note="0% is the first layer, and 100% is the last. On the dashed line both layers are "
        "equally deep. The best match may be poor. Layers of one residual stream differ "
        "little, so small differences decide.",
    )
