"""Pictures of results: each function takes a result and an Axes, draws, and returns the Axes."""

from __future__ import annotations

from repsim.plot._heatmap import heatmap
from repsim.plot._layer_match import layer_match

__all__ = ["heatmap", "layer_match"]
