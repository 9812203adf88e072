"""How the tokens of a sequence come from patches: what models declare, and what their maps say."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

__all__ = ["MOST_PREFIX", "declared_prefix", "map_sizes", "merged"]

MOST_PREFIX = 16
"""Class, distillation and register tokens that a sequence may have beside its patches."""


def declared_prefix(module: nn.Module) -> int | None:
    """Return timm's ``num_prefix_tokens`` of a module, None where it has no such number."""
    number = getattr(module, "num_prefix_tokens", None)
    return number if type(number) is int else None


def merged(n_tokens: int, height: int, width: int) -> tuple[int, int] | None:
    """Return the grid after merging patches by one integer on both sides, None if there is none."""
    for step in range(2, math.gcd(height, width) + 1):
        if height % step == width % step == 0 and n_tokens * step**2 == height * width:
            return height // step, width // step
    return None


@contextmanager
def map_sizes(root: nn.Module) -> Iterator[list[tuple[int, int]]]:
    """Listen to a model's two-dimensional convolutions; yield the sizes of their maps, in order.

    The list is the caller's to clear before a forward.
    """
    sizes: list[tuple[int, int]] = []

    def note(_module: nn.Module, _args: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim >= 3:
            size = int(output.shape[-2]), int(output.shape[-1])
            if size != (1, 1):  # a gate on pooled channels lays no patches
                sizes.append(size)

    with ExitStack() as stack:
        for module in root.modules():
            if isinstance(module, nn.Conv2d):
                stack.callback(module.register_forward_hook(note).remove)
        yield sizes
