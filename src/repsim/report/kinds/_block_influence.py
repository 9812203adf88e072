"""Block influence as a section: each block, and each span of blocks."""

from __future__ import annotations

import numpy as np
import xarray as xr

from repsim.report._blocks import Chart, LayerMap, Section, Series, Variable, with_band
from repsim.results import BLOCK_INFLUENCE, model_of, names_of, optional_values, values_of

__all__ = ["influence_section"]


def influence_section(name: str, result: xr.Dataset) -> Section:
    """How far every block, and every span of blocks, turns the residual stream."""
    blocks, starts = names_of(result, "block"), names_of(result, "start")
    values = values_of(result, "influence", "block")
    errors = optional_values(result, "influence_standard_error", "block")
    line = with_band(Series("influence", np.arange(len(blocks)), values), errors)
    angular = values_of(result, "angular", "start", "span")
    spans = [str(span) for span in result["span"].values]
    section = Section(
        name, BLOCK_INFLUENCE.title, f"1 − cosine of the stream in {model_of(result)}"
    )
    section.pictures = [
        Chart(
            "Influence of blocks",
            f"1 − cosine of the input and the output of {len(blocks)} blocks.",
            "block",
            "influence",
            [line],
            categories=blocks,
            note="" if line.low is None else "The band is one standard error over inputs.",
        ),
        LayerMap(
            title="Angular distance of spans of blocks",
            alt=f"Map of the angular distance. Upwards: {len(starts)} first blocks. To the "
            f"right: {len(spans)} lengths of spans.",
            rows=starts,
            columns=spans,
            row_title="first block",
            column_title="blocks in the span",
            variables=[Variable("angular distance", angular, low=0.0, colours="viridis")],
            orders=[("execution order", range(len(starts)), range(len(spans)))],
            note="Spans of small distance are the ones to try to leave out.",
        ),
    ]
    return section
