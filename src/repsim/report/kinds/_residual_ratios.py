"""Residual ratios as a section: skip against branch, for prefix and spatial tokens."""

from __future__ import annotations

import numpy as np
import xarray as xr

from repsim.report._blocks import Chart, Section, Series
from repsim.results import RATIO, RESIDUAL_RATIOS, group_ratios, model_of, names_of

__all__ = ["ratio_section"]


def ratio_section(name: str, result: xr.Dataset) -> Section:
    """Norm of the skip over norm of the branch, for prefix and spatial tokens."""
    sites = names_of(result, "site")
    section = Section(name, RESIDUAL_RATIOS.title, f"{RATIO} in {model_of(result)}")
    at = np.arange(len(sites))
    series = [Series(what, at, values) for what, values in group_ratios(result).items()]
    section.pictures = [
        Chart(
            "Skip against branch",
            f"Ratio of the norms of skip and branch at {len(sites)} residual connections, for "
            f"{' and '.join(each.name for each in series)}.",
            "residual connection",
            RATIO,
            series,
            categories=sites,
            references=[(1.0, "equal norms")],
            log=True,
            note="Above 1, the skip is larger than the output of the branch.",
        )
    ]
    return section
