"""The blocks of a model: the layers to look at where nobody says which."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["find_blocks"]


def find_blocks(model: nn.Module) -> list[str]:
    """Return the names of a model's repeated blocks, in registration order.

    A block is a module with modules inside that stands in a container (``Sequential``,
    ``ModuleList``, ``ModuleDict``, or a class made from one) beside another of its class, and holds
    no such blocks itself: ``blocks.3`` of a ViT, ``layer1.0`` of a ResNet. In a model without any
    (VGG), its convolutions and linear layers.

    Examples
    --------
    >>> from torch import nn
    >>> find_blocks(nn.Sequential(*(nn.Sequential(nn.Linear(2, 2), nn.ReLU()) for _ in range(2))))
    ['0', '1']
    """
    from torch import nn

    from repsim.capture import named_layers

    named = named_layers(model)
    repeated = []
    for name, module in named.items():
        parent = named.get(name.rpartition(".")[0], model)
        if not isinstance(parent, nn.Sequential | nn.ModuleList | nn.ModuleDict):
            continue
        alike = sum(type(child) is type(module) for child in parent.children())
        if alike > 1 and any(module.children()):
            repeated.append(name)
    innermost = [
        name for name in repeated if not any(other.startswith(f"{name}.") for other in repeated)
    ]
    return innermost or [
        name
        for name, module in named.items()
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd)
    ]
