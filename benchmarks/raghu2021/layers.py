"""The blocks of any model, found by their residual sums."""

from __future__ import annotations

from torch import Tensor, nn

import repsim

__all__ = ["blocks"]


def blocks(model: nn.Module, example: Tensor) -> list[str]:
    """Return the names of the modules that hold a residual sum each, in execution order.

    A transformer block holds two, for attention and MLP; it is listed once.
    """
    return list(dict.fromkeys(site.block for site in repsim.residual_sites(model, example)))
