"""Attention maps of any framework: how far, how widely and to what heads attend.

Weights are (..., heads, queries, keys) after the softmax. Tokens are the prefix tokens (CLS,
distillation, registers), then the patches row by row. `repsim.attention_distance` reads the weights
of a torch model.
"""

from repsim.attention._distance import mean_distance
from repsim.attention._grid import grid_distances, uniform_distance
from repsim.attention._rollout import rollout
from repsim.attention._spread import entropy, prefix_mass

__all__ = [
    "entropy",
    "grid_distances",
    "mean_distance",
    "prefix_mass",
    "rollout",
    "uniform_distance",
]
