"""Pictures of maps: layers by layers, and models by models."""

from __future__ import annotations

from repsim.plot.maps._dendrogram import dendrogram
from repsim.plot.maps._embedding import embedding
from repsim.plot.maps._heatmap import heatmap
from repsim.plot.maps._layer_match import layer_match
from repsim.plot.maps._panels import panels

__all__ = ["dendrogram", "embedding", "heatmap", "layer_match", "panels"]
