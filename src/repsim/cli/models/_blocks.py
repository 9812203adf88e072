"""The default layers of a model: its repeated blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["default_layers"]


def default_layers(model: nn.Module) -> list[str]:
    """Return the names of the repeated blocks; without any, of what has a matrix of weights.

    >>> from torch import nn
    >>> default_layers(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)))
    ['0', '2']
    """
    from torch import nn

    from repsim.capture import blocks_of, named_layers

    named = named_layers(model)
    weighted = nn.Linear | nn.modules.conv._ConvNd
    return blocks_of(named) or [n for n, module in named.items() if isinstance(module, weighted)]
