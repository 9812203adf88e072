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

PICTURES = {
    "alignment": "heatmap",
    "cka_matrix": "heatmap",
    "compare": "heatmap",
    "effective_receptive_field": "receptive_field",
    "head_subset_cka": "head_subsets",
    "linear_probe": "probe",
    "max_t": "heatmap",
    "pairwise": "heatmap",
    "probe_activations": "probe",
    "token_localization": "localization",
}
"""The pictures of results whose function has another name."""


def __getattr__(name: str) -> object:
    hint = f". Did you mean: {PICTURES[name]!r}?" if name in PICTURES else ""
    raise AttributeError(f"module 'repsim.plot' has no attribute {name!r}{hint}")


def __dir__() -> list[str]:
    return sorted(__all__)
