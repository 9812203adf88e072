"""The table of all kinds of results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from repsim.results._kind import Kind
from repsim.results.kinds._attention_distance import ATTENTION_DISTANCE
from repsim.results.kinds._data_scale import DATA_SCALE
from repsim.results.kinds._head_subset_cka import HEAD_SUBSET_CKA
from repsim.results.kinds._layer_map import LAYER_MAP
from repsim.results.kinds._layer_match import LAYER_MATCH
from repsim.results.kinds._linear_probe import LINEAR_PROBE
from repsim.results.kinds._receptive_field import RECEPTIVE_FIELD
from repsim.results.kinds._residual_ratios import RESIDUAL_RATIOS
from repsim.results.kinds._token_localization import TOKEN_LOCALIZATION

if TYPE_CHECKING:
    import xarray

__all__ = ["KINDS", "kind_of"]

KINDS = (
    ATTENTION_DISTANCE,
    HEAD_SUBSET_CKA,
    RECEPTIVE_FIELD,
    RESIDUAL_RATIOS,
    TOKEN_LOCALIZATION,
    LINEAR_PROBE,
    DATA_SCALE,
    LAYER_MATCH,
    LAYER_MAP,
)
"""In the order in which a result is compared with them."""


def kind_of(result: xarray.Dataset) -> Kind | None:
    """Return the kind of a result, found from its variables; None if its kind is unknown."""
    return next((kind for kind in KINDS if kind.fits(result)), None)
