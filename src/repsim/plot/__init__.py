"""Pictures of results: each function takes a result and an Axes, draws, and returns the Axes."""

from __future__ import annotations

from repsim.plot._attention_distance import attention_distance
from repsim.plot._block_influence import block_influence
from repsim.plot._data_scale import data_scale
from repsim.plot._head_subsets import head_subsets
from repsim.plot._localization import localization
from repsim.plot._probe import probe
from repsim.plot._receptive_field import receptive_field
from repsim.plot._residual_ratios import residual_ratios
from repsim.plot._trajectory import trajectory
from repsim.plot.maps import dendrogram, embedding, heatmap, layer_match, panels

__all__ = [
    "attention_distance",
    "block_influence",
    "data_scale",
    "dendrogram",
    "embedding",
    "head_subsets",
    "heatmap",
    "layer_match",
    "localization",
    "panels",
    "probe",
    "receptive_field",
    "residual_ratios",
    "trajectory",
]
