"""Residual ratios as a section: skip against branch, for prefix and spatial tokens."""

from __future__ import annotations

import numpy as np
import xarray as xr

from repsim.report._blocks import Chart, Section, Series
from repsim.report._read import ends, extreme, has, mean_of, model_of, names_of, values_of

__all__ = ["ratio_section"]


def ratio_section(name: str, result: xr.Dataset) -> Section:
    """Norm of the skip over norm of the branch, for prefix and spatial tokens."""
    sites = names_of(result, "site")
    section = Section(name, "Residual ratios", f"‖skip‖ / ‖branch‖ in {model_of(result)}")
    at = np.arange(len(sites))
    series = []
    for key, what in (("ratio_prefix", "prefix tokens (CLS)"), ("ratio_spatial", "spatial tokens")):
        if not has(result, key, "site"):
            continue
        values = values_of(result, key, "site")
        if not np.isfinite(values).any():
            continue
        series.append(Series(what, at, values))
        section.findings += ends(f"‖skip‖ / ‖branch‖, {what}", sites, values, 2, of="connection")
        section.findings += extreme(f"largest ratio, {what}", sites, values, 2, most=True)
    if not series:
        values = mean_of(values_of(result, "ratio", "site", "token"), 1)
        series = [Series("all tokens", at, values)]
        section.findings += ends("‖skip‖ / ‖branch‖", sites, values, 2, of="connection")
    section.pictures = [
        Chart(
            "Skip against branch",
            f"Ratio of the norms of skip and branch at {len(sites)} residual connections, for "
            f"{' and '.join(each.name for each in series)}.",
            "residual connection",
            "‖skip‖ / ‖branch‖",
            series,
            categories=sites,
            references=[(1.0, "equal norms")],
            log=True,
            note="Above 1 the skip is larger than what the branch adds.",
        )
    ]
    return section
