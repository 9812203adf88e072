"""The section of a result: its pictures, headline numbers and provenance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr

from repsim.report._blocks import Chart, Section
from repsim.report._few_layers import with_few_layers
from repsim.report._models import untrained_of
from repsim.report.kinds._any import kind_section, unknown_section
from repsim.report.kinds._attention_distance import attention_section
from repsim.report.kinds._block_influence import influence_section
from repsim.report.kinds._data_scale import data_scale_section
from repsim.report.kinds._head_subset_cka import subset_section
from repsim.report.kinds._layer_map import alignment_section, map_section
from repsim.report.kinds._layer_match import match_section
from repsim.report.kinds._linear_probe import probe_section
from repsim.report.kinds._receptive_field import field_section
from repsim.report.kinds._residual_ratios import ratio_section
from repsim.report.kinds._token_localization import localization_section
from repsim.report.kinds._trajectory import trajectory_section
from repsim.results import (
    ALIGNMENT,
    ATTENTION_DISTANCE,
    BLOCK_INFLUENCE,
    DATA_SCALE,
    HEAD_SUBSET_CKA,
    LAYER_MAP,
    LAYER_MATCH,
    LINEAR_PROBE,
    RECEPTIVE_FIELD,
    RESIDUAL_RATIOS,
    TOKEN_LOCALIZATION,
    TRAJECTORY,
    Kind,
    kind_of,
)

__all__ = ["section_of"]

PICTURED: dict[Kind, Callable[[str, xr.Dataset], Section]] = {
    ATTENTION_DISTANCE: attention_section,
    HEAD_SUBSET_CKA: subset_section,
    RECEPTIVE_FIELD: field_section,
    RESIDUAL_RATIOS: ratio_section,
    BLOCK_INFLUENCE: influence_section,
    TOKEN_LOCALIZATION: localization_section,
    LINEAR_PROBE: probe_section,
    DATA_SCALE: data_scale_section,
    TRAJECTORY: trajectory_section,
    LAYER_MATCH: match_section,
    LAYER_MAP: map_section,
    ALIGNMENT: alignment_section,
}
"""The kinds with pictures; any other kind is shown as its table."""

COUNTS = {
    "n_samples": ("sample", "samples"),
    "n_batches": ("batch", "batches"),
    "n_train": ("training sample", "training samples"),
    "n_test": ("test sample", "test samples"),
}


def section_of(name: str, result: xr.Dataset) -> Section:
    """Return the section of a result of any kind, with its provenance."""
    section = _section(name, result)
    section.untrained = untrained_of(result)
    section.pictures = [
        with_few_layers(each) if isinstance(each, Chart) else each for each in section.pictures
    ]
    section.provenance = [(str(key), _text(value)) for key, value in result.attrs.items()]
    own = {
        str(key): value
        for variable in result.data_vars.values()
        for key, value in variable.attrs.items()
        if key not in result.attrs and key not in ("long_name", "units", "description")
    }
    section.provenance += [(key, _text(value)) for key, value in own.items()]
    counts = [
        f"{value:,} {one if value == 1 else several}"
        for key, (one, several) in COUNTS.items()
        if isinstance(value := result.attrs.get(key, own.get(key)), int | np.integer)
    ]
    if counts:
        section.subtitle += f" · {', '.join(counts)}"
    skipped = result.attrs.get("n_skipped_batches", own.get("n_skipped_batches", 0))
    if isinstance(skipped, int | np.integer) and skipped > 0:
        what = "A batch" if skipped == 1 else f"{skipped} batches"
        left_out = f"{what} of fewer than 4 samples {'was' if skipped == 1 else 'were'} left out."
        section.cautions.append(left_out)
    if "interrupted" in result.attrs:
        section.cautions.append(
            f"Interrupted {result.attrs['interrupted']}: this is the result so far."
        )
    return section


def _section(name: str, result: xr.Dataset) -> Section:
    kind = kind_of(result)
    if kind is None:
        return unknown_section(name, result)
    section = PICTURED[kind](name, result) if kind in PICTURED else kind_section(kind, name, result)
    section.findings = [*kind.findings(result), *section.findings]
    return section


def _text(value: object) -> str:
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(_text(each) for each in np.asarray(value, dtype=object).ravel()) or "none"
    if isinstance(value, float | np.floating):
        return f"{float(value):.6g}"
    return str(value)
