"""The blocks of a model, which are the default layers."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["find_blocks"]


def find_blocks(model: nn.Module) -> list[str]:
    """Return the names of a model's repeated blocks, in registration order.

    >>> from torch import nn
    >>> find_blocks(nn.Sequential(*(nn.Sequential(nn.Linear(2, 2), nn.ReLU()) for _ in range(2))))
    ['0', '1']

    A block has modules inside and is in a container (``Sequential``, ``ModuleList``,
    ``ModuleDict``, or a subclass). Blocks are the modules whose class occurs at least twice in
    one container: ``blocks.3`` of a ViT, ``layer1.0`` of a ResNet. If there are none, they are
    the modules of classes that occur twice, and if there are none of these, the ``Sequential``
    modules in one container. Of nested blocks (a stage and its blocks) the inner ones count. A
    model without blocks (VGG) has its convolutions and linear layers instead.
    """
    from torch import nn

    from repsim.capture import named_layers

    named = named_layers(model)
    parents = {name: named.get(name.rpartition(".")[0], model) for name in named}
    contained = {
        name: module
        for name, module in named.items()
        if any(module.children())
        and isinstance(parents[name], nn.Sequential | nn.ModuleList | nn.ModuleDict)
    }
    beside = Counter((id(parents[name]), type(module)) for name, module in contained.items())
    anywhere = Counter(type(module) for module in contained.values())
    side_by_side = {kind for (_, kind), times in beside.items() if times > 1}
    repeated = {kind for kind, times in anywhere.items() if times > 1}
    # A Sequential may be a convolution with its norm, so it counts only if there is no other block.
    plain = {kind for kind in anywhere if issubclass(kind, nn.Sequential)}
    for kinds in (side_by_side - plain, repeated - plain, side_by_side):
        chosen = [name for name, module in contained.items() if type(module) in kinds]
        if chosen:
            return [
                name for name in chosen if not any(other.startswith(f"{name}.") for other in chosen)
            ]
    return [
        name
        for name, module in named.items()
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd)
    ]
